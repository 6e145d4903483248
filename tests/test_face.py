"""A head counts as one without a face only where its voxels show that; every doubt is "not shown"."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from dicom_series import Made, write_series
from made_head import T1, T2, Head
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from fedphantom.cli import run
from fedphantom.common.labels.atlas import load_atlas
from fedphantom.common.labels.brain import BrainLabels
from fedphantom.common.phantom.contrast import render
from fedphantom.common.phantom.patients import draw_patient, draw_site_scanner, phantom_grid
from fedphantom.common.volumes.face import face_finding

Volume = NDArray[np.float32]
SPACING = 3.0
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
CONTRASTS = {"T1": tuple(T1.values()), "T2": tuple(T2.values())}


@lru_cache(maxsize=4)
def brains(seed: int) -> Volume:
    """Four channels of a procedural patient: MNI152's anatomy, skull-stripped, shape (4, X, Y, Z)."""
    grid = phantom_grid(SPACING)
    rng = np.random.default_rng(seed)
    patient, labels = draw_patient(rng, load_atlas(grid, BrainLabels()), grid.spacing_mm)
    return np.asarray(render(labels, grid.spacing_mm, draw_site_scanner(0, seed), patient.contrast))


@pytest.mark.parametrize("seed", range(4))
def test_skull_stripped_brains_are_told_in_every_channel_with_and_without_room_around_them(seed: int) -> None:
    for channel in brains(seed):
        wide = np.pad(channel, 12, constant_values=channel.flat[0])
        assert face_finding(channel, AFFINE) == "skull-stripped"
        assert face_finding(wide, AFFINE) == "skull-stripped"


HEADS = list(itertools.product((-20, -8, 0, 8, 20), (0, 12), (0.85, 1.0, 1.08), CONTRASTS, (True, False)))


@pytest.mark.parametrize(("pitch", "yaw", "scale", "contrast", "noisy_air"), HEADS)
def test_a_whole_head_is_never_taken_for_one_without_a_face(
    pitch: float, yaw: float, scale: float, contrast: str, noisy_air: bool
) -> None:
    head = Head(pitch=pitch, yaw=yaw, scale=scale, noisy_air=noisy_air)
    assert face_finding(replace(head, contrast=CONTRASTS[contrast]).volume(), head.affine) == "not shown"


FIELDS = {
    "without the neck": {"size": (190, 250, 190), "shift": (0, 0, -10)},
    "to the eyes": {"size": (190, 250, 140), "shift": (0, 0, -25)},
    "without the vertex": {"size": (190, 250, 200), "shift": (0, 0, 50)},
    "without the nose": {"size": (190, 200, 250), "shift": (0, 5, 20)},
    "half from side to side": {"size": (100, 250, 250), "shift": (40, 0, 20)},
    "thick slices": {"spacing": (1.5, 1.5, 6.0)},
    "thick sagittal slices": {"spacing": (6.0, 1.5, 1.5)},
}


@pytest.mark.parametrize("noisy_air", [True, False])
@pytest.mark.parametrize("field", FIELDS)
def test_a_narrow_field_of_view_is_no_proof(field: str, noisy_air: bool) -> None:
    head = Head(noisy_air=noisy_air, **FIELDS[field])  # type: ignore[arg-type]  # fields of several kinds
    assert face_finding(head.volume(), head.affine) == "not shown"


@pytest.mark.parametrize("noisy_air", [True, False])
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("pitch", [-2, 0, 5, 10])
def test_a_defaced_head_is_told_by_the_block_of_one_value_where_its_face_was(
    pitch: float, contrast: str, noisy_air: bool
) -> None:
    head = Head(pitch=pitch, contrast=CONTRASTS[contrast], noisy_air=noisy_air, defaced=True)  # type: ignore[arg-type]
    assert face_finding(head.volume(), head.affine) == "defaced"


def test_a_defaced_head_with_something_left_of_its_face_is_not_taken() -> None:
    head = Head(defaced=True)
    volume = head.volume()
    left = replace(head, defaced=False).volume()
    middle = volume.shape[0] // 2
    volume[middle - 3 : middle + 3, :, 35:45] = left[middle - 3 : middle + 3, :, 35:45]
    assert face_finding(volume, head.affine) == "not shown"


def test_a_mouth_lost_to_metal_is_no_defacing() -> None:
    head = Head()
    volume = head.volume()
    volume[20:45, 60:, 20:28] = 0
    assert face_finding(volume, head.affine) == "not shown"


def test_a_brain_with_a_scalp_around_it_is_not_skull_stripped() -> None:
    brain = np.pad(brains(0)[0], 12, constant_values=0)
    tissue = brain != brain.flat[0]
    scalp = binary_dilation(tissue, iterations=4) & ~binary_dilation(tissue, iterations=3)
    brain[binary_dilation(tissue, iterations=3) & ~tissue] = 1.0
    brain[scalp] = brain.max()
    assert face_finding(brain, AFFINE) == "not shown"


def test_half_a_brain_cut_by_the_field_of_view_is_no_proof() -> None:
    brain = np.pad(brains(0)[0], 12, constant_values=0)
    assert face_finding(brain[brain.shape[0] // 2 :], AFFINE) == "not shown"


def test_a_thing_shaped_as_a_brain_but_as_large_as_a_head_is_none() -> None:
    brain = np.pad(brains(0)[0], 12, constant_values=0)
    assert face_finding(brain, np.diag([4.2, 4.2, 4.2, 1.0])) == "not shown"


def test_a_brain_with_flesh_in_front_of_its_stem_is_not_skull_stripped() -> None:
    brain = np.pad(brains(0)[0], 12, constant_values=0)
    x, y, z = (n // 2 for n in brain.shape)
    low = int(np.nonzero(brain.any((0, 1)))[0][0])
    brain[x - 8 : x + 8, y : y + 26, low : low + 14] = brain.max()
    assert z > low + 14
    assert face_finding(brain, AFFINE) == "not shown"


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_the_order_in_which_axes_are_stored_does_not_matter(axes: tuple[int, int, int]) -> None:
    for volume, expected in ((brains(0)[0], "skull-stripped"), (Head(defaced=True).volume(), "defaced")):
        affine = np.eye(4)
        affine[:3, :3] = AFFINE[:3, :3][:, axes]
        affine[:3, 1] *= -1
        stored = np.flip(volume.transpose(axes), 1)
        assert face_finding(stored, affine) == expected


def test_a_volume_too_small_for_a_face_is_told() -> None:
    rng = np.random.default_rng(0)
    assert face_finding(rng.random((44, 43, 42), dtype=np.float32), np.diag([2.0, 2, 2, 1])) == "too small for a head"
    assert face_finding(rng.random((46, 43, 42), dtype=np.float32), np.diag([2.0, 2, 2, 1])) == "not shown"


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_volume_of_one_value_shows_nothing(value: float) -> None:
    assert face_finding(np.full((50, 50, 50), value, dtype=np.float32), AFFINE) == "not shown"


# The importer.


def write_head(folder: Path, volume: Volume, series: str, **tags: str) -> None:
    """A head as an axial series: columns run to the left, rows to the back."""
    stored = np.flip(volume, (0, 1)).astype(np.int16)
    step = (SPACING, SPACING, SPACING)
    study = series.rsplit(".", 1)[0]
    write_series(folder, Made(stored=stored, spacing=step, patient=study, study=study, series=series, tags=tags))


def test_a_head_with_a_face_stops_the_import_and_a_reason_lets_it_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_head(tmp_path / "src" / "a", Head().volume(), "1.2.1.1")
    write_head(tmp_path / "src" / "b", Head(defaced=True).volume(), "1.2.2.1")
    command = ["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out"), "--json"]
    assert run(command) == 4
    said = capsys.readouterr().err
    assert "face: a head that is neither skull-stripped nor defaced" in said
    assert "1 series" in said
    assert not (tmp_path / "out").exists()
    assert run([*command, "--allow-faces", "consented to open publication, protocol C-17"]) == 0
    assert json.loads(capsys.readouterr().out)["faces"] == {"defaced": 1, "not shown": 1}
    provenance = json.loads((tmp_path / "out" / "dataset_description.json").read_text())["Import"]
    assert provenance["faces_allowed_because"] == "consented to open publication, protocol C-17"
    checks = [json.loads(p.read_text())["FaceCheck"] for p in (tmp_path / "out").rglob("*_T1w.json")]
    assert sorted(checks) == ["defaced", "not shown"]


def test_a_head_with_a_face_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_head(tmp_path / "src" / "a", Head().volume(), "1.2.1.1")
    write_head(tmp_path / "src" / "b", Head(defaced=True).volume(), "1.2.2.1")
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out"), "--json", "--leave-out"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["patients"], found["faces"]) == (1, {"defaced": 1})
    assert [(one["code"], one["series"]) for one in found["not_taken"]] == [("face", 1)]


def test_a_header_that_says_a_person_may_be_recognised_outweighs_the_voxels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_head(tmp_path / "src", Head(defaced=True).volume(), "1.2.1.1", RecognizableVisualFeatures="YES")
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out")]) == 4
    assert "face" in capsys.readouterr().err
