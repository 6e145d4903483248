"""What a site keeps of its secure rounds: the secrets of a round under way, and the last sum that it helped to open.

masking/round-0000000003.json   secrets of round 3's present attempt, until its sum is opened or a later input leaves
masking/opened.json             of the last sum: who was in it, and what this site gave

What was given stands on the disk before it leaves: a site that was restarted gives the same again or nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..common.atomic import for_owner_alone, write_atomic
from ..common.errors import DataError
from ..common.folder_lock import hold_folder
from ..common.journal import read_journal
from ..common.masking.keys import RoundSecrets
from ..common.masking.sealing import Shares
from ..common.site_folder import MASKED_LEFT
from ..common.storage import storage_errors


@dataclass(frozen=True)
class Session:
    """One attempt at a round.

    Attributes:
        round: 1-based.
        secrets: Of this attempt alone.
        keys: The site's own, signed, as they left.
        key_set: Every site's, as this site accepted them; none yet.
        boxes: What it sealed for the others, as it left; none yet.
        held: Shares of every site, its own among them; none yet but its own.
        masked: SHA-256 of the masked input that left; empty before.
    """

    round: int
    secrets: RoundSecrets
    keys: bytes
    key_set: tuple[bytes, ...] = ()
    boxes: Mapping[str, bytes] = field(default_factory=dict)
    held: Mapping[str, Shares] = field(default_factory=dict)
    masked: str = ""

    def to_json(self) -> str:
        """For the site's disk alone."""
        secrets = self.secrets
        return json.dumps(
            {
                "round": self.round,
                "cipher": secrets.cipher.private_bytes_raw().hex(),
                "mask": secrets.mask.private_bytes_raw().hex(),
                "seed": secrets.seed.hex(),
                "keys": self.keys.hex(),
                "key_set": [keys.hex() for keys in self.key_set],
                "boxes": {site: box.hex() for site, box in self.boxes.items()},
                "held": {site: [shares.mask.hex(), shares.seed.hex()] for site, shares in self.held.items()},
                "masked": self.masked,
            }
        )

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
        table = json.loads(text)
        cipher, mask = (X25519PrivateKey.from_private_bytes(bytes.fromhex(table[name])) for name in ("cipher", "mask"))
        return cls(
            int(table["round"]),
            RoundSecrets(cipher, mask, bytes.fromhex(table["seed"])),
            bytes.fromhex(table["keys"]),
            tuple(map(bytes.fromhex, table["key_set"])),
            {site: bytes.fromhex(box) for site, box in table["boxes"].items()},
            {site: Shares(*map(bytes.fromhex, pair)) for site, pair in table["held"].items()},
            str(table["masked"]),
        )


@dataclass(frozen=True)
class Opened:
    """The last sum that this site helped to open.

    Attributes:
        round: 1-based.
        session: Of the round.
        alive: Who was in it, sorted.
        shares: Site to the one share that was given.
    """

    round: int
    session: str
    alive: tuple[str, ...]
    shares: Mapping[str, bytes]


class SecureState:
    """The two files, and what the journal says of them: whoever removes or restores files, what is over stays so.

    Args:
        folder: The site's ``masking/``.
        journal: The site's.
    """

    def __init__(self, folder: Path, journal: Path) -> None:
        self._folder, self._journal = folder, journal

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The folder for this question alone, whatever process answers it.

        Raises:
            ConfigError: another question is being answered.
            StorageError: the disk is full, read-only or forbidden.
        """
        with storage_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
        for_owner_alone(self._folder)
        with hold_folder(self._folder):
            yield

    def keep(self, session: Session) -> None:
        """Write what an attempt has come to, in place of an earlier attempt at its round. Raises StorageError."""
        write_atomic(self._file(session.round), session.to_json().encode(), mode=0o600)

    def session(self, round_: int) -> Session | None:
        """The present attempt at a round; None where there is none.

        Raises:
            DataError: its file is damaged.
        """
        try:
            return Session.from_json(self._file(round_).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            remedy = "Remove it, and no other file there: the coordinator begins the round anew."
            raise _damaged(self._file(round_), remedy) from None

    def opened(self) -> Opened | None:
        """The last sum that this site helped to open, as its file says: it can be given again.

        Raises:
            DataError: its file is damaged.
        """
        file = self._folder / "opened.json"
        try:
            table = json.loads(file.read_bytes())
            shares = {str(site): bytes.fromhex(share) for site, share in table["shares"].items()}
            return Opened(int(table["round"]), str(table["session"]), tuple(map(str, table["alive"])), shares)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            remedy = "Remove it: the journal says which rounds are over, and this site goes on with the next."
            raise _damaged(file, remedy) from None

    def last_opened(self) -> int:
        """The last round whose sum this site helped to open, by its file or its journal; 0 for none.

        Raises:
            DataError: the file is damaged.
            VerificationFailed: the journal was edited.
        """
        opened = self.opened()
        entries = read_journal(self._journal) if self._journal.exists() else ()
        # Of a sum the line is written before anything leaves, so that the journal alone says enough.
        told = [e.facts for e in entries if e.event == MASKED_LEFT and e.facts.get("what") == "sum"]
        return max([opened.round if opened else 0, *(int(str(facts["round"])) for facts in told)])

    def open(self, opened: Opened) -> None:
        """Write what is about to be given, then forget the round's secrets. Raises StorageError."""
        table = {
            "round": opened.round,
            "session": opened.session,
            "alive": list(opened.alive),
            "shares": {site: share.hex() for site, share in opened.shares.items()},
        }
        write_atomic(self._folder / "opened.json", json.dumps(table).encode(), mode=0o600)
        self.forget_until(opened.round)

    def forget_until(self, round_: int) -> None:
        """Forget the secrets of this round and of those before: their sums open without this site or not at all.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        with storage_errors():
            for file in self._folder.glob("round-*.json"):
                if file.name <= self._file(round_).name:
                    file.unlink(missing_ok=True)

    def _file(self, round_: int) -> Path:
        return self._folder / f"round-{round_:010d}.json"


def _damaged(file: Path, remedy: str) -> DataError:
    return DataError(
        f"a damaged file masking/{file.name} in the site's folder",
        expected="what this site wrote there itself",
        remedy=remedy,
    )
