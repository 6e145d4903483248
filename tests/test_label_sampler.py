"""Public label maps are varied by a recorded recipe, each independent of the others."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fedphantom.common.cohort import Cohort, Patient, Scan
from fedphantom.common.edits.replay import SourceMissing, replay_chain
from fedphantom.common.errors import ConfigError, DataError
from fedphantom.common.labels.brain import BRAIN_LABELS, BrainLabels
from fedphantom.common.labels.chain import LabelChain, LabelSource, PublicSources, label_digest
from fedphantom.common.labels.commands import labels_app
from fedphantom.common.labels.folder import read_label_folder, write_label_folder
from fedphantom.common.labels.sampler import (
    LabelSampler,
    PublicLabelMap,
    make_label_sampler,
    public_label_maps,
)
from fedphantom.common.study import PublicLabelsTable, Study
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti_writer import write_label_map

GRID = Grid((24, 32, 24), (1.0, 1.0, 1.0))
TISSUES = BrainLabels()
TABLE = PublicLabelsTable(source="folder")


def _map(half_width, name="ours"):
    labels = np.zeros(GRID.shape, np.uint8)
    labels[12 - half_width : 12 + half_width, 8:24, 7:17] = 1
    labels[12 - half_width : 12 + half_width, 8:16, 7:17] = 2
    source = LabelSource(kind="public", name=name, licence="CC-BY-4.0", sha256=label_digest(labels))
    return PublicLabelMap(labels, source)


def _at_hand():
    return {label_digest(m.labels): m.labels for m in (_map(4), _map(6), _map(8))}


def _study(**public):
    return Study.model_validate({
        "name": "s",
        "seed": 5,
        "channels": ["T1"],
        "labels": {"background": 0, "front": 1, "back": 2},
        "grid": {"shape": GRID.shape, "spacing_mm": GRID.spacing_mm},
        "public_labels": {"source": "folder", "name": "ours", "licence": "CC-BY-4.0"} | public,
    })  # fmt: skip


def _brain_study():
    changes = {
        "labels": dict(BRAIN_LABELS),
        "grid": {"shape": (24, 32, 24), "spacing_mm": (7.0, 7.0, 7.0)},
        "public_labels": {"source": "atlas"},
    }
    return Study.model_validate(_study().model_dump() | changes)


def _cohort(root, arrays, grid=GRID):
    scans = []
    for number, labels in enumerate(arrays):
        path = root / f"p{number}_dseg.nii.gz"
        write_label_map(path, labels, grid)
        scans.append(Patient(f"p{number}", (Scan(f"p{number}", f"p{number}", {}, path),)))
    return Cohort(root, "table", (), tuple(scans))


@pytest.fixture
def sampler():
    return LabelSampler([_map(4), _map(6), _map(8)], TABLE, GRID.spacing_mm)


def test_a_sample_depends_on_seed_and_index_alone(sampler):
    forwards = [sampler.sample(3, i) for i in range(4)]
    backwards = [sampler.sample(3, i) for i in reversed(range(4))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert one.chain == other.chain
    assert not np.array_equal(sampler.sample(3, 0).labels, sampler.sample(4, 0).labels)
    assert len({s.labels.tobytes() for s in forwards}) == 4


def test_every_public_map_is_used(sampler):
    used = {sampler.sample(0, i).chain.source.sha256 for i in range(15)}
    assert used == {s.sha256 for s in sampler.sources().sources}


def test_the_chain_makes_the_sample_again_even_through_json(sampler):
    sample = sampler.sample(1, 2)
    chain = LabelChain.model_validate_json(sample.chain.model_dump_json())
    assert np.array_equal(replay_chain(chain, _at_hand(), _study()), sample.labels)


def test_a_chain_is_not_replayed_on_another_source(sampler):
    chain = sampler.sample(1, 2).chain
    with pytest.raises(SourceMissing):
        replay_chain(chain, {label_digest(_map(5).labels): _map(5).labels}, _study())
    with pytest.raises(DataError, match="does not belong"):
        replay_chain(chain, {chain.source.sha256: _map(5).labels}, _study())


def test_parameters_chosen_by_hand_are_not_replayed(sampler):
    chain = sampler.sample(1, 2).chain
    affine, warp = chain.steps
    turned = affine.model_copy(update={"parameters": affine.parameters | {"rotation_deg": [1.0, 0.0, 0.0]}})
    with pytest.raises(DataError, match="label chain that does not belong"):
        replay_chain(chain.model_copy(update={"steps": (turned, warp)}), _at_hand(), _study())
    with pytest.raises(DataError):
        replay_chain(chain, _at_hand(), _study(rotation_deg=TABLE.rotation_deg + 5))


def test_the_chain_holds_numbers_only_and_ends_in_a_public_source(sampler):
    chain = sampler.sample(0, 0).chain
    assert chain.source.kind == "public"
    assert [step.name for step in chain.steps] == ["affine", "diffeomorphism"]
    flat = [v for step in chain.steps for v in step.parameters.values()]
    assert all(isinstance(x, int | float) for v in flat for x in (v if isinstance(v, list | tuple) else [v]))


def test_the_study_decides_how_far_maps_are_varied():
    still = PublicLabelsTable(source="folder", rotation_deg=0, scale=0, shift_mm=0, displacement_mm=0)
    sample = LabelSampler([_map(6)], still, GRID.spacing_mm).sample(0, 0)
    assert np.array_equal(sample.labels, _map(6).labels)


def test_gentle_defaults_keep_every_structure_and_about_its_size():
    gentle = LabelSampler([_map(6)], PublicLabelsTable(source="folder"), GRID.spacing_mm)
    for index in range(10):
        ratio = np.bincount(gentle.sample(0, index).labels.ravel(), minlength=3) / np.bincount(_map(6).labels.ravel())
        assert (ratio > 0.6).all()
        assert (ratio < 1.6).all()


def test_sources_name_every_map_once():
    twice = LabelSampler([_map(4), _map(4), _map(6)], PublicLabelsTable(source="folder"), GRID.spacing_mm)
    assert twice.sources() == PublicSources(sources=(_map(4).source, _map(6).source))


def test_no_maps_or_maps_of_two_shapes_are_refused():
    odd = PublicLabelMap(np.ones((8, 8, 8), np.uint8), _map(4).source)
    for maps in ([], [_map(4), odd]):
        with pytest.raises(DataError):
            LabelSampler(maps, PublicLabelsTable(source="folder"), GRID.spacing_mm)


def test_a_folders_maps_are_placed_on_the_study_grid(tmp_path):
    maps = public_label_maps(_study(), _cohort(tmp_path, [_map(4).labels, _map(6).labels]))
    assert [m.source.sha256 for m in maps] == [_map(4).source.sha256, _map(6).source.sha256]
    assert {(m.source.name, m.source.licence) for m in maps} == {("ours", "CC-BY-4.0")}


def test_a_map_of_another_size_is_placed_too(tmp_path):
    wide = np.zeros((32, 40, 32), np.uint8)
    wide[10:20, 12:30, 10:20] = 2
    (only,) = public_label_maps(_study(), _cohort(tmp_path, [wide], Grid(wide.shape, (1.0, 1.0, 1.0))))
    assert only.labels.shape == GRID.shape
    assert (only.labels == 2).sum() == (wide == 2).sum()
    assert only.source.sha256 == label_digest(only.labels)


def test_a_folder_needs_a_cohort_and_its_true_name(tmp_path):
    with pytest.raises(ConfigError, match="without a public cohort"):
        public_label_maps(_study(), None)
    with pytest.raises(ConfigError, match="atlas's name"):
        public_label_maps(_study(name="MNI152 (nilearn)"), _cohort(tmp_path, [_map(4).labels]))


def test_values_that_the_study_does_not_name_and_empty_maps_are_refused(tmp_path):
    strange, empty = np.full(GRID.shape, 9, np.uint8), np.zeros(GRID.shape, np.uint8)
    with pytest.raises(DataError, match="does not name"):
        public_label_maps(_study(), _cohort(tmp_path / "a", [strange]))
    with pytest.raises(DataError, match="without a single label map"):
        public_label_maps(_study(), _cohort(tmp_path / "b", [empty]))


def test_the_atlas_gets_tumours_as_often_as_the_study_says():
    study = _brain_study()
    atlas = public_label_maps(study, None)
    sources = LabelSampler(atlas, study.public_labels, study.grid.spacing_mm, TISSUES).sources().sources
    assert [s.name for s in sources] == ["MNI152 (nilearn)"]
    assert "McConnell" in sources[0].licence
    for probability, low, high in ((0.0, 0, 0), (0.5, 1, 9), (1.0, 10, 10)):
        table = PublicLabelsTable(source="atlas", lesion_probability=probability)
        sampler = LabelSampler(atlas, table, study.grid.spacing_mm, TISSUES)
        samples = [sampler.sample(0, i) for i in range(10)]
        with_lesion = [s for s in samples if len(s.chain.steps) == 3]
        assert low <= len(with_lesion) <= high
        assert all((s.labels > TISSUES.white).any() == (len(s.chain.steps) == 3) for s in samples)


def test_the_study_gives_size_and_place_of_the_tumours():
    lesion = {"radius_mm": (8.0, 9.0), "centre_mm": ((10.0, 100.0), (-200.0, 200.0), (-200.0, 200.0))}
    changed = _brain_study().model_dump() | {"public_labels": {"source": "atlas", "lesion": lesion}}
    sampler = make_label_sampler(Study.model_validate(changed), None)
    drawn = [sampler.sample(0, i).chain.steps[-1].parameters for i in range(8)]
    assert all(8 <= lesion["radius_mm"] <= 9 and lesion["centre_mm"][0] > 5 for lesion in drawn)
    assert any(s.chain.steps[-1].parameters["centre_mm"][0] < 0 for s in (
        make_label_sampler(_brain_study(), None).sample(0, i) for i in range(8)
    ))  # fmt: skip


def test_a_study_whose_warps_fold_is_refused():
    folding = PublicLabelsTable(source="folder", displacement_mm=20, smoothness_mm=4)
    with pytest.raises(DataError, match="folds the map"):
        LabelSampler([_map(6)], folding, GRID.spacing_mm).sample(0, 0)


def test_a_chain_with_a_tumour_is_replayed_too():
    study = _brain_study()
    sample = make_label_sampler(study, None).sample(9, 0)
    (atlas,) = public_label_maps(study, None)
    chain = LabelChain.model_validate_json(sample.chain.model_dump_json())
    assert chain.steps[-1].name == "lesion"
    again = replay_chain(chain, {atlas.source.sha256: atlas.labels}, study)
    assert np.array_equal(again, sample.labels)


def test_the_atlas_looks_like_a_brain():
    study = _brain_study()
    labels = public_label_maps(study, None)[0].labels
    litres = np.bincount(labels.ravel(), minlength=4) * 7.0**3 / 1e6
    assert 1.4 < litres[1:].sum() < 2.2
    assert litres[2] > litres[3] > litres[1] > 0
    middle = np.argwhere(labels > 0).mean(axis=0)
    assert middle == pytest.approx((np.array(labels.shape) - 1) / 2, abs=1.5)
    assert not labels[[0, -1]].any()


def test_a_written_folder_reads_back_with_its_chains(tmp_path, sampler):
    write_label_folder(tmp_path / "out", sampler, 3, _study(), seed=8)
    read = read_label_folder(tmp_path / "out", GRID)
    assert len(read) == 3
    for index, labels in enumerate(read):
        assert np.array_equal(labels.labels, sampler.sample(8, index).labels)
        assert labels.chain == sampler.sample(8, index).chain
    declared = PublicSources.model_validate_json((tmp_path / "out" / "public-labels.json").read_text())
    assert declared == sampler.sources()


def test_a_label_map_without_a_chain_counts_as_private(tmp_path):
    write_label_map(tmp_path / "someone.nii.gz", _map(4).labels, GRID)
    (tmp_path / "someone.json").write_text('{"Note": "nothing about a chain"}')
    write_label_map(tmp_path / "someone-else.nii.gz", _map(6).labels, GRID)
    for labels in read_label_folder(tmp_path, GRID):
        assert labels.chain.source.kind == "private"
        assert labels.chain.source.name == "undeclared"
        assert labels.chain.source.sha256 == "0" * 64  # a hash would let anyone confirm a candidate


@pytest.mark.parametrize(
    "sidecar",
    ["{", '{"LabelChain": {"source": "me"}}', "\udcff", "[" * 200_000],
    ids=["cut off", "no chain", "not UTF-8", "nested without end"],
)
def test_a_damaged_sidecar_is_named_as_such(tmp_path, sidecar):
    write_label_map(tmp_path / "a.nii.gz", _map(4).labels, GRID)
    (tmp_path / "a.json").write_bytes(sidecar.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="sidecar"):
        read_label_folder(tmp_path, GRID)


def test_a_label_map_that_is_cut_short_is_told_by_its_number_and_not_by_its_name(tmp_path):
    for name in ("a", "doe", "z"):
        write_label_map(tmp_path / f"{name}.nii.gz", _map(4).labels, GRID)
    whole = (tmp_path / "doe.nii.gz").read_bytes()
    (tmp_path / "doe.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"label map 2 in the order of the files' names: a file is trunc") as refused:
        read_label_folder(tmp_path, GRID)
    assert "doe" not in str(refused.value)
    assert "take it out of the folder" in refused.value.remedy
    assert "cohort check" not in refused.value.remedy


def test_a_folder_without_label_maps_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="label maps"):
            read_label_folder(folder, GRID)


def test_the_command_writes_a_folder_that_reads_back(tmp_path):
    _cohort(tmp_path / "imagesTr", [])
    (tmp_path / "study.toml").write_text(
        'name = "s"\nseed = 5\nchannels = ["T1"]\n[labels]\n'
        + "\n".join(f"{name} = {value}" for name, value in BRAIN_LABELS.items())
        + '\n[grid]\nshape = [24, 32, 24]\nspacing_mm = [7, 7, 7]\n[public_labels]\nsource = "atlas"\n'
    )
    arguments = ["sample", str(tmp_path / "out"), "-n", "2", "--study", str(tmp_path / "study.toml")]
    result = CliRunner().invoke(labels_app, arguments)
    assert result.exit_code == 0, result.output
    read = read_label_folder(tmp_path / "out", Grid((24, 32, 24), (7, 7, 7)))
    assert [labels.chain.source.kind for labels in read] == ["public", "public"]
    assert json.loads((tmp_path / "out" / "label-00002_dseg.json").read_text())["LabelChain"]["steps"]
