"""What an evaluation works on: real scans to train on and to test on, synthetic and public ones, on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...common.cohorts.check import check_cohort
from ...common.cohorts.layouts import read_cohort
from ...common.cohorts.preparation import PreparedScans, prepare
from ...common.errors import DataError
from ...common.site_folder import site_folders, site_material, training_and_test_scans
from ...common.study import PublicLabelsTable, Study, read_study
from ...common.study_template import study_for


@dataclass(frozen=True)
class Material:
    """Prepared scans of one study.

    Attributes:
        train: Of real patients that generators trained on.
        test: Of real patients that nothing was trained on.
        synthetic: Of nobody.
        public: Of openly licensed patients; None where none are given.
        study: Grid, channels, labels and regions.
    """

    train: PreparedScans
    test: PreparedScans
    synthetic: PreparedScans
    public: PreparedScans | None
    study: Study


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
    """

    synthetic: Path
    run: Path | None = None
    real_train: Path | None = None
    real_test: Path | None = None
    study: Path | None = None
    public: Path | None = None

    def material(self, cache: Path) -> Material:
        """Read, check and prepare all of it.

        Args:
            cache: Where prepared scans stand meanwhile.

        Raises:
            FedPhantomError: a cohort, a coin record or the study cannot be used, or a test patient was trained on.
        """
        if self.run:
            folders = site_folders(self.run)
            study = folders[0].study()
            train, test = training_and_test_scans([site_material(folder, study) for folder in folders])
        else:
            study = read_study(self.study) if self.study else _derived_study(self.synthetic)
            train, test = self._real(study, cache)
        public = None
        if self.public:
            public = prepare(check_cohort(read_cohort(self.public).public(), study).usable, study, cache)
        return Material(train, test, _prepared(self.synthetic, study, cache), public, study)

    def _real(self, study: Study, cache: Path) -> tuple[PreparedScans, PreparedScans]:
        if not self.real_train or not self.real_test:
            raise ValueError("neither a run nor two real cohorts")
        train, test = (_prepared(path, study, cache) for path in (self.real_train, self.real_test))
        if not set(train.patients).isdisjoint(test.patients):
            raise DataError(
                "a patient of --real-test is also in --real-train",
                expected="test patients that nothing was trained on",
                remedy="Divide the cohort by patient; with --run the coin records do it.",
            )
        return train, test


def _derived_study(synthetic: Path) -> Study:
    return study_for(read_cohort(synthetic), name="evaluation", seed=0, public_labels=PublicLabelsTable(source="atlas"))


def _prepared(path: Path, study: Study, cache: Path) -> PreparedScans:
    return prepare(check_cohort(read_cohort(path), study).usable, study, cache)
