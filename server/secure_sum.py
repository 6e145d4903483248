"""A round's masked sum at the coordinator: gathered, kept on the disk, and opened by the sites' shares.

It is kept before anybody is asked to open it: a site helps to open one sum a round, so a coordinator that was killed
meanwhile has to go on with the very same, or give the round up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..common.atomic import write_atomic
from ..common.counted import counted
from ..common.errors import FedPhantomError, PeerError
from ..common.masking.fixed_point import Ring
from ..common.masking.keys import KeySet, public_half, read_key_set
from ..common.masking.masks import add_own_mask, add_shared_mask
from ..common.masking.peers import Peers
from ..common.masking.shares import SIZE, recover
from ..common.storage import storage_errors

FOLDER = "secure"
"""In the run's folder: ``sum.json`` and ``sum.u32``, of the last round whose sum was gathered."""
_ASKED_AGAIN = "It asks once more; if that fails too, and enough sites are there for a round, this round is given up."


@dataclass
class MaskedSum:
    """The inputs of a round's sites, added up under their masks.

    Attributes:
        study: Digest of the study.
        keys: Of the round's sites.
        start: Digest of the generator that the round began with.
        total: Sum of the masked inputs, shape (values,).
        metrics: Of each site in the sum, by name: functions of public constants.
        left_out: Site to reason.
        failed: Whether a call ended because too few opened it, or none that fitted together.
    """

    study: str
    keys: KeySet
    start: str
    total: Ring
    metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: bool = False

    @classmethod
    def empty(cls, study: str, keys: KeySet, start: str, values: int) -> Self:
        """Nobody's yet."""
        return cls(study, keys, start, np.zeros(values, np.uint32))

    @property
    def alive(self) -> tuple[str, ...]:
        """Sites in the sum, sorted."""
        return tuple(sorted(self.metrics))

    def add(self, site: str, masked: Ring, metrics: Mapping[str, float]) -> None:
        """Add a site's input, in whatever order inputs come: whole numbers add up to the same."""
        if site in self.metrics or site not in self.keys.sites:
            raise ValueError("an input that has no place in the sum")
        self.total += masked
        self.metrics[site] = dict(metrics)

    def opened(self, shares: Mapping[str, Mapping[str, bytes]], threshold: int) -> Ring:
        """The sum of the inputs alone, shape (values,).

        Args:
            shares: Site that answered to, by site, the share that it gave: of the seed of a site in the sum, of the
                mask key of one that is not.
            threshold: Of the study.

        Raises:
            PeerError: fewer answers than the threshold, or shares that do not give what a site published.
        """
        whole = {site: given for site, given in shares.items() if self._fits(site, given)}
        if len(whole) < threshold:
            raise PeerError(
                f"the sum of round {self.keys.round} can be opened by {counted(len(whole), 'site')} alone",
                expected=f"at least {threshold}, the study's threshold",
                remedy=f"Have {self._missing(whole)} come back, then run it again. {_ASKED_AGAIN}",
            )
        places = {site: place for place, site in enumerate(self.keys.sites)}
        total, alive = self.total.copy(), self.alive
        for site in self.keys.sites:
            held = {places[holder]: given[site] for holder, given in whole.items()}
            secret = self._secret(site, held, threshold, in_sum=site in alive)
            if site in alive:
                add_own_mask(total, secret, self.keys, site, times=-1)
                continue
            own = X25519PrivateKey.from_private_bytes(secret)
            for other in alive:
                # What stands in the sum is the other's side of the mask, the opposite of the dropped site's.
                add_shared_mask(total, own, self.keys, site, other, self.start)
        return total

    def _missing(self, whole: Mapping[str, Mapping[str, bytes]]) -> str:
        return ", ".join(f"'{site}'" for site in self.alive if site not in whole)

    def _fits(self, site: str, given: Mapping[str, bytes]) -> bool:
        sized = all(len(share) == SIZE for share in given.values())
        return site in self.metrics and set(given) == set(self.keys.sites) and sized

    def _secret(self, site: str, held: Mapping[int, bytes], threshold: int, *, in_sum: bool) -> bytes:
        """What a site's shares give: where more came than are needed, a wrong one does not lose the round."""
        published = self.keys.of(site)

        def fits(secret: bytes) -> bool:
            if in_sum:
                return hashlib.sha256(secret).hexdigest() == published.seed_sha256
            return public_half(secret) == published.mask

        secret = recover(held, threshold, fits)
        if secret is not None:
            return secret
        raise PeerError(
            f"shares of '{site}' that do not fit together in round {self.keys.round}",
            expected=f"{threshold} shares that give what that site published",
            remedy="Sites gave wrong shares: have every site's version and disk looked at, then run it again."
            f" {_ASKED_AGAIN}",
        )

    def keep(self, run: Path) -> None:
        """Write it into the run's folder. Raises StorageError."""
        content = np.ascontiguousarray(self.total, "<u4").tobytes()
        facts = {
            "study": self.study,
            "round": self.keys.round,
            "start": self.start,
            "keys": [envelope.decode("ascii") for envelope in self.keys.envelopes],
            "metrics": {site: dict(metrics) for site, metrics in self.metrics.items()},
            "left_out": self.left_out,
            "failed": self.failed,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_atomic(run / FOLDER / "sum.u32", content)
        write_atomic(run / FOLDER / "sum.json", json.dumps(facts).encode())  # last: it names the other's hash


def forget_sum(run: Path) -> None:
    """Remove what was kept, so that nobody is asked to open it any more. Raises StorageError."""
    with storage_errors():
        for name in ("sum.json", "sum.u32"):
            (run / FOLDER / name).unlink(missing_ok=True)


def kept_sum(run: Path, *, study: str, round: int, start: str, peers: Peers, threshold: int) -> MaskedSum | None:
    """What was gathered of this round before the coordinator was killed; None where nothing was, or it is damaged.

    Nor where it was of the same round from another generator: added to this one it would be a wrong mean.
    """
    try:
        facts = json.loads((run / FOLDER / "sum.json").read_bytes())
        content = (run / FOLDER / "sum.u32").read_bytes()
        if (facts["study"], facts["round"], facts["start"]) != (study, round, start):
            return None
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            return None
        envelopes = [text.encode("ascii") for text in facts["keys"]]
        keys = read_key_set(envelopes, peers, study=study, round=round, threshold=threshold, fewest=threshold)
        metrics: dict[str, Mapping[str, float]] = {
            str(site): {str(name): float(value) for name, value in told.items()}
            for site, told in facts["metrics"].items()
        }
        left_out, failed = {str(site): str(reason) for site, reason in facts["left_out"].items()}, bool(facts["failed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FedPhantomError):
        return None
    return MaskedSum(study, keys, start, np.frombuffer(content, "<u4").astype(np.uint32), metrics, left_out, failed)
