"""Volumes of 240×240×155 at 1 mm with four channels: from patients to painted volumes, in bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from measured_process import fedphantom
from real_patients import FOLDER, MOST_MB, TUMOUR, full_size_study, tumours_in_atlas, write_tissue_cohort

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, prepare
from fedphantom.common.study import Study
from fedphantom.common.study_template import to_toml
from fedphantom.common.volumes.nifti import read_header, read_label_map
from fedphantom.common.volumes.nifti_writer import write_label_map

pytestmark = pytest.mark.slow

SHAPE, STEPS = (240, 240, 155), 30

# The two real tumour patients, from their folder to volumes painted on the atlas with their tumours.

needs_patients = pytest.mark.skipif(not FOLDER.is_dir(), reason="the two real patients are not beside this checkout")


@pytest.fixture(scope="module")
def study() -> Study:
    return full_size_study(STEPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, study: Study) -> Path:
    root = tmp_path_factory.mktemp("real")
    (root / "study.toml").write_text(to_toml(study))
    write_tissue_cohort(root / "table")
    return root


@pytest.fixture(scope="module")
def trained(folder: Path) -> float:
    """Leaves ``run/``; the training's peak in MB."""
    cohort = folder / "table" / "cohort.tsv"
    site = f"site-a={cohort}"
    return fedphantom("simulate", folder / "study.toml", "--site", site, "--out", folder / "run", "--engine", "local")[
        1
    ]


@pytest.fixture(scope="module")
def prepared(folder: Path, study: Study, trained: float) -> PreparedScans:
    cohort = read_cohort(folder / "table" / "cohort.tsv")
    return prepare(cohort, study, folder / "run" / "sites" / "site-a" / "cache")


@pytest.fixture(scope="module")
def painted(folder: Path, study: Study, prepared: PreparedScans) -> float:
    """Leaves ``labels/`` and ``synthetic/``; the generation's peak in MB."""
    (folder / "labels").mkdir()
    for number, labels in enumerate(tumours_in_atlas(study, np.asarray(prepared.classes))):
        write_label_map(folder / "labels" / f"label-{number}.nii.gz", labels, study.volume_grid())
    generator = folder / "run" / "generator.safetensors"
    return fedphantom("generate", generator, folder / "synthetic", "--labels", folder / "labels")[1]


@needs_patients
def test_the_patients_as_they_were_published_pass_the_check() -> None:
    report = json.loads(fedphantom("cohort", "check", FOLDER, "--json")[0])
    assert report["ok"]
    assert report["usable"] == {"patients": 2, "scans": 2}
    assert report["channels"] == ["T1", "T1c", "T2", "FLAIR"]
    assert {problem["severity"] for problem in report["problems"]} == {"warning"}


@needs_patients
@pytest.mark.long
def test_both_are_prepared_on_the_full_grid_with_air_around_and_tissue_over_the_whole_range(
    prepared: PreparedScans,
) -> None:
    assert prepared.volumes.shape == (2, 4, *SHAPE)
    for volume, classes in zip(prepared.volumes, prepared.classes, strict=True):
        assert all(0.8 < (channel == -1).mean() < 0.9 for channel in volume)
        assert all(0.003 < (channel[classes > 0] > 0.99).mean() < 0.02 for channel in volume)
        # The tumours lie where the channels show them: oedema is bright on FLAIR.
        assert volume[3][classes == 4].mean() > volume[3][classes == 3].mean() + 0.15
        assert np.isin(classes, TUMOUR).any()


@needs_patients
@pytest.mark.long
def test_training_on_their_patches_stays_in_bounds(trained: float) -> None:
    assert trained < MOST_MB


@needs_patients
@pytest.mark.long
def test_their_tumours_in_the_atlas_become_volumes_of_the_studys_grid(
    folder: Path, study: Study, prepared: PreparedScans, painted: float
) -> None:
    assert painted < MOST_MB
    report = json.loads(
        fedphantom("cohort", "check", folder / "synthetic", "--study", folder / "study.toml", "--json")[0]
    )
    assert (report["ok"], report["scans"]) == (True, 2)
    cohort = read_cohort(folder / "synthetic")
    for scan, labels in zip(cohort.scans, tumours_in_atlas(study, np.asarray(prepared.classes)), strict=True):
        assert scan.label is not None
        np.testing.assert_array_equal(read_label_map(scan.label)[0], labels)
        assert np.isin(labels, TUMOUR).sum() > 10_000
        for source in scan.channels.values():
            header = read_header(source.path)
            assert (header.shape, header.spacing) == (SHAPE, (1, 1, 1))
            np.testing.assert_allclose(header.affine, study.volume_grid().affine())


@needs_patients
@pytest.mark.long
def test_the_greys_of_labels_begin_to_follow_the_patients_after_thirty_steps(
    folder: Path, study: Study, prepared: PreparedScans, painted: float
) -> None:
    made = prepare(read_cohort(folder / "synthetic"), study, folder / "cache")

    def greys(scans: PreparedScans) -> np.ndarray:
        means = [
            [np.concatenate([v[c][k == label] for v, k in zip(scans.volumes, scans.classes, strict=True)]).mean()]
            for label in range(5)
            for c in range(4)
        ]
        return np.asarray(means)[:, 0]

    painted_greys, real_greys = greys(made), greys(prepared)
    likeness = np.corrcoef(painted_greys, real_greys)[0, 1]
    # Thirty steps put the order of tissues in place and no more; with labels confused there is less of it.
    confused = [np.corrcoef(painted_greys, np.roll(real_greys, 4 * labels))[0, 1] for labels in range(1, 5)]
    assert likeness > 0.7
    assert likeness > max(confused) + 0.1, confused
