"""A site's keys of one round, signed by its identity; and all sites' keys of one round, each verified.

Two X25519 pairs a site and round. ``mask`` makes the masks that a pair of sites share; where its site drops out, the
others give its private half away, so it must open nothing else. ``cipher`` seals the shares that sites send each other,
and never leaves. One pair for both would let whoever recovers a dropped site's masks read the shares sent to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..counted import counted
from ..errors import PolicyRefused, SignatureInvalid
from ..exchange import SITE_NAME
from ..signing import sign, unverified, verify
from .peers import Peers
from .threshold import threshold_problem

MOST_BYTES = 2048
"""Of one site's signed keys."""

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RoundKeys(BaseModel):
    """What a site signs: its public keys of one round of one study, among these sites."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["fedphantom/masking-keys/1"] = "fedphantom/masking-keys/1"
    study: Hex
    """Digest of the study."""
    peers: Hex
    """Digest of the sites that take part."""
    round: Annotated[int, Field(ge=1, lt=2**31)]
    site: Annotated[str, Field(pattern=f"^{SITE_NAME}$")]
    cipher: Hex
    mask: Hex
    seed_sha256: Hex
    """Of the seed that hides the site's input: whoever puts it together from shares can tell that it is right."""


@dataclass(frozen=True)
class RoundSecrets:
    """The private halves; they live as long as the round.

    Attributes:
        cipher: Opens the shares that others send.
        mask: Makes the masks that are shared with others; given away by the others where the site drops out.
        seed: Makes the mask that is the site's alone, 32 bytes; given away by the others where its input is in the sum.
    """

    cipher: X25519PrivateKey
    mask: X25519PrivateKey
    seed: bytes

    @classmethod
    def fresh(cls) -> RoundSecrets:
        """New ones, from the operating system's randomness."""
        return cls(X25519PrivateKey.generate(), X25519PrivateKey.generate(), os.urandom(32))

    def signed(self, identity: Ed25519PrivateKey, *, study: str, peers: Peers, round: int, site: str) -> bytes:
        """The public halves, in an envelope that names study, sites, round and site."""
        keys = RoundKeys(
            study=study,
            peers=peers.digest,
            round=round,
            site=site,
            cipher=public_half(self.cipher.private_bytes_raw()),
            mask=public_half(self.mask.private_bytes_raw()),
            seed_sha256=hashlib.sha256(self.seed).hexdigest(),
        )
        return sign(keys.model_dump_json().encode(), identity)


def public_half(private: bytes) -> str:
    """The public key, hex, of a private X25519 key's 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def read_keys(envelope: bytes, peers: Peers, *, study: str, round: int) -> RoundKeys:
    """One site's keys, signed by the identity that the sites know it by, for this round of this study.

    Raises:
        SignatureInvalid: anything else.
    """
    if len(envelope) > MOST_BYTES:
        raise _invalid(f"masking keys of {len(envelope)} bytes")
    site = _read(unverified(envelope)[1]).site
    if site not in peers.keys:
        raise _invalid("masking keys of a site that is not one of the study's")
    keys = _read(verify(envelope, [peers.keys[site]]))
    if keys.study != study or keys.peers != peers.digest or keys.round != round:
        raise _invalid(f"masking keys of '{site}' for another round, study or list of sites")
    return keys


def _read(payload: bytes) -> RoundKeys:
    try:
        return RoundKeys.model_validate_json(payload)
    except ValidationError:
        raise _invalid("a signed text that is no masking keys") from None


@dataclass(frozen=True)
class KeySet:
    """All sites' keys of one round, by site name; whoever holds the same has the same :attr:`session`."""

    envelopes: tuple[bytes, ...]
    keys: tuple[RoundKeys, ...]

    @cached_property
    def session(self) -> str:
        """SHA-256 (hex) over every site's signed keys: names the round's one attempt with exactly these."""
        return hashlib.sha256(
            json.dumps([keys.model_dump() for keys in self.keys], sort_keys=True).encode()
        ).hexdigest()

    @property
    def sites(self) -> tuple[str, ...]:
        """Names, sorted; a site's place among them numbers its shares."""
        return tuple(keys.site for keys in self.keys)

    @property
    def round(self) -> int:
        """The round they are for."""
        return self.keys[0].round

    def of(self, site: str) -> RoundKeys:
        """One site's."""
        return self.keys[self.sites.index(site)]


def read_key_set(
    envelopes: Iterable[bytes], peers: Peers, *, study: str, round: int, threshold: int, fewest: int
) -> KeySet:
    """Keys of all sites that are to be summed, each verified.

    Args:
        envelopes: One a site.
        peers: The sites that were approved.
        study: Digest of the study.
        round: The round.
        threshold: Of the study.
        fewest: Sites that whoever reads this asks for at least.

    Raises:
        SignatureInvalid: keys that are not a known site's, for this round of this study; a site twice, a key twice.
        PolicyRefused: fewer sites than the threshold or than are asked for, or a threshold of half of them or less.
    """
    read = sorted(
        ((read_keys(envelope, peers, study=study, round=round), envelope) for envelope in envelopes),
        key=lambda pair: pair[0].site,
    )
    found = tuple(keys for keys, _ in read)
    if len({keys.site for keys in found}) < len(found):
        raise _invalid("masking keys of one site twice")
    if any(count > 1 for count in Counter(key for keys in found for key in (keys.cipher, keys.mask)).values()):
        raise _invalid("one masking key twice")
    problem = threshold_problem(len(found), threshold)
    if problem or len(found) < fewest:
        raise PolicyRefused(
            problem or f"a sum of {counted(len(found), 'site')}",
            expected=f"{counted(max(threshold, fewest), 'site')} or more, and a threshold of more than half of them",
            remedy="Wait until more sites are there; the coordinator asks again.",
        )
    return KeySet(tuple(envelope for _, envelope in read), found)


def derived_key(own: X25519PrivateKey, other: str, session: str, purpose: str) -> bytes:
    """32 bytes that only the holders of two X25519 keys can make, for one purpose in one session.

    Args:
        own: A private key.
        other: The other's public key, hex.
        session: Of the round; salts.
        purpose: In words, with the names of both ends; no two purposes are the same.

    Raises:
        SignatureInvalid: a public key of low order, with which everybody makes the same bytes.

    Source: HKDF, RFC 5869; X25519, RFC 7748.
    """
    try:
        secret = own.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(other)))
    except ValueError:
        raise _invalid("a masking key that everybody can make the masks of") from None
    return HKDF(SHA256(), 32, salt=bytes.fromhex(session), info=f"fedphantom {purpose}".encode()).derive(secret)


def _invalid(found: str) -> SignatureInvalid:
    return SignatureInvalid(
        found,
        expected="one set of keys of every site for this round, each signed by the identity that this site approved",
        remedy="Nothing was sent. If it happens again, ask the other sites: somebody may stand between you.",
    )
