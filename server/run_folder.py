"""A run's folder on the coordinator's side, and what it leaves there.

study.toml              the study, as given
run.json                study digest and site names
checkpoints/            one file a round
journal.jsonl           what happened
sites/NAME/             on one machine only: each site's own folder, with cohort.tsv where a cohort was divided
flower/                 engine flower only: logs of its processes
generator.safetensors   last server-side average
summary.json            rounds, sites, metrics on fakes
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..common.atomic import write_atomic
from ..common.errors import ConfigError
from ..common.exchange import check_site_name
from ..common.gan.weights import generator_metadata, save_weights
from ..common.study import Study, parse_study, read_study
from .checkpoints import Checkpoint
from .folder_lock import LOCK, hold_folder

RUN_FILE = "run.json"


def refuse_used(out: Path, mark: str, own: Collection[str] = ()) -> None:
    """Keep out of folders that hold something else, a hospital's cohort for example.

    Args:
        out: Where a command is to write.
        mark: A file that says that the folder is its own.
        own: What else it may have left there.

    Raises:
        ConfigError: a file, or a folder with other things in it.
    """
    if out.exists() and not out.is_dir():
        found = "a file where a folder is to be written"
    elif out.is_dir() and not (out / mark).exists() and {entry.name for entry in out.iterdir()} - set(own):
        found = "a folder that holds something else"
    else:
        return
    raise ConfigError(found, expected="a new or empty folder, or the one to go on with", remedy="Choose another --out.")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run; nothing is read or made until asked."""

    root: Path

    @property
    def study_file(self) -> Path:
        """The study, as given."""
        return self.root / "study.toml"

    @property
    def checkpoints(self) -> Path:
        """One file a round."""
        return self.root / "checkpoints"

    @property
    def journal(self) -> Path:
        """The coordinator's journal."""
        return self.root / "journal.jsonl"

    @property
    def generator(self) -> Path:
        """The run's result."""
        return self.root / "generator.safetensors"

    @property
    def summary(self) -> Path:
        """The run in figures."""
        return self.root / "summary.json"

    @property
    def flower(self) -> Path:
        """Logs of Flower's processes."""
        return self.root / "flower"

    def site(self, name: str) -> Path:
        """A site's folder, where it lies on the same machine."""
        return self.root / "sites" / name

    def site_table(self, name: str) -> Path:
        """The site's own patients, where its cohort holds other sites' too; in its folder, for it names them."""
        return self.site(name) / "cohort.tsv"

    def check_claim(self, study_text: str, sites: Sequence[str]) -> Study:
        """Find that the folder can be this study's and these sites'; nothing is written.

        Raises:
            ConfigError: the study or a name is not valid, a site is named twice, there are fewer than the quorum, or
                the folder belongs to another study or other sites.
        """
        study = parse_study(study_text)
        for name in sites:
            check_site_name(name)
        if len({name.casefold() for name in sites}) != len(sites):
            raise ConfigError(
                "a site name given twice",
                expected="names that differ by more than upper and lower case",
                remedy="Rename one.",
            )
        if len(sites) < study.federation.quorum:
            raise ConfigError(
                f"{len(sites)} sites for a quorum of {study.federation.quorum}",
                expected="at least as many sites as federation.quorum",
                remedy="Add sites, or lower federation.quorum in the study.",
            )
        file = self.root / RUN_FILE
        if file.exists() and file.read_bytes() != _claim(study, sites):
            raise ConfigError(
                "the folder belongs to a run of another study or other sites",
                expected="the study and sites it was begun with, or a new folder",
                remedy="Choose another --out, or give study and sites unchanged to go on with that run.",
            )
        return study

    def claim(self, study_text: str, sites: Sequence[str]) -> Study:
        """Make the folder this study's and these sites', or find that it is already; errors as :meth:`check_claim`.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        study = self.check_claim(study_text, sites)
        if not (self.root / RUN_FILE).exists():
            write_atomic(self.study_file, study_text.encode())
            write_atomic(self.root / RUN_FILE, _claim(study, sites))
        return study

    def claimed(self) -> tuple[Study, tuple[str, ...]]:
        """Study and site names of a folder claimed before.

        Raises:
            ConfigError: it is no run's folder, or its study was changed since.
        """
        try:
            table = json.loads((self.root / RUN_FILE).read_text(encoding="utf-8"))
            digest, sites = table["study_digest"], tuple(map(str, table["sites"]))
        except (OSError, ValueError, KeyError, TypeError):
            digest, sites = "", ()
        study = read_study(self.study_file) if sites else None
        if study is None or study.digest() != digest:
            raise ConfigError(
                "no run folder, or its study was changed",
                expected="a folder that a run was begun in, untouched",
                remedy="Begin the run again in a new folder.",
            )
        return study, sites

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the lock goes with the process, however it ends.

        Raises:
            ConfigError: another process holds it, or it is a file, or holds something else than a run.
        """
        # What a run leaves that was cut off or refused before it claimed the folder.
        refuse_used(self.root, RUN_FILE, {LOCK, "study.toml", "sites"})
        with hold_folder(self.root):
            yield

    def write_outcome(self, outcome: Mapping[str, str]) -> None:
        """Say how the ServerApp ended, in our words; Flower's own status only says that it did."""
        write_atomic(self.flower / "outcome.json", json.dumps(dict(outcome)).encode())

    def read_outcome(self) -> dict[str, str] | None:
        """What :meth:`write_outcome` said, every key present; None while there is nothing."""
        try:
            outcome = json.loads((self.flower / "outcome.json").read_bytes())
        except (OSError, ValueError):
            return None
        return {key: str(outcome.get(key, "")) for key in ("kind", "found", "expected", "remedy")}

    def write_results(self, study: Study, sites: Sequence[str], checkpoint: Checkpoint, engine: str) -> None:
        """Write ``generator.safetensors`` and ``summary.json``.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        average = checkpoint.average or checkpoint.aggregate
        save_weights(self.generator, average, generator_metadata(study, checkpoint.round))
        summary = {
            "study": study.name,
            "study_digest": study.digest(),
            "dp": study.privacy.dp,
            "engine": engine,
            "sites": sorted(sites),
            "rounds": [asdict(record) for record in checkpoint.history],
            "ema_decay": study.federation.ema_decay,
            "generator": self.generator.name,
        }
        write_atomic(self.summary, (json.dumps(summary, indent=1) + "\n").encode())


def _claim(study: Study, sites: Sequence[str]) -> bytes:
    return (json.dumps({"study_digest": study.digest(), "sites": sorted(sites)}, indent=1) + "\n").encode()
