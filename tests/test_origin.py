"""A synthetic scan is believed only where it can be made again from its public source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.edits.replay import MAP_TOLERANCE, rounded_alike
from fedphantom.common.errors import PolicyRefused, VerificationFailed
from fedphantom.common.gan.generation import generate_cohort, initial_parameters, load_generator
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.choice import declare_sources
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.study import Study, parse_study
from fedphantom.common.volumes.nifti import read_label_map, read_volume
from fedphantom.common.volumes.nifti_writer import write_label_map, write_volume
from fedphantom.privacy.release.origin import check_origin

TEXT = """
name = "tiny"
seed = 3
channels = ["T1"]
labels = { background = 0, core = 1, rim = 2 }
[grid]
shape = [16, 16, 16]
spacing_mm = [2.0, 2.0, 2.0]
[public_labels]
source = "folder"
name = "open balls"
licence = "CC0-1.0"
[network]
preset = "tiny"
"""


def ball(study: Study, radius: float) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in study.grid.shape], indexing="ij")
    distance = np.sqrt(sum(a**2 for a in axes))
    return np.where(distance < radius / 2, 1, np.where(distance < radius, 2, 0)).astype(np.uint8)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    study = parse_study(TEXT)
    public = tmp_path / "public"
    with BidsWriter(public, study.volume_grid(), study.channels, study.labels, "public", synthetic=False) as writer:
        for i, radius in enumerate((5.0, 6.5)):
            writer.add(f"p{i}", np.ones((1, *study.grid.shape), np.float32), ball(study, radius), {})
    run = tmp_path / "run"
    save_weights(run / "generator.safetensors", initial_parameters(study), generator_metadata(study, 1))
    sampler = make_label_sampler(study, read_cohort(public))
    declare_sources(run, sampler.sources())
    generator = load_generator(run / "generator.safetensors", choose_device("cpu"))
    generate_cohort(generator, (sampler.sample(0, i) for i in range(3)), tmp_path / "synthetic", seed=0)
    return tmp_path


def check(root: Path) -> int:
    return check_origin(root / "run", root / "synthetic", read_cohort(root / "public"), device="cpu")


def label_files(root: Path) -> list[Path]:
    return sorted((root / "synthetic").rglob("*_dseg.nii.gz"))


def test_what_generate_wrote_passes(made: Path) -> None:
    assert check(made) == 3


def test_a_scan_is_made_again_beside_any_others(made: Path) -> None:
    done: list[int] = []
    subjects = sorted((made / "synthetic").glob("sub-*"))
    shutil.rmtree(subjects[0])
    table = made / "synthetic" / "participants.tsv"
    kept = [line for line in table.read_text().splitlines(keepends=True) if not line.startswith(subjects[0].name)]
    table.write_text("".join(kept))
    public = read_cohort(made / "public")
    check_origin(
        made / "run", made / "synthetic", public, device="cpu", progress=lambda number, total: done.append(number)
    )
    assert done == [1, 2]


def test_another_label_map_under_a_copied_sidecar_is_refused(made: Path) -> None:
    study = parse_study(TEXT)
    write_label_map(label_files(made)[1], ball(study, 4.0), study.volume_grid())
    with pytest.raises(PolicyRefused, match="recorded steps do not give"):
        check(made)


@pytest.mark.parametrize("label", [1, 2], ids=["of a new place", "of a new thickness"])
def test_a_lesion_that_nobody_declared_is_no_rounding_however_small(label: int) -> None:
    study = parse_study(TEXT.replace("16, 16, 16", "64, 64, 64"))
    expected = ball(study, 20.0)
    lesion = expected.copy()
    lesion[30:33, 30:32, 8:10] = label
    assert (lesion != expected).mean() < MAP_TOLERANCE
    assert not rounded_alike(lesion, expected)


def grown(labels: np.ndarray, at: np.ndarray, voxels: int) -> None:
    """Label 2 laid over the voxels so far along the first axis."""
    labels[tuple((at + np.array([voxels, 0, 0])).T)] = 2


def test_labels_that_meet_may_be_rounded_apart_in_few_voxels_and_by_one_alone() -> None:
    study = parse_study(TEXT.replace("16, 16, 16", "64, 64, 64"))
    expected = ball(study, 20.0)
    surface = np.argwhere((expected[1:] == 0) & (expected[:-1] == 2))
    rounded = expected.copy()
    grown(rounded, surface[:20], 1)
    assert rounded_alike(rounded, expected)
    grown(rounded, surface[:20], 2)
    assert not rounded_alike(rounded, expected)
    many = expected.copy()
    grown(many, surface[:200], 1)
    assert not rounded_alike(many, expected)
    assert not rounded_alike(expected.astype(np.int16) + 256, expected)


def test_another_scan_under_a_copied_sidecar_is_refused(made: Path) -> None:
    study = parse_study(TEXT)
    scan = read_cohort(made / "synthetic").scans[0]
    voxels, _ = read_volume(scan.channels["T1"])
    write_volume(scan.channels["T1"].path, voxels[::-1].copy(), study.volume_grid())
    with pytest.raises(PolicyRefused, match="does not paint"):
        check(made)


def test_a_small_patch_from_elsewhere_is_refused(made: Path) -> None:
    study = parse_study(TEXT)
    scan = read_cohort(made / "synthetic").scans[0]
    voxels = read_volume(scan.channels["T1"])[0].copy()
    patch = voxels[2:5, 2:5, 2:5]
    patch[...] = np.where(patch > 500, patch - 300, patch + 300)
    write_volume(scan.channels["T1"].path, voxels, study.volume_grid())
    with pytest.raises(PolicyRefused, match="does not paint"):
        check(made)


@pytest.mark.parametrize("share", [0.15, 0.01, 0.002])
def test_a_faint_patch_is_refused_and_rounding_is_not(made: Path, share: float) -> None:
    study = parse_study(TEXT)
    scan = read_cohort(made / "synthetic").scans[0]
    voxels = read_volume(scan.channels["T1"])[0].copy()
    rounded = voxels + np.random.default_rng(0).uniform(-0.5, 0.5, voxels.shape).astype(np.float32)
    write_volume(scan.channels["T1"].path, rounded, study.volume_grid())
    assert check(made) == 3
    voxels[2:5, 2:5, 2:5] *= np.float32(1 - share)
    voxels[2, 2, 2] = max(voxels[2, 2, 2] - 1000 * share, 0)
    write_volume(scan.channels["T1"].path, voxels, study.volume_grid())
    with pytest.raises(PolicyRefused, match="does not paint"):
        check(made)


def test_one_thread_paints_what_two_paint(made: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert check(made) == 3
    finally:
        torch.set_num_threads(threads)


def test_a_chain_without_steps_is_refused(made: Path) -> None:
    sidecar = label_files(made)[0].with_name(label_files(made)[0].name.replace(".nii.gz", ".json"))
    content = json.loads(sidecar.read_text())
    content["LabelChain"]["steps"] = []
    sidecar.write_text(json.dumps(content))
    with pytest.raises(PolicyRefused, match="not those of the public sampler"):
        check(made)


def test_a_source_that_is_declared_but_not_at_hand_is_refused(made: Path) -> None:
    study = parse_study(TEXT)
    other = made / "other"
    with BidsWriter(other, study.volume_grid(), study.channels, study.labels, "other", synthetic=False) as writer:
        writer.add("q", np.ones((1, *study.grid.shape), np.float32), ball(study, 7.5), {})
    with pytest.raises(PolicyRefused, match="not at hand"):
        check_origin(made / "run", made / "synthetic", read_cohort(other), device="cpu")


def test_volumes_of_another_generator_are_refused(made: Path) -> None:
    study = parse_study(TEXT)
    other = {name: value + np.float32(0.1) for name, value in initial_parameters(study).items()}
    save_weights(made / "run" / "generator.safetensors", other, generator_metadata(study, 1))
    with pytest.raises(VerificationFailed):
        check(made)


def test_the_label_maps_are_not_those_of_the_public_patients(made: Path) -> None:
    # A guard of the fixture: otherwise the tests above would pass with undeformed maps too.
    study = parse_study(TEXT)
    for path in label_files(made):
        assert not any(np.array_equal(read_label_map(path)[0], ball(study, radius)) for radius in (5.0, 6.5))
