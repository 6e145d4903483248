"""How alike label maps are is told by Dice over pairs; how near to patients, on the site's own terminal only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from little_brain import brain_study, healthy_brain, with_tumour
from typer.testing import CliRunner

from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.errors import DataError
from fedphantom.common.labels.brain import BRAIN_LABELS
from fedphantom.common.labels.commands import labels_app
from fedphantom.common.labels.diversity import MOST_MAPS, ThinnedMaps, dice_between, diversity
from fedphantom.common.labels.nearest import MEAN, nearest_private
from fedphantom.common.study_template import to_toml
from fedphantom.common.volumes.nifti_writer import write_label_map

LABELS = {"background": 0, "a": 1, "b": 2}


def thinned(*maps: np.ndarray) -> ThinnedMaps:
    out = ThinnedMaps()
    for labels in maps:
        out.add(labels)
    return out


def test_dice_between_sets_is_that_of_each_pair() -> None:
    one = np.array([[1, 1, 0, 2], [0, 0, 0, 0]], np.uint8)
    other = np.array([[1, 0, 0, 2], [1, 1, 1, 1], [0, 0, 2, 2]], np.uint8)
    table = dice_between(one, other, 1)
    assert table[0] == pytest.approx([2 / 3, 4 / 6, 0])
    assert table[1, :2] == pytest.approx([0, 0])
    assert np.isnan(table[1, 2])


def test_equal_maps_have_no_diversity_and_disjoint_ones_all() -> None:
    left, right = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 8), np.uint8)
    left[:4], right[4:] = 1, 1
    alike = diversity(thinned(left, left), LABELS).dice
    assert alike.keys() == {"a"}  # no map has b
    assert (alike["a"].least, alike["a"].most) == (1, 1)
    assert diversity(thinned(left, right), LABELS).dice["a"].most == 0
    mixed = diversity(thinned(left, left, right), LABELS)
    assert (mixed.compared, mixed.pairs) == (3, 3)
    assert (mixed.dice["a"].least, mixed.dice["a"].median, mixed.dice["a"].most) == (0, 0, 1)


def test_of_many_maps_a_bounded_number_is_compared_and_of_large_ones_some_voxels() -> None:
    many = thinned(*(np.full((4, 4, 4), i % 2 + 1, np.uint8) for i in range(200)))
    assert diversity(many, LABELS).compared == MOST_MAPS
    assert thinned(np.zeros((160, 192, 160), np.uint8)).all().size <= 100_000
    assert thinned(np.zeros((40, 48, 40), np.uint8)).all().size == 40 * 48 * 40


def test_one_map_alone_has_no_diversity() -> None:
    assert "too few" in diversity(thinned(np.ones((4, 4, 4), np.uint8)), LABELS).to_text()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two patients, one scanned twice, and three label maps of which the second is almost the first patient's."""
    study = brain_study()
    grid, voxels = study.volume_grid(), np.ones((1, *study.grid.shape), np.float32)
    mine = [with_tumour(healthy_brain(), (-30, 6, 3)), with_tumour(healthy_brain(), (30, -12, 0), radius=9)]
    with BidsWriter(tmp_path / "cohort", grid, ["T1"], BRAIN_LABELS, "patients", synthetic=False) as writer:
        writer.add("JANE", voxels, mine[0], {}, session="1")
        writer.add("JANE", voxels, mine[0], {}, session="2")
        writer.add("JOHN", voxels, mine[1], {})
    for number, centre in enumerate(((-28, 30, 0), (-30, 6, 5), (26, 24, 0)), start=1):
        write_label_map(tmp_path / "labels" / f"m{number}.nii.gz", with_tumour(healthy_brain(), centre), grid)
    (tmp_path / "study.toml").write_text(to_toml(study))
    return tmp_path


def test_the_nearest_patient_of_each_map_is_found(site: Path) -> None:
    found = nearest_private(site / "labels", site / "cohort", brain_study())
    assert found.patients == 2
    assert found.nearest[1].patient == "JANE"
    assert found.nearest[1].dice == max(row.dice for row in found.nearest)
    assert found.dice["oedema"].most > 0.5 > found.dice["oedema"].least
    # Her own other scan is no other patient.
    assert found.among_patients["oedema"].most < 0.1
    assert found.among_patients[MEAN].most < found.dice[MEAN].most


def test_patients_are_named_on_request_only_and_nothing_is_written(site: Path) -> None:
    before = sorted(path for path in site.rglob("*"))
    command = ["nearest", str(site / "labels"), str(site / "cohort"), "--study", str(site / "study.toml")]
    for options in ([], ["--json"]):
        silent = CliRunner().invoke(labels_app, [*command, *options])
        assert silent.exit_code == 0, silent.output
        assert "JANE" not in silent.output
        assert "JANE" in CliRunner().invoke(labels_app, [*command, *options, "--show-identifiers"]).output
    facts = json.loads(CliRunner().invoke(labels_app, [*command, "--json"]).output)
    assert [row["file"] for row in facts["nearest"]] == ["m1.nii.gz", "m2.nii.gz", "m3.nii.gz"]
    assert sorted(path for path in site.rglob("*")) == before


def test_nothing_to_compare_is_refused(site: Path) -> None:
    with pytest.raises(DataError, match="a cohort, where a folder of label maps is asked for"):
        nearest_private(site / "cohort", site / "cohort", brain_study())
