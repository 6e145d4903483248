"""Roles and coins: which patient trains, which tests, and which stay out for the audit.

Drawn once, before training, by patient and never by scan (PRIVACY §3.1), and kept in the site's
coin record. The record names patients: it never leaves the site.
"""

from __future__ import annotations

import fcntl
import hmac
import itertools
import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..atomic import write_atomic
from ..counted import counted
from ..errors import DataError, PolicyRefused, VerificationFailed
from ..storage import storage_errors
from ..study import RolesTable

Role = Literal["test", "reference", "control", "member", "holdout", "training", "validation"]
"""``member`` and ``holdout`` are the audited pair; ``training`` trains and is scored by no attack."""

ROLES: tuple[Role, ...] = get_args(Role)

_FORMAT = "fedphantom coin record 1"


@dataclass(frozen=True)
class CoinRecord:
    """Every patient's role.

    Attributes:
        cohort_digest: HMAC-SHA256 (hex) of the sorted patient identifiers, keyed with ``salt``; names
            the cohort in reports without naming a patient.
        salt: 32 hex digits from the operating system, whatever seed drew the roles: with a public
            seed the digest of guessable identifiers could be searched.
        created: UTC, ISO 8601.
        seed_source: Where the draw's randomness came from, in words.
        roles: Patient identifier to role, sorted by identifier.
    """

    cohort_digest: str
    salt: str
    created: str
    seed_source: str
    roles: Mapping[str, Role]

    def patients(self, role: Role) -> tuple[str, ...]:
        """Identifiers of the patients with this role, sorted."""
        return tuple(sorted(p for p, r in self.roles.items() if r == role))

    def training_patients(self) -> tuple[str, ...]:
        """Audited members and unscored training patients, sorted: nobody else may touch a generator."""
        return tuple(sorted(p for p, r in self.roles.items() if r in ("member", "training")))

    def counts(self) -> dict[Role, int]:
        """Patients per role, every role named."""
        found = Counter(self.roles.values())
        return {role: found[role] for role in ROLES}

    def describes(self, patient_ids: Iterable[str]) -> bool:
        """Whether these are exactly the patients the roles were drawn for, in any order."""
        return hmac.compare_digest(cohort_digest(patient_ids, self.salt), self.cohort_digest)

    def to_json(self) -> str:
        """The record's file, as text."""
        content = {
            "format": _FORMAT,
            "cohort_digest": self.cohort_digest,
            "salt": self.salt,
            "created": self.created,
            "seed_source": self.seed_source,
            "roles": dict(sorted(self.roles.items())),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CoinRecord:
        """Parse and check a record.

        Raises:
            VerificationFailed: not such a record, an unknown role, or roles that the digest does not cover.
        """
        try:
            content = json.loads(text)
            record = cls(
                cohort_digest=_text(content, "cohort_digest"),
                salt=_text(content, "salt"),
                created=_text(content, "created"),
                seed_source=_text(content, "seed_source"),
                roles={str(p): _role(r) for p, r in sorted(content["roles"].items())},
            )
            whole = content["format"] == _FORMAT and re.fullmatch("[0-9a-f]{32}", record.salt) and len(content) == 6
            whole = whole and record.describes(record.roles)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            whole, record = None, None
        if not whole or record is None:
            raise VerificationFailed(
                "the coin record is damaged or was edited",
                expected="the record as it was written when roles were drawn",
                remedy="Restore it from a backup; roles drawn anew would void every audit of this cohort.",
            )
        return record


def _text(content: Mapping[str, object], key: str) -> str:
    value = content[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def _role(value: object) -> Role:
    for role in ROLES:
        if value == role:
            return role
    raise ValueError("role")


def cohort_digest(patient_ids: Iterable[str], salt: str) -> str:
    """HMAC-SHA256 (hex) of the sorted identifiers; each is length-prefixed, so none can run into the next."""
    mac = hmac.new(bytes.fromhex(salt), digestmod="sha256")
    for encoded in sorted(patient.encode() for patient in patient_ids):
        mac.update(len(encoded).to_bytes(8, "big") + encoded)
    return mac.hexdigest()


def draw_roles(
    patient_ids: Iterable[str],
    table: RolesTable,
    rng: np.random.Generator,
    *,
    seed_source: str = "a generator given by the caller",
) -> CoinRecord:
    """Draw every patient's role: test, reference, control, then fair coins, then validation.

    The shares' running total is rounded, not each share: counts then never exceed the cohort and each is
    within one patient of its share. The audit patients' coins are independent with p = 1/2 exactly, so
    the numbers of members and holdout vary: a one-run bound needs that.

    Args:
        patient_ids: Each patient once, in any order: the order does not matter.
        table: The study's shares.
        rng: The only source of the draw.
        seed_source: What the record says about ``rng``.

    Raises:
        DataError: no patients, or one given twice.
    """
    ids = sorted(patient_ids)
    if not ids or len(set(ids)) != len(ids):
        raise DataError(
            f"{counted(len(ids), 'patient')}, {len(set(ids))} of them different",
            expected="at least one patient, each once",
            remedy="Run 'fedphantom cohort check'.",
        )
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    n_test, n_reference, n_control, n_audit = _counts(
        len(ids), (table.test, table.reference, table.control, table.audit)
    )
    roles: dict[str, Role] = {}

    def give(role: Role, number: int) -> None:
        for _ in range(number):
            roles[shuffled.pop()] = role

    give("test", n_test)
    give("reference", n_reference)
    give("control", n_control)
    for coin in rng.integers(0, 2, size=n_audit):
        give("member" if coin else "holdout", 1)
    give("validation", _counts(len(shuffled), (table.validation,))[0])
    give("training", len(shuffled))

    salt = secrets.token_hex(16)
    return CoinRecord(
        cohort_digest=cohort_digest(ids, salt),
        salt=salt,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed_source=seed_source,
        roles=dict(sorted(roles.items())),
    )


def _counts(n: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    # 1e-9: shares such as 0.1 + 0.2 must not fall a patient short of a half by float error.
    edges = [0] + [math.floor(sum(shares[: i + 1]) * n + 0.5 + 1e-9) for i in range(len(shares))]
    return tuple(b - a for a, b in itertools.pairwise(edges))


def load_roles(path: Path) -> CoinRecord:
    """Read a coin record.

    Raises:
        VerificationFailed: the file is missing, unreadable, damaged or edited.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise VerificationFailed(
            "no readable coin record",
            expected="the record written when roles were drawn",
            remedy="Restore it from a backup; roles drawn anew would void every audit of this cohort.",
        ) from None
    return CoinRecord.from_json(text)


def load_or_draw_roles(
    path: Path,
    patient_ids: Iterable[str],
    table: RolesTable,
    rng: np.random.Generator,
    *,
    seed_source: str = "a generator given by the caller",
) -> CoinRecord:
    """The record at ``path``; drawn and written there first if there is none. Never overwritten.

    Raises:
        PolicyRefused: the patients are not those the roles were drawn for.
        VerificationFailed: the record is damaged or was edited.
        StorageError: it cannot be written.
    """
    ids = tuple(patient_ids)
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("w")
    with lock:  # two starts at once must agree on one draw
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            record = draw_roles(ids, table, rng, seed_source=seed_source)
            write_atomic(path, record.to_json().encode(), mode=0o600)
    return load_roles_of(path, ids)


def load_roles_of(path: Path, patient_ids: Iterable[str]) -> CoinRecord:
    """The record at ``path``, drawn for these patients.

    Raises:
        PolicyRefused: the patients are not those the roles were drawn for.
        VerificationFailed: the record is missing, damaged or was edited.
    """
    ids, record = set(patient_ids), load_roles(path)
    if not record.describes(ids):
        raise PolicyRefused(
            f"the cohort changed since its roles were drawn: {counted(len(record.roles), 'patient')} then,"
            f" {len(ids)} now, or others",
            expected="the same patients",
            remedy="Restore the cohort, or start a new run folder with its own roles; of a privacy budget, what was"
            " spent stays spent.",
        )
    return record
