"""A map whose lesion lies inside out is no tumour, but most likely one whose numbers mean something else."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from little_brain import HEAD, PARTS, SHAPE, SPACING, TERMS, TISSUES, brain_study, healthy_brain, with_tumour
from numpy.typing import NDArray
from real_patients import FOLDER, write_tissue_cohort

from fedphantom.cli import run
from fedphantom.common.edits.layered import layered
from fedphantom.common.edits.operations import Target, Transplantation, apply_operation
from fedphantom.common.edits.part_order import refuse_misordered
from fedphantom.common.edits.plausibility import Implausible
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.study_template import to_toml
from fedphantom.common.volumes.nifti import read_label_map
from fedphantom.common.volumes.nifti_writer import write_label_map

MOVE = HEAD + '[[edit]]\noperation = "move"\nmm = [-4, 4]\n'


def renumbered(labels: NDArray[np.uint8], values: tuple[int, ...]) -> NDArray[np.uint8]:
    """The map with these values in the place of oedema, enhancing and necrosis."""
    out = labels.copy()
    for part, value in zip(PARTS, values, strict=True):
        out[labels == part] = value
    return out


def refused(labels: NDArray[np.uint8]) -> bool:
    try:
        refuse_misordered(labels, TERMS)
    except Implausible as error:
        return error.reason == "misordered"
    return False


OEDEMA, ENHANCING, NECROSIS = PARTS
INSIDE_OUT = [order for order in permutations(PARTS) if order[0] != OEDEMA]


@pytest.mark.parametrize("order", INSIDE_OUT, ids=str)
def test_a_lesion_with_another_part_in_the_place_of_oedema_is_refused(order: tuple[int, ...]) -> None:
    assert not refused(with_tumour(healthy_brain()))
    assert refused(renumbered(with_tumour(healthy_brain()), order))


def test_what_is_measured_and_the_limit_are_told() -> None:
    with pytest.raises(Implausible) as error:
        refuse_misordered(renumbered(with_tumour(healthy_brain()), (NECROSIS, ENHANCING, OEDEMA)), TERMS)
    assert "of the surface of label 6 lies against healthy tissue" in error.value.measured
    assert "0.0% of that of label 4 and 5, which should lie around it" in error.value.measured
    assert "at most 33.3%, or twice the latter" in error.value.measured


@pytest.mark.parametrize("spacing", [3.0, 5.0, 8.0])
def test_the_samplers_tumours_are_in_order_at_every_spacing_and_their_renumbered_images_are_not(spacing: float) -> None:
    shape = tuple(int(192 / spacing) for _ in range(3))
    sampler = make_label_sampler(brain_study((shape[0], shape[1], shape[2]), (spacing,) * 3), None)
    found = [sampler.sample(1, index).labels for index in range(6)]
    assert not any(map(refused, found))
    renamed = [renumbered(one, (NECROSIS, ENHANCING, OEDEMA)) for one in found if (one == ENHANCING).sum() > 20]
    assert renamed or spacing > 5
    assert all(map(refused, renamed))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the two real patients are not beside this checkout")
def test_real_tumours_are_in_order_on_coarse_grids_too_and_renumbered_ones_are_not(tmp_path: Path) -> None:
    write_tissue_cohort(tmp_path / "cohort")
    files = sorted((tmp_path / "cohort").glob("*.nii.gz"))
    assert len(files) == 2
    for file in files:
        whole = read_label_map(file)[0].astype(np.uint8)
        for step in (1, 2, 3, 6):
            labels = whole[step // 2 :: step, step // 2 :: step, step // 2 :: step]
            assert not refused(labels)
            assert refused(renumbered(labels, (NECROSIS, ENHANCING, OEDEMA)))


@pytest.mark.parametrize("missing", PARTS)
def test_a_missing_part_is_no_disorder(missing: int) -> None:
    labels = with_tumour(healthy_brain())
    labels[labels == missing] = TISSUES.white if missing == OEDEMA else OEDEMA
    assert not refused(labels)


def test_a_speck_of_oedema_in_a_tumour_without_any_tells_nothing() -> None:
    labels = with_tumour(healthy_brain())
    labels[np.isin(labels, PARTS)] = NECROSIS
    middle = tuple(round((n - 1) / 2 + at / mm) for n, mm, at in zip(SHAPE, SPACING, (-30, 6, 3), strict=True))
    labels[middle] = OEDEMA
    assert not refused(labels)


def test_a_donor_whose_numbers_mean_something_else_gives_no_lesion() -> None:
    donor = renumbered(with_tumour(healthy_brain()), (NECROSIS, ENHANCING, OEDEMA))
    here = Transplantation(target=Target(lesion=0), centre_mm=(29.3, 5.1, 3.7))
    with pytest.raises(Implausible, match="in another order"):
        apply_operation(layered(healthy_brain(), TERMS), here, TERMS, donor)


def edit(tmp_path: Path, recipe: str) -> int:
    (tmp_path / "study.toml").write_text(to_toml(brain_study()))
    (tmp_path / "recipe.toml").write_text(recipe)
    options = ["--recipe", "recipe.toml", "--study", "study.toml", "--site-secret", "secret", "-n", "2"]
    named = [word if word.startswith("-") or word == "2" else str(tmp_path / word) for word in ["in", "out", *options]]
    return run(["labels", "edit", *named])


def test_the_command_leaves_out_a_map_in_another_order_and_says_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = brain_study().volume_grid()
    (tmp_path / "in").mkdir()
    write_label_map(tmp_path / "in" / "a.nii.gz", with_tumour(healthy_brain()), grid)
    swapped = renumbered(with_tumour(healthy_brain()), (NECROSIS, ENHANCING, OEDEMA))
    write_label_map(tmp_path / "in" / "b.nii.gz", swapped, grid)
    assert edit(tmp_path, MOVE) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 4 variants given up" in said
    assert "2 × as given: a lesion whose parts lie in another order than [labels] lesion says" in said
    assert "of the surface of label 6" in said


def test_a_recipe_whose_order_contradicts_every_map_is_refused_with_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    write_label_map(tmp_path / "in" / "a.nii.gz", with_tumour(healthy_brain()), brain_study().volume_grid())
    wrong = '[labels]\nlesion = ["necrosis", "enhancing", "oedema"]\n'
    assert edit(tmp_path, MOVE.replace("[[edit]]", wrong + "[[edit]]", 1)) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "in another order than [labels] lesion says" in said
    assert "--remapping" in said
    assert "the order of the recipe's [labels] lesion" in said
    assert not (tmp_path / "out").exists()
