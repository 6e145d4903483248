"""``generate``: whose label maps were painted is said, and a folder of another kind is told for what it is."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from linear_run import linear_simulation
from linear_site import cohorts_of, order, study_text
from tiny_cohorts import draw_labels, tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.common.cohorts.layouts import read_cohort, write_table
from fedphantom.common.device import choose_device
from fedphantom.common.errors import GeometryError, PeerError
from fedphantom.common.gan.generation import initial_parameters, load_generators
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.chain import LabelChain, LabelSource
from fedphantom.common.labels.choice import newly_sampled, of_folder
from fedphantom.common.labels.folder import PUBLIC_LABELS, write_label_names, write_numbered, write_sources
from fedphantom.common.labels.sampler import SampledLabels
from fedphantom.common.study import parse_study
from fedphantom.common.volumes.nifti_writer import write_label_map

STUDY = parse_study(tiny_text())


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``run/generator.safetensors`` of the tiny study, called from the folder that holds ``run``."""
    monkeypatch.chdir(tmp_path)
    save_weights(Path("run/generator.safetensors"), initial_parameters(STUDY), generator_metadata(STUDY, 1))
    return Path("run/generator.safetensors")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def chain(kind: str) -> LabelChain:
    source = {"kind": kind, "name": "someone", "licence": "CC0-1.0", "sha256": "0" * 64}
    return LabelChain(source=LabelSource.model_validate(source))


def write_maps(folder: Path, kinds: list[str | None]) -> None:
    """A label map a kind, with a chain that ends in such a source; None: without a chain."""
    folder.mkdir()
    for number, kind in enumerate(kinds, start=1):
        labels = draw_labels(np.random.default_rng(number))
        if kind is None:
            write_label_map(folder / f"label-{number:05d}_dseg.nii.gz", labels, STUDY.volume_grid())
        else:
            write_numbered(folder, number, SampledLabels(labels, chain(kind)), STUDY.volume_grid())


def test_a_generator_without_a_promise_says_so_as_loudly(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_maps(Path("maps"), ["public"])
    assert run(["generate", str(weights), "out", "--labels", "maps", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "1 synthetic scan in out\ndp: none.\n"
    assert run(["generate", str(weights), "again", "--labels", "maps", "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["dp"] == "none"
    assert "dp_statement" not in facts


@pytest.mark.parametrize("kinds", [[None, None], ["private", "private"], ["public", "private"]], ids=str)
def test_painting_private_label_maps_is_warned_of_and_written_down(
    kinds: list[str | None], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_maps(Path("maps"), kinds)
    private = sum(kind != "public" for kind in kinds)
    assert run(["generate", str(weights), "out", "--labels", "maps", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith(f"warning: {private} of 2 label maps private")
    assert "cannot be released" in err
    assert json.loads(out)["private_label_maps"] == private
    description = json.loads(Path("out/dataset_description.json").read_text())
    assert f"{private} of 2 painted from private label maps" in description["Name"]
    assert "no patient was scanned" not in description["Name"]
    assert "cannot be released" in description["LabelMaps"]
    sidecars = [json.loads(path.read_text()) for path in Path("out").rglob("*_dseg.json")]
    assert sum(sidecar["LabelChain"]["source"]["kind"] == "private" for sidecar in sidecars) == private
    assert Path("out").stat().st_mode & 0o077 == 0


def test_maps_whose_values_mean_something_else_in_the_generators_study_are_refused(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_maps(Path("maps"), ["public", "private"])
    swapped = dict(zip(STUDY.labels, (0, *reversed(sorted(STUDY.labels.values())[1:])), strict=True))
    write_label_names(Path("maps"), STUDY.model_copy(update={"labels": swapped}))
    assert run(["generate", str(weights), "out", "--labels", "maps", "--device", "cpu"]) == 5
    assert "mean something else than in this study" in told(capsys)
    assert not Path("out").exists()
    write_label_names(Path("maps"), STUDY)
    assert run(["generate", str(weights), "out", "--labels", "maps", "--device", "cpu"]) == 0


def test_of_many_label_maps_only_one_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_maps(Path("maps"), ["public"] * 30)
    tracemalloc.start()
    try:
        chosen = of_folder(STUDY, Path("maps"), None)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 15 * math.prod(STUDY.grid.shape)  # bytes, a voxel each
    assert chosen.number == len([labels.labels for labels in chosen.maps]) == 30


def test_a_map_on_another_grid_is_refused_by_its_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("maps").mkdir()
    header = nibabel.Nifti1Header()
    header.set_data_shape((400, 400, 400))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open("maps/a.nii.gz", "wb", 1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(64):
            file.write(bytes(10**6))
    tracemalloc.start()
    try:
        with pytest.raises(GeometryError, match="400 × 400 × 400 voxels of 1 × 1 × 1 mm"):
            of_folder(STUDY, Path("maps"), None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * 10**6


def test_public_label_maps_of_undeclared_sources_are_warned_of(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_maps(Path("maps"), ["public"])
    assert run(["generate", str(weights), "out", "--labels", "maps", "--device", "cpu"]) == 0
    assert f"warning: the label maps come without a {PUBLIC_LABELS}" in told(capsys)
    description = json.loads(Path("out/dataset_description.json").read_text())
    assert description["Name"].endswith("no patient was scanned for them")
    assert description["LabelMaps"].startswith("from public sources")


def test_sampled_public_label_maps_are_not_warned_of(
    release_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = release_template / "run" / "generator.safetensors"
    line = ["generate", str(generator), str(tmp_path / "out"), "--sample", "1", "--device", "cpu"]
    assert run([*line, "--public", str(release_template / "public")]) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def sampled(release_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A copy of a run whose label maps come from a public cohort, three maps sampled from it, and how to paint them."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "public"):
        shutil.copytree(release_template / name, name)
    Path("run", PUBLIC_LABELS).unlink()
    study = load_generators(Path("run/generator.safetensors"), choose_device("cpu"))[0].study
    chosen = newly_sampled(study, 3, Path("public"), seed=4)
    Path("maps").mkdir()
    for number, labels in enumerate(chosen.maps, start=1):
        write_numbered(Path("maps"), number, labels, study.volume_grid())
    assert chosen.sources
    write_sources(Path("maps"), chosen.sources)
    return ["generate", "run/generator.safetensors", "out", "--labels", "maps", "--device", "cpu"]


def test_maps_that_their_public_chains_give_are_painted(sampled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*sampled, "--public", "public"]) == 0
    assert capsys.readouterr().err == ""
    assert Path("run", PUBLIC_LABELS).is_file()


def swap_map() -> None:
    """The last map is another than its sidecar says: as if a patient's lay under a copied chain."""
    shutil.copy("maps/label-00001_dseg.nii.gz", "maps/label-00003_dseg.nii.gz")


def in_sidecar(change: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    def forge() -> None:
        sidecar = Path("maps/label-00003_dseg.json")
        content = json.loads(sidecar.read_text())
        change(content["LabelChain"])
        sidecar.write_text(json.dumps(content))

    return forge


FORGED = {
    "another map": (swap_map, 5, "that its recorded public chain does not give"),
    "a source that is not public": (
        in_sidecar(lambda chain: chain["source"].update(sha256="0" * 64)),
        3,
        "declared public source is not at hand",
    ),
    "no step at all": (in_sidecar(lambda chain: chain.update(steps=[])), 3, "was not written by sampler and edits"),
}


@pytest.mark.parametrize(("forge", "code", "said"), FORGED.values(), ids=FORGED.keys())
def test_a_map_whose_public_chain_does_not_hold_fails_before_anything_is_painted(
    forge: Callable[[], None], code: int, said: str, sampled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    forge()
    assert run([*sampled, "--public", "public"]) == code
    err = told(capsys)
    assert "--labels: a label" in err
    assert said in err
    assert not Path("out").exists()
    assert not Path("run", PUBLIC_LABELS).exists()


def test_maps_whose_public_source_is_not_named_are_painted_and_said_to_be_unverified(
    sampled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    swap_map()
    assert run(sampled) == 0
    assert "warning: 3 of 3 label maps public by a chain that was not verified" in told(capsys)


def make(folder: str) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def test_a_cohort_given_as_label_maps_is_told_for_what_it_is_and_which_command_makes_the_folder(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_cohort(Path("patients"), 1)
    write_table(Path("patients.tsv"), read_cohort(Path("patients")))
    for cohort in ("patients", "patients.tsv"):
        assert run(["generate", str(weights), "out", "--labels", cohort]) == 3
        said = told(capsys)
        assert "a cohort, where a folder of label maps is asked for" in said
        assert "'fedphantom labels edit COHORT DIR" in said
    make("empty")
    assert run(["generate", str(weights), "out", "--labels", "empty"]) == 3
    assert "a folder without label maps" in told(capsys)


def test_a_folder_of_another_kind_is_told_for_what_it_is_and_which_file_to_give(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (make("run/sites/A") / "site.toml").write_text("")
    make("several/generators")
    (make("begun") / "run.json").write_text("{}")
    for folder, found, remedy in (
        ("run", "a run's or release's folder", "'run/generator.safetensors'"),
        ("run/sites/A", "a site's folder", "generator.safetensors of the run"),
        ("several", "an ensemble's run", "'several/generators'"),
        ("begun", "has not finished", "it goes on"),
    ):
        assert run(["generate", folder, "out", "--sample", "1"]) == 3
        said = told(capsys)
        assert found in said
        assert remedy in said
    assert not Path("out").exists()
    assert not Path(PUBLIC_LABELS).exists()  # beside the folder, where no run is


def test_what_a_run_left_whose_round_failed_is_called_so_and_its_checkpoint_no_generator(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order(cohorts_of(Path(), ("a",))["a"], fail=[2])
    with pytest.raises(PeerError, match="round 2 has 0 usable replies"):
        linear_simulation(Path("broken"), {"a": Path("cohorts/a")}, text=study_text(quorum=1))
    for given, found, remedy in (
        ("broken", "a run that did not end: its round 2 failed", "Its checkpoints are no generators"),
        (
            "broken/checkpoints/round-00001.safetensors",
            "'round-00001.safetensors' is a checkpoint of a run, and no generator",
            "A run that has none there did not end",
        ),
    ):
        assert run(["generate", given, "out", "--sample", "1"]) == 3
        said = told(capsys)
        assert found in said
        assert remedy in said
        assert "something else" not in said


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.png.gz", "png"])
def test_a_picture_that_would_not_be_what_its_name_says_is_a_usage_error(
    name: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", str(weights), "out", "--sample", "1", "--montage", name]) == 2
    assert "ends in .png" in told(capsys)
    assert not Path("out").exists()
