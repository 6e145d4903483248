"""A run's folder on the coordinator's side, and what it leaves there.

study.toml              the study, as given
run.json                study digest and site names
checkpoints/            one file a round
journal.jsonl           what happened
peers.json              with secure aggregation: identity keys of the sites
secure/                 likewise: the last round's masked sum (``secure_sum``)
sites/NAME/             on one machine only: each site's own folder, with cohort.tsv where a cohort was divided
flower/                 engine flower only: logs of its processes
generator.safetensors   last server-side average
generators/             instead of it, of an ensemble: NAME.safetensors of each site; neither where no weights leave
tensorboard/            curves of what the rounds told: metrics on fakes, how each site's update lies to the mean's
previews/               where asked for: public label maps, and what the run's generators make of them
summary.json            rounds, sites, metrics on fakes, lengths and directions of the sites' updates, rounds given up
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..common import previews
from ..common.atomic import write_atomic
from ..common.counted import counted
from ..common.errors import ConfigError
from ..common.exchange import check_site_name
from ..common.folder_lock import LOCK, hold_folder
from ..common.gan.parameters import parameters_digest
from ..common.gan.weights import ENSEMBLE, generator_metadata, save_weights
from ..common.masking.terms import SUM_EXPECTED
from ..common.masking.threshold import helpers_borne, smallest_group
from ..common.output_place import refuse_used
from ..common.run_result import JOURNAL, RUN_FILE, note_generators
from ..common.sayable import BUDGET_SPENT
from ..common.site_folder import PEERS
from ..common.study import Study, differing_keys, parse_study, read_study
from ..privacy.dp.statement import NONE, Spent, asked_spent, dp_statement
from .checkpoints import Checkpoint, RoundRecord

RUN_VARIABLE = "FEDPHANTOM_RUN"
"""Environment variable by which a ServerApp's process is told its run folder: so it never travels to a site."""


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
        return self.root / JOURNAL

    @property
    def peers(self) -> Path:
        """With secure aggregation: identity keys of the sites."""
        return self.root / PEERS

    @property
    def generator(self) -> Path:
        """The run's result."""
        return self.root / "generator.safetensors"

    @property
    def ensemble(self) -> Path:
        """The result of a run whose sites each keep a generator: a folder of them."""
        return self.root / ENSEMBLE

    @property
    def previews(self) -> Path:
        """Pictures of the run's state."""
        return self.root / previews.FOLDER

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

    @property
    def begun(self) -> bool:
        """Whether a run claimed the folder."""
        return (self.root / RUN_FILE).exists()

    def check_claim(self, study_text: str, sites: Sequence[str]) -> Study:
        """Find that the folder can be this study's and these sites'; nothing is written.

        Raises:
            ConfigError: the study or a name is not valid, a site is named twice or has no declared weight where the
                study declares them, there are fewer than the quorum, or not as many as the study names approval keys,
                or the folder belongs to another study or other sites.
        """
        study = parse_study(study_text)
        for name in sites:
            check_site_name(name)
            study.federation.weight_of(name)
        if len({name.casefold() for name in sites}) != len(sites):
            raise ConfigError(
                "a site name given twice",
                expected="names that differ by more than upper and lower case",
                remedy="Rename one.",
            )
        if len(sites) < study.federation.quorum:
            raise ConfigError(
                f"{counted(len(sites), 'site')} for a quorum of {study.federation.quorum}",
                expected="at least as many sites as federation.quorum",
                remedy="Add sites, or lower federation.quorum in the study.",
            )
        if problem := study.federation.sum_problem(sites):
            raise ConfigError(
                f"secure aggregation over {problem}",
                expected=SUM_EXPECTED,
                remedy="Add sites, or change threshold, bits or weights under [federation] in the study.",
            )
        keys = study.federation.approval_keys
        if keys and len(keys) != len(sites):
            raise ConfigError(
                f"{counted(len(sites), 'site')}, and a study that names the keys of {len(keys)}",
                expected="one key under federation.approval_keys for every site: each of them has to approve a release",
                remedy="Name every site with --site, or write the study for these sites.",
            )
        if self.begun and _read(self.root / RUN_FILE) != _claim(study, sites).decode():
            raise ConfigError(
                f"the folder belongs to a run of another study or other sites: {self._difference(study, sites)}",
                expected="the study and sites it was begun with, or a new folder",
                remedy="Choose another --out, or give study and sites unchanged to go on with that run.",
            )
        return study

    def _difference(self, study: Study, sites: Sequence[str]) -> str:
        """In what a study and sites differ from those that the folder was claimed for."""
        try:
            table = json.loads(_read(self.root / RUN_FILE))
            begun_with, digest = sorted(map(str, table["sites"])), table["study_digest"]
            before = parse_study(_read(self.study_file))
        except (ValueError, KeyError, TypeError, ConfigError):
            return f"its {RUN_FILE} or {self.study_file.name} is damaged"
        found = []
        if digest != before.digest():
            found.append(f"its {self.study_file.name} was changed since")
        elif keys := differing_keys(before, study):
            found.append(f"the study differs in {', '.join(keys)}")
        if begun_with != sorted(sites):
            found.append(f"its sites are {', '.join(begun_with)}")
        return " and ".join(found) or f"its {RUN_FILE} was changed"

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

    def check_free(self) -> None:
        """Find that the folder can be locked and written to; nothing is made. Errors as :meth:`lock`."""
        self._refuse_other()
        if (self.root / ".lock").exists():
            with self.lock():
                pass

    def _refuse_other(self) -> None:
        # Own: what a run leaves that was cut off or refused before it claimed the folder.
        refuse_used(self.root, RUN_FILE, {LOCK, "study.toml", "sites"})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the lock goes with the process, however it ends.

        Raises:
            ConfigError: another process holds it.
            OutputTaken: it is a file, or holds something else than a run.
        """
        self._refuse_other()
        with hold_folder(self.root):
            yield

    def write_outcome(self, outcome: Mapping[str, str]) -> None:
        """Say how the ServerApp ended, in our words; Flower's own status only says that it did."""
        write_atomic(self.flower / "outcome.json", json.dumps(dict(outcome)).encode())

    def forget_outcome(self) -> None:
        """An earlier ServerApp's outcome is not the next one's."""
        (self.flower / "outcome.json").unlink(missing_ok=True)

    def read_outcome(self) -> dict[str, str] | None:
        """What :meth:`write_outcome` said, every key present; None while there is nothing."""
        try:
            outcome = json.loads((self.flower / "outcome.json").read_bytes())
        except (OSError, ValueError):
            return None
        return {key: str(outcome.get(key, "")) for key in ("kind", "found", "expected", "remedy")}

    def result(self, study: Study) -> Path | None:
        """What the run leads to here: one generator's file, the folder of an ensemble's, or none that left its site."""
        return {"weights": self.generator, "ensemble": self.ensemble, "volumes": None}[study.federation.sharing]

    def write_results(self, study: Study, sites: Sequence[str], checkpoint: Checkpoint, engine: str) -> None:
        """Write ``generator.safetensors``, or an ensemble's ``generators/``, where weights left; and ``summary.json``.

        Raises:
            VerificationFailed: the coordinator's journal was edited.
            StorageError: the disk is full, read-only or forbidden.
        """
        note_generators(self.root, [parameters_digest(generator) for generator in checkpoint.generators().values()])
        spent = spent_by_site(study, sites, checkpoint.history)
        statement = dp_statement(study, spent)
        dp = statement.encode() if statement else NONE
        for site, generator in checkpoint.generators().items():
            file = self.ensemble / f"{site}.safetensors" if site else self.generator
            save_weights(file, generator, generator_metadata(study, checkpoint.averaged, dp))
        summary = {
            "study": study.name,
            "study_digest": study.digest(),
            "dp": study.privacy.dp,
            "engine": engine,
            "sites": sorted(sites),
            "rounds": [asdict(record) for record in checkpoint.history],
            "sharing": study.federation.sharing,
            "maps": study.network.maps,
            "approval_keys": list(study.federation.approval_keys),
            "ema_decay": study.federation.ema_decay,
            "generator": result.name if (result := self.result(study)) else None,
        }
        if statement:
            by_site = {site: one.epsilon for site, one in spent.items()}
            summary |= {"dp_statement": statement.model_dump(), "epsilon_by_site": by_site}
        if terms := study.federation.secure_aggregation:
            summary["secure_aggregation"] = {
                "threshold": terms.threshold,
                "helpers_borne": helpers_borne(len(sites), terms.threshold),
                "smallest_group": smallest_group(len(sites), terms.threshold),
            }
            summary["rounds_given_up"] = [record.round for record in checkpoint.history if record.given_up]
        write_atomic(self.summary, (json.dumps(summary, indent=1) + "\n").encode())


def spent_by_site(study: Study, sites: Sequence[str], history: Sequence[RoundRecord]) -> dict[str, Spent]:
    """The most that each site says that it has spent; nobody where nothing is promised.

    Of a site whose last word is missing, what the study may cost it at most: it may have reserved steps in a round that
    it did not answer, and only its own ledger knows. A refusal for a spent budget is a word, too: nothing was reserved.
    """
    spent: dict[str, Spent] = {}
    for record in history:
        for site, epsilon in record.epsilon.items():
            if site not in spent or epsilon > spent[site].epsilon:  # what was spent stays spent, whatever is said later
                spent[site] = Spent(epsilon, record.noised_steps[site])
    at_most = asked_spent(study)
    if at_most:
        spent |= dict.fromkeys(_without_last_word(sites, history), at_most)
    return {site: spent[site] for site in sorted(spent)}


def _without_last_word(sites: Sequence[str], history: Sequence[RoundRecord]) -> set[str]:
    """Sites that since their last answer were asked once more, and may have taken noised steps for it."""
    silent: set[str] = set()
    for record in history:
        spoke = record.epsilon.keys() | {site for site, why in record.left_out.items() if why == BUDGET_SPENT}
        silent = (silent | set(sites) - spoke) - record.epsilon.keys()
    return silent


def _read(path: Path) -> str:
    """The file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _claim(study: Study, sites: Sequence[str]) -> bytes:
    return (json.dumps({"study_digest": study.digest(), "sites": sorted(sites)}, indent=1) + "\n").encode()
