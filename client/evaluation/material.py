"""What an evaluation works on: real scans to train on and to test on, synthetic and public ones, on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...common.cohort import Cohort
from ...common.cohorts.check import check_cohort
from ...common.cohorts.layouts import read_cohort, read_public
from ...common.cohorts.preparation import PreparedScans, prepare
from ...common.cohorts.procedural import procedural_patients
from ...common.errors import DataError, about
from ...common.labels.private_name import known_secret
from ...common.site_folder import site_folders, site_material, training_and_test_scans
from ...common.study import PublicLabelsTable, Study, read_study
from ...common.study_template import study_for
from ...privacy.synthetic_digest import synthetic_digest
from .label_origin import refuse_test_patients_maps
from .tested import Examined, examined


@dataclass(frozen=True)
class Material:
    """Prepared scans of one study.

    Attributes:
        train: Of real patients that generators trained on.
        test: Of real patients that nothing was trained on.
        synthetic: Of nobody.
        public: Of openly licensed patients; None where none are given.
        study: Grid, channels, labels and regions.
        synthetic_sha256: Of the synthetic cohort's files, by content: a release holds figures of its own volumes only.
        procedural: Those of ``train`` and ``test`` for whom no person was scanned, as their cohorts say.
    """

    train: PreparedScans
    test: PreparedScans
    synthetic: PreparedScans
    public: PreparedScans | None
    study: Study
    synthetic_sha256: str
    procedural: frozenset[str] = frozenset()

    @property
    def examined(self) -> Examined:
        """Whom the figures are computed on."""
        return examined(self.test.patients, self.train.patients, self.procedural)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the scans come from: a run with its coin records, or two cohorts of real patients.

    Attributes:
        synthetic: Cohort path.
        run: What ``simulate`` left, or one site's folder; its coin records say who trains and who tests.
        real_train: Cohort path, instead of a run.
        real_test: Cohort path, instead of a run; no patient of it may be among the training patients.
        study: Of the cohorts; None to derive it from the synthetic cohort. A run has its own.
        public: Cohort path.
        site_secret: File of the site's secret, which names its private label maps.
    """

    synthetic: Path
    run: Path | None = None
    real_train: Path | None = None
    real_test: Path | None = None
    study: Path | None = None
    public: Path | None = None
    site_secret: Path | None = None

    def material(self, cache: Path, say: Callable[[str], None]) -> Material:
        """Read, check and prepare all of it.

        Args:
            cache: Where prepared scans stand meanwhile.
            say: Told what a cohort check left out.

        Raises:
            FedPhantomError: a cohort, a coin record or the study cannot be used, or a test patient was trained on; it
                names the option that gave it.
        """
        with about("--site-secret"):
            secret = known_secret(self.site_secret) if self.site_secret else None
        if self.run:
            with about("--run"):
                study, real = _of_run(self.run)
        else:
            study = _given_study(self.study) if self.study else _derived_study(self.synthetic)
            real = self._real(study, cache, say)
        train, test = real.train, real.test
        made, _ = _prepared("--synthetic", read_cohort, self.synthetic, study.without_remapping(), cache, say)
        with about("--synthetic"):
            refuse_test_patients_maps(
                read_cohort(self.synthetic), made, test, real.test_scans, train, real.train_scans, study, secret, say
            )
        public = _prepared("--public", read_public, self.public, study, cache, say)[0] if self.public else None
        return Material(train, test, made, public, study, synthetic_digest(self.synthetic), real.procedural)

    def _real(self, study: Study, cache: Path, say: Callable[[str], None]) -> _Real:
        if not self.real_train or not self.real_test:
            raise ValueError("neither a run nor two real cohorts")
        train, trained = _prepared("--real-train", read_cohort, self.real_train, study, cache, say)
        test, tested = _prepared("--real-test", read_cohort, self.real_test, study, cache, say)
        if not set(train.patients).isdisjoint(test.patients):
            raise DataError(
                "a patient of --real-test is also in --real-train",
                expected="test patients that nothing was trained on",
                remedy="Divide the cohort by patient; with --run the coin records do it.",
            )
        procedural = procedural_patients(trained) | procedural_patients(tested)
        train_scans, test_scans = (tuple(scan.scan_id for scan in cohort.scans) for cohort in (trained, tested))
        return _Real(train, test, procedural, train_scans, test_scans)


@dataclass(frozen=True)
class _Real:
    """Real patients: scans to train on and to test on, who of them is procedural, and the scans' identifiers."""

    train: PreparedScans
    test: PreparedScans
    procedural: frozenset[str]
    train_scans: tuple[str, ...]
    test_scans: tuple[str, ...]


def _of_run(run: Path) -> tuple[Study, _Real]:
    """A run's study and patients."""
    folders = site_folders(run)
    study = folders[0].study()
    materials = []
    for folder in folders:
        with about(f"site '{folder.name}'"):
            materials.append(site_material(folder, study))
    train, test = training_and_test_scans(materials)
    if not len(test):
        raise DataError(
            "no patient with the role 'test' at any site",
            expected="some: roles.test above 0, and enough patients",
            remedy="Start a run with another [roles], or give --real-train and --real-test.",
        )
    procedural = frozenset(
        f"{folder.name}/{patient}"  # as the pooled scans name them
        for folder, material in zip(folders, materials, strict=True)
        for patient in procedural_patients(material.cohort)
    )
    train_scans, test_scans = (
        tuple(
            scan.scan_id for one, some in zip(materials, who, strict=True) for scan in one.cohort.only(set(some)).scans
        )
        for who in (
            [one.coins.training_patients() for one in materials],
            [one.coins.patients("test") for one in materials],
        )
    )
    return study, _Real(train, test, procedural, train_scans, test_scans)


def _given_study(path: Path) -> Study:
    with about("--study"):
        return read_study(path)


def _derived_study(synthetic: Path) -> Study:
    labels = PublicLabelsTable(source="atlas")
    with about("--synthetic"):
        return study_for(read_cohort(synthetic), name="evaluation", seed=0, public_labels=labels)


def _prepared(
    option: str,
    read: Callable[[Path], Cohort],
    path: Path,
    study: Study,
    cache: Path,
    say: Callable[[str], None],
) -> tuple[PreparedScans, Cohort]:
    """What can be used of a cohort, prepared and as it lies; an error names the option, and left-outs are said."""
    with about(option):
        report = check_cohort(read(path), study)
        usable = report.usable_or_refused()
        if report.left_out:
            say(f"{option}: {report.left_out}")
        return prepare(usable, study, cache), usable
