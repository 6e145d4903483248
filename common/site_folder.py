"""A site's own folder: what it is called, where its cohort and study lie, and what it keeps between rounds.

site.toml       name, cohort, study, ledger (paths; relative ones from this folder); budget: ε that the site allows;
                coins_from: where roles are drawn from, "system" at a real site, "study" in a simulation
study.toml      the site's own copy of the study it takes part in
egress.json     what may leave, written when the folder is made
coins.json      roles and coins of its patients
generator.safetensors  where the study has sites train alone: this site's own
cache/          prepared scans
rounds/         of some rounds, what it sent and what all sites' became; for its own audit (``round_record``)
state/          discriminator, optimisers, training state; never leaves
tensorboard/    its losses, on real scans too; never leaves
previews/       where asked for: its scans beside what its generator makes of their label maps; never leaves
keys/identity/  with secure aggregation: the key that signs this site's masking keys; never leaves
masking/        likewise: secrets of the round under way; never leaves
peers.json      likewise: the identity keys of all sites of the study, as this site approved them
journal.jsonl   what happened, what left; journal.jsonl.head: its last line, so that cut-off lines show
ledger.jsonl    under differential privacy, unless site.toml names another folder: what its patients have spent
public-start.safetensors  likewise: what its training goes out from; public
errors.log      full text of failures, rotated (``rotated_log``); never leaves
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .cohort import PUBLIC_SITE, Cohort
from .cohorts.check import check_cohort
from .cohorts.layouts import read_cohort
from .cohorts.preparation import PreparedScans, joined, prepare_digested
from .cohorts.roles import CoinRecord, load_or_draw_roles
from .errors import ConfigError, DataError, PolicyRefused, VerificationFailed
from .exchange import check_site_name
from .folder_lock import holds_anything
from .gan.weights import GENERATOR
from .journal import Journal, read_journal
from .labels.stated_origin import refuse_private_labels
from .misfit import first_misfit
from .randomness import numpy_generator
from .scan_record import hold_scans
from .study import Study, read_study
from .toml_text import parse_toml

SITE_FILE = "site.toml"
COINS = "coins.json"
PUBLIC_START = "public-start.safetensors"
"""Under differential privacy: what the site's training goes out from."""
IDENTITY = "keys/identity"
"""Folder of a site's own signing key."""
PEERS = "peers.json"
"""Identity keys of the study's sites, at each site and at the coordinator (:mod:`.masking.peers`)."""
ROLES_DRAWN = "roles-drawn"
"""Journal event, written when the coin record is, with its SHA-256."""
CoinSource = Literal["study", "system"]
"""Where a site's roles are drawn from. ``study``: its seed and the site's name, so that a simulation can be repeated;
whoever knows both and the patients knows who is a member. ``system``: the operating system's randomness."""
_SEED_SOURCES: dict[CoinSource, str] = {
    "study": "the study's seed and the site's name",
    "system": "the operating system's randomness",
}
MASKED_LEFT = "masked-left"
"""Journal event, written when something of a secure round may leave: what, its bytes, its SHA-256; of an input also the
digest of the round's generator."""
REPLY_LEFT = "reply-left"
"""Journal event, written when a reply may leave, with the digest of its parameters."""
ROUND_FAILED = "round-failed"
"""Journal event of a round that was asked for and not answered, with the failure's kind."""


@dataclass(frozen=True)
class SiteFolder:
    """A site folder as :meth:`open` found it."""

    root: Path
    name: str
    cohort: Path
    study_file: Path
    ledger: Path
    budget: float | None = None
    coins_from: CoinSource = "study"

    @property
    def ledger_within(self) -> bool:
        """Whether the ledger lies in the folder itself, so that another one for the same patients begins another."""
        return self.ledger.resolve().is_relative_to(self.root.resolve())

    @property
    def state(self) -> Path:
        """Discriminator, optimisers, training state."""
        return self.root / "state"

    @property
    def committed(self) -> Path:
        """Networks and optimisers after the last round that the site trained."""
        return self.state / "committed.safetensors"

    @property
    def cache(self) -> Path:
        """Prepared scans."""
        return self.root / "cache"

    @property
    def generator(self) -> Path:
        """Its own generator, where the study has each site train alone."""
        return self.root / GENERATOR

    @property
    def coins(self) -> Path:
        """The coin record."""
        return self.root / COINS

    @property
    def journal(self) -> Path:
        """The site's journal."""
        return self.root / "journal.jsonl"

    @property
    def errors(self) -> Path:
        """Full text of failures; stays here."""
        return self.root / "errors.log"

    @property
    def identity(self) -> Path:
        """Folder of the site's own signing key."""
        return self.root / IDENTITY

    @property
    def masking(self) -> Path:
        """With secure aggregation: secrets of the round under way, and what was last given."""
        return self.root / "masking"

    @property
    def peers(self) -> Path:
        """Who may take part in the study's sums."""
        return self.root / PEERS

    @property
    def egress(self) -> Path:
        """What may leave."""
        return self.root / "egress.json"

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read ``site.toml``.

        Raises:
            ConfigError: there is none, or it does not hold exactly ``name``, ``cohort`` and ``study``, and perhaps
                ``ledger``, ``budget``, a number above 0, and ``coins_from``, a :data:`CoinSource`; names the key.
        """
        table = _read_table(root)
        check_site_name(table.name)
        return cls(
            root,
            table.name,
            root / table.cohort,
            root / table.study,
            root / table.ledger,
            table.budget,
            table.coins_from,
        )

    def study(self) -> Study:
        """The site's own copy of the study. Raises ConfigError as :func:`read_study`."""
        return read_study(self.study_file)


class _SiteTable(BaseModel):
    """What ``site.toml`` may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str
    cohort: str
    study: str
    ledger: str = ""
    budget: float | None = Field(default=None, gt=0)
    coins_from: CoinSource = "study"


_KEYS = "name, cohort and study, and perhaps ledger, budget and coins_from"
_EXPECTED = {"budget": "a number above 0, the ε that the site allows over all studies, or no such line"}


def _read_table(root: Path) -> _SiteTable:
    try:
        return _SiteTable.model_validate(parse_toml((root / SITE_FILE).read_text(encoding="utf-8")))
    except ValidationError as error:
        misfit = first_misfit(error, quote=False)
        if misfit.key in ("budget", "coins_from"):  # no path to patients, unlike the others
            misfit = first_misfit(error)
        expected = f"{_KEYS}, and no other" if misfit.is_unknown_key else _EXPECTED.get(misfit.key, misfit.expected)
        raise ConfigError(
            f"in the site's {SITE_FILE} the key '{misfit.key}'{misfit.found}",
            expected=expected,
            remedy="Mend that line; the rest is as 'fedphantom site init' wrote it.",
        ) from None
    except (OSError, UnicodeDecodeError):
        found = "no valid site.toml in the site's folder"
    except ValueError as error:  # its own words, and a line's number
        found = f"no valid site.toml in the site's folder: {error}"
    raise ConfigError(
        found,
        expected="a file with name, cohort and study",
        remedy="Give a folder that 'fedphantom site init' made. Put a damaged site.toml back from a copy: keys,"
        " journal and ledger beside it are this site's.",
    )


def site_folders(run: Path) -> tuple[SiteFolder, ...]:
    """The sites of a run's folder, or the one site whose folder it is, by name."""
    if (run / SITE_FILE).exists():
        return (SiteFolder.open(run),)
    found = tuple(SiteFolder.open(path.parent) for path in sorted(run.glob(f"sites/*/{SITE_FILE}")))
    if not found:
        raise DataError(
            "no site's folder in the run" if run.is_dir() else "no run folder at the path given",
            expected="a folder that 'fedphantom simulate' left, or a site's own folder",
            remedy="Give the path of that folder.",
        )
    return found


@dataclass(frozen=True)
class SiteMaterial:
    """What a site trains, evaluates and audits with.

    Attributes:
        cohort: Its usable patients.
        coins: Their roles.
        scans: All of them, prepared.
    """

    cohort: Cohort
    coins: CoinRecord
    scans: PreparedScans

    def scans_of(self, patients: Collection[str]) -> PreparedScans:
        """These patients' scans, in memory."""
        return self.scans.only(self.scans.rows_of(patients))


def site_material(folder: SiteFolder, study: Study) -> SiteMaterial:
    """Check the site's cohort, draw its roles or read them, prepare its scans or map them.

    Scans with an error are left out; by which code and how many, is journalled when the roles are drawn. What was
    prepared the first time is journalled too, and held against what is there each time after.

    Raises:
        DataError: no usable scan.
        PolicyRefused: the cohort changed since its roles were drawn or it was first prepared, in patients or in scans,
            or holds a private patient in a study of public material, or under a promise a label map that a privately
            trained network made.
        VerificationFailed: the coin record or the journal was edited, or tells of no scans though the site trained.
    """
    report = check_cohort(read_cohort(folder.cohort), study)
    cohort = report.usable_or_refused()
    if study.privacy.trained_on == "public":
        _refuse_private(cohort)
    refuse_private_labels(cohort, study)
    journal = Journal(folder.journal)
    if folder.coins.exists():
        _refuse_lost_journal(journal)
    elif noted_coins(folder) is not None:
        raise VerificationFailed(
            "a site without its coin record, which its journal names",
            expected=f"{folder.coins.name} as it was written when roles were drawn: nobody else knows who trained",
            remedy="Restore it from a backup; roles drawn anew would void every audit of this cohort.",
        )
    else:
        journal.begin()
    coins = load_or_draw_roles(
        folder.coins,
        cohort.patient_ids,
        study.roles,
        roles_generator(study, folder.name, folder.coins_from),
        seed_source=_SEED_SOURCES[folder.coins_from],
    )
    digest = hashlib.sha256(folder.coins.read_bytes()).hexdigest()
    noted = noted_coins(folder)
    if noted is None:  # new, or cut off between the record and this line
        if holds_anything(folder.state):
            raise _lost_journal()
        left_out = {problem.code: problem.scans for problem in report.errors}
        journal.append(ROLES_DRAWN, cohort=coins.cohort_digest, coins=digest, left_out=left_out)
    elif noted != digest:
        raise VerificationFailed(
            "a coin record other than the one that the site's journal names",
            expected="the record as it was written when roles were drawn",
            remedy="Restore it from a backup; roles drawn anew would void every audit of this cohort.",
        )
    scans, digests = prepare_digested(cohort, study, folder.cache)
    hold_scans(journal, coins, scans.patients, digests, folder.state)
    return SiteMaterial(cohort, coins, scans.named_site(folder.name))


def _refuse_lost_journal(journal: Journal) -> None:
    """A journal begun anew would forget every audit of these coins, and a FAIL with them."""
    if not journal.begun() or not journal.path.exists():
        raise _lost_journal()


def _lost_journal() -> VerificationFailed:
    return VerificationFailed(
        "a site with coins or a training state whose journal is missing or empty",
        expected="the journal since the site's first start: it counts the audits of this holdout",
        remedy="Restore journal.jsonl from a backup; without it this cohort needs a new run with roles of its own.",
    )


def roles_generator(study: Study, site: str, source: CoinSource) -> np.random.Generator:
    """What a site's roles are drawn from; of ``system`` another one at every call, that nobody can repeat."""
    if source == "system":
        return np.random.default_rng(secrets.randbits(256))
    return numpy_generator(study.seed, "roles", site)


def _refuse_private(cohort: Cohort) -> None:
    if any(patient.site != PUBLIC_SITE for patient in cohort.patients):
        raise PolicyRefused(
            "a study of public material, and a cohort with patients who are not marked public",
            expected=f"'{PUBLIC_SITE}' in the site column for every patient",
            remedy="Give public patients alone, or take part in a study that says privacy.trained_on = 'private'.",
        )


def noted_coins(folder: SiteFolder) -> str | None:
    """SHA-256 of the coin record when it was drawn; None where the journal does not tell."""
    if not folder.journal.exists():
        return None
    entries = [entry for entry in read_journal(folder.journal) if entry.event == ROLES_DRAWN]
    return str(entries[-1].facts.get("coins")) if entries else None


def training_and_test_scans(materials: Sequence[SiteMaterial]) -> tuple[PreparedScans, PreparedScans]:
    """Scans that the sites' generators trained on, and those of patients with the role ``test``; sites pooled."""
    train = joined([m.scans_of(m.coins.training_patients()) for m in materials])
    test = joined([m.scans_of(m.coins.patients("test")) for m in materials])
    return train.named_by_site(), test.named_by_site()
