"""Synthetic cohorts: a function of generator, label map and seed, with sidecars that a release accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cohorts import SHAPE, draw_labels, tiny_study

from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import prepare
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, StorageError
from fedphantom.common.gan.generation import (
    FLOOR,
    WRITTEN_MAXIMUM,
    LoadedGenerator,
    as_read_back,
    as_written,
    generate_cohort,
    load_generator,
    numpy_parameters,
    paint,
    paint_each,
    painted_at_once,
)
from fedphantom.common.gan.networks import draw_noise, make_generator, one_hot
from fedphantom.common.gan.weights import generator_metadata, load_weights, save_weights
from fedphantom.common.labels.chain import LabelChain, LabelSource, LabelStep, PublicSources, label_digest
from fedphantom.common.labels.sampler import SampledLabels
from fedphantom.common.randomness import torch_generator
from fedphantom.common.study import PatchTable
from fedphantom.common.tensor_file import encode
from fedphantom.common.volumes.nifti import read_label_map, read_volume
from fedphantom.privacy.release.sidecar import parse_sidecar

CPU = choose_device("cpu")
STUDY = tiny_study()


def sampled(number: int) -> SampledLabels:
    labels = draw_labels(np.random.default_rng(number))
    source = LabelSource(kind="public", name="balls", licence="CC0-1.0", sha256=label_digest(labels))
    step = LabelStep(name="affine", parameters={"scale": [1.0, 1.0, 1.0]}, seed=number)
    return SampledLabels(labels, LabelChain(source=source, steps=(step,)))


LABELS = [sampled(number) for number in range(3)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "generator.safetensors"
    save_weights(path, numpy_parameters(make_generator(STUDY, 3)), generator_metadata(STUDY, 2))
    return path


@pytest.fixture(scope="module")
def generator(weights: Path) -> LoadedGenerator:
    return load_generator(weights, CPU)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make(generator: LoadedGenerator, out: Path, seed: int = 1, labels: Sequence[SampledLabels] = LABELS) -> Path:
    assert generate_cohort(generator, labels, out, seed) == len(labels)
    return out


def test_the_same_seed_gives_the_same_bytes(generator: LoadedGenerator, tmp_path: Path) -> None:
    one, two, other = (files(make(generator, tmp_path / name, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one == two
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith("_FLAIR.nii.gz"))


def test_a_volume_does_not_depend_on_those_after_it(generator: LoadedGenerator, tmp_path: Path) -> None:
    many, few = (files(make(generator, tmp_path / n, labels=LABELS[:k])) for n, k in (("many", 3), ("few", 1)))
    first = [name for name in few if name.startswith("sub-synthetic00001")]
    assert first
    assert all(few[name] == many[name] for name in first)


def test_the_same_label_map_twice_gives_two_different_volumes(generator: LoadedGenerator, tmp_path: Path) -> None:
    cohort = read_cohort(make(generator, tmp_path / "out", labels=[LABELS[0]] * 2))
    one, two = (read_volume(scan.channels["T1"])[0] for scan in cohort.scans)
    assert not np.array_equal(one, two)


def test_what_is_written_is_a_cohort_of_the_study(generator: LoadedGenerator, tmp_path: Path) -> None:
    told: list[int] = []
    generate_cohort(generator, iter(LABELS), tmp_path / "out", 1, told.append)
    assert told == [1, 2, 3]
    cohort = read_cohort(tmp_path / "out")
    report = check_cohort(cohort, STUDY)
    assert report.ok
    assert (report.patients, report.scans) == (3, 3)
    assert set(cohort.channels) == set(STUDY.channels)
    for scan, labels in zip(cohort.scans, LABELS, strict=True):
        assert scan.label is not None
        stored, affine = read_label_map(scan.label)
        np.testing.assert_array_equal(stored, labels.labels)
        np.testing.assert_allclose(affine, STUDY.volume_grid().affine())
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["Synthetic"] is True
    assert description["DifferentialPrivacy"] == generator.dp == "none"  # said as loudly as a promise


def test_volumes_of_a_private_generator_carry_its_whole_promise(generator: LoadedGenerator, tmp_path: Path) -> None:
    promised = '{"epsilon":3.0,"delta":0.001,"unit":"patient"}'
    generate_cohort(replace(generator, dp=promised), iter(LABELS[:1]), tmp_path / "out", 1)
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DifferentialPrivacy"] == promised


def test_every_sidecar_is_complete_and_a_release_accepts_it(
    generator: LoadedGenerator, weights: Path, tmp_path: Path
) -> None:
    written = files(make(generator, tmp_path / "out"))
    public = PublicSources(sources=tuple(labels.chain.source for labels in LABELS))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert generator.sha256 == digest
    sidecars = [content for name, content in written.items() if name.startswith("sub-") and name.endswith(".json")]
    volumes = [name for name in written if name.endswith(".nii.gz")]
    assert len(sidecars) == len(volumes) == 3 * (len(STUDY.channels) + 1)
    seeds = {parse_sidecar(content, digest, public).noise_seed for content in sidecars}
    assert len(seeds) == 3


@pytest.mark.parametrize("together", [2, 3, 4, 5, 9])
def test_what_a_volume_is_painted_beside_changes_no_voxel_of_it(together: int) -> None:
    network = make_generator(STUDY, 3)
    classes = np.stack([draw_labels(np.random.default_rng(i)) for i in range(together)]) // 2
    seeds = [7 + 3 * i for i in range(together)]
    beside = paint_each(network, classes, STUDY, seeds, CPU)
    for i in range(together):
        alone = paint(network, classes[i : i + 1], STUDY, seeds[i], CPU)[0]
        np.testing.assert_allclose(beside[i], alone, rtol=0, atol=1e-5)


def test_a_volume_is_what_the_network_makes_of_its_labels_and_noise_alone() -> None:
    network = make_generator(STUDY, 3).eval()
    classes = np.stack([draw_labels(np.random.default_rng(i)) for i in range(5)]) // 2
    painted = paint(network, classes, STUDY, 11, CPU)
    for i in range(5):
        labels = one_hot(torch.from_numpy(classes[i : i + 1]), len(STUDY.labels))
        with torch.inference_mode():
            alone = network(labels, draw_noise(1, SHAPE, torch_generator(11, i)))[0].numpy()
        np.testing.assert_allclose(painted[i], alone, rtol=0, atol=1e-4)  # other kernels: other last bits


def test_volumes_are_painted_four_at_once_and_never_one_alone(generator: LoadedGenerator, tmp_path: Path) -> None:
    batches: list[int] = []
    hook = generator.network.register_forward_hook(lambda network, given, made: batches.append(len(made)))
    make(generator, tmp_path / "out", labels=[LABELS[0]] * 5)
    hook.remove()
    assert batches == [4, 2]  # the fifth beside itself


def test_a_batch_holds_no_more_than_four_cubes_of_64_voxels() -> None:
    network = make_generator(STUDY, 3)
    shapes = {(8, 8, 8): 4, (64, 64, 64): 4, (64, 64, 65): 3, (80, 80, 80): 2, (96, 96, 96): 1, (240, 240, 155): 1}
    assert {shape: painted_at_once(network, shape) for shape in shapes} == shapes
    batches: list[int] = []
    network.register_forward_hook(lambda network, given, made: batches.append(len(made)))
    paint(network, np.zeros((1, 96, 96, 96), np.uint8), STUDY, 1, CPU)
    assert batches == [1]


def test_a_volume_can_be_made_again_from_its_sidecar(generator: LoadedGenerator, tmp_path: Path) -> None:
    cohort = read_cohort(make(generator, tmp_path / "out"))
    scan = cohort.scans[1]
    path = scan.channels["T1"].path
    facts = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert LabelChain.model_validate(facts["LabelChain"]) == LABELS[1].chain
    index = np.searchsorted(STUDY.label_values, LABELS[1].labels).astype(np.uint8)
    again = as_written(paint(generator.network, index[None], STUDY, facts["NoiseSeed"], CPU)[0])
    np.testing.assert_allclose(read_volume(scan.channels["T1"])[0], again[0], atol=1e-2)


def test_an_attacker_of_the_files_sees_what_as_read_back_says(generator: LoadedGenerator, tmp_path: Path) -> None:
    cohort = read_cohort(make(generator, tmp_path / "out"))
    prepared = prepare(cohort, STUDY, tmp_path / "cache")
    channel = cohort.scans[1].channels["T1"].path
    seed = json.loads(channel.with_name(channel.name.replace(".nii.gz", ".json")).read_text())["NoiseSeed"]
    index = np.searchsorted(STUDY.label_values, LABELS[1].labels).astype(np.uint8)
    painted = paint(generator.network, index[None], STUDY, seed, CPU)
    np.testing.assert_allclose(prepared.volumes[1], as_read_back(painted)[0], atol=1e-4)
    assert not np.allclose(prepared.volumes[1], painted[0], atol=1e-2)  # the way through the files matters


def test_background_is_written_as_exactly_zero() -> None:
    volume = np.array([-1.0, FLOOR, np.nextafter(np.float32(FLOOR), np.float32(0)), 0.0, 1.0], np.float32)
    written = as_written(volume)
    assert written.dtype == np.float32
    assert written[:2].tolist() == [0, 0]
    assert written[2] > 0
    assert written[3:].tolist() == [WRITTEN_MAXIMUM / 2, WRITTEN_MAXIMUM]


def test_background_is_exactly_zero_in_the_files_too(generator: LoadedGenerator, tmp_path: Path) -> None:
    dark = make_generator(STUDY, 3)
    head = [module for module in dark.modules() if isinstance(module, torch.nn.Conv3d)][-1]
    with torch.no_grad():
        head.weight.mul_(0.01)
        assert head.bias is not None
        head.bias.copy_(torch.tensor([-5.0, 0.5]))  # T1 all background, FLAIR all foreground
    cohort = read_cohort(make(replace(generator, network=dark), tmp_path / "out", labels=LABELS[:1]))
    assert (read_volume(cohort.scans[0].channels["T1"])[0] == 0).all()
    assert (read_volume(cohort.scans[0].channels["FLAIR"])[0] > 500).all()


BAD = {
    "another grid": (np.zeros((16, 16, 8), np.uint8), r"label map 2 lies on another grid, of shape \(16, 16, 8\)"),
    "a value between the study's": (np.full(SHAPE, 3, np.uint8), "label map 2 holds the value 3, outside"),
    "two values": (np.where(np.indices(SHAPE)[0] < 2, 9, 200).astype(np.uint8), "2 holds the values 9, 200, outside"),
}


@pytest.mark.parametrize(("labels", "told"), BAD.values(), ids=BAD.keys())
def test_label_maps_that_do_not_fit_are_refused_and_nothing_is_left(
    generator: LoadedGenerator, tmp_path: Path, labels: np.ndarray, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        generate_cohort(generator, [LABELS[0], replace(LABELS[1], labels=labels)], tmp_path / "out", 1)
    assert list(tmp_path.iterdir()) == []


def test_no_label_map_and_a_folder_in_use_are_refused(generator: LoadedGenerator, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label map"):
        generate_cohort(generator, [], tmp_path / "out", 1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="is there already"):
        generate_cohort(generator, LABELS, tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_weights_that_do_not_fit_their_studys_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    other = tiny_study(preset="small")
    save_weights(path, numpy_parameters(make_generator(other, 3)), generator_metadata(STUDY, 2))
    with pytest.raises(DataError, match="do not fit the study's 'tiny' generator"):
        load_generator(path, CPU)
    path.write_bytes(b"no weights")
    with pytest.raises(DataError):
        load_generator(path, CPU)


def misfits() -> dict[str, dict[str, np.ndarray]]:
    own = numpy_parameters(make_generator(STUDY, 3))
    first, *others = own
    more_labels = STUDY.model_copy(update={"labels": {**STUDY.labels, "oedema": 2}})
    return {
        "another preset's": numpy_parameters(make_generator(tiny_study(preset="small"), 3)),
        "of a study with another label": numpy_parameters(make_generator(more_labels, 3)),
        "of a study with fewer channels": numpy_parameters(make_generator(tiny_study(channels=("T1",)), 3)),
        "one missing": {name: own[name] for name in others},
        "one too many": own | {"extra.weight": np.zeros(3, np.float32)},
        "one renamed": {name: own[name] for name in others} | {"x": own[first]},
        "an axis turned": own | {first: np.moveaxis(own[first], 0, 1)},
        "an axis more": own | {first: own[first][None]},
    }


@pytest.mark.parametrize("kind", misfits().keys())
def test_weights_that_do_not_fit_are_refused_before_a_value_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "generator.safetensors"
    save_weights(path, misfits()[kind], generator_metadata(STUDY, 2))

    def never(path: Path) -> bytes:
        raise AssertionError("the values were read")

    monkeypatch.setattr(Path, "read_bytes", never)
    with pytest.raises(DataError, match="do not fit the study's 'tiny' generator: ") as refused:
        load_generator(path, CPU)
    assert "extra.weight" not in str(refused.value)  # nothing of a stranger's text


def test_a_nan_among_the_weights_is_refused(weights: Path, tmp_path: Path) -> None:
    parameters, metadata = load_weights(weights)
    parameters["head.bias"][0] = np.nan
    path = tmp_path / "generator.safetensors"
    path.write_bytes(encode(parameters, metadata))
    with pytest.raises(DataError, match=r"head[.]bias' holds a NaN"):
        load_generator(path, CPU)


def test_a_generator_of_patches_comes_back_as_one(tmp_path: Path) -> None:
    training = STUDY.training.model_copy(update={"patch": PatchTable(shape=(16, 16, 16))})
    study = STUDY.model_copy(update={"training": training})
    save_weights(tmp_path / "g", numpy_parameters(make_generator(study, 3)), generator_metadata(study, 2))
    loaded = load_generator(tmp_path / "g", CPU)
    assert loaded.study == study
    assert loaded.network.local


def test_loaded_weights_are_those_that_were_saved(generator: LoadedGenerator) -> None:
    saved, loaded = numpy_parameters(make_generator(STUDY, 3)), numpy_parameters(generator.network)
    assert saved.keys() == loaded.keys()
    assert all(np.array_equal(saved[name], loaded[name]) for name in saved)
    assert generator.study == STUDY
    assert not generator.network.training


def test_numpy_parameters_are_copies() -> None:
    network = make_generator(STUDY, 3)
    before = numpy_parameters(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(not np.array_equal(before[name], value) for name, value in numpy_parameters(network).items())


def test_painting_leaves_a_network_in_training_as_it_was() -> None:
    network = make_generator(STUDY, 3).train()
    volumes = paint(network, np.zeros((2, *SHAPE), np.uint8), STUDY, 1, CPU)
    assert network.training
    assert (volumes.shape, volumes.dtype) == ((2, 2, *SHAPE), np.float32)
    assert np.abs(volumes).max() <= 1
    assert not np.array_equal(volumes[0], volumes[1])  # each has noise of its own
