"""What an ensemble's run is good for: painted by turns, audited site by site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sites_alone import audit, paint, simulate_sites_alone, study_of_sites_alone

from fedphantom.cli import run as fedphantom
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError
from fedphantom.common.gan.generation import generate_cohort, initial_parameters, load_generators
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.sampler import make_label_sampler

SITES = ("site-a", "site-b")
CPU = choose_device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated ensemble of two sites in ``run``."""
    return simulate_sites_alone(tmp_path_factory.mktemp("ensemble"), "ensemble")


def painters(cohort: Path) -> list[str]:
    return [json.loads(path.read_text())["GeneratorSha256"] for path in sorted(cohort.rglob("*_dseg.json"))]


def test_members_take_turns_and_each_volume_names_its_painter(root: Path, tmp_path: Path) -> None:
    generators = load_generators(root / "run" / "generators", CPU)
    sampler = make_label_sampler(generators[0].study, None)
    maps = [sampler.sample(0, index) for index in range(3)]
    generate_cohort(generators, maps, tmp_path / "both", seed=1)
    one, two = (generator.sha256 for generator in generators)
    assert one != two
    assert painters(tmp_path / "both") == [one, two, one]
    # Who else paints changes nothing of a volume: the same map, number and seed give the same bytes.
    generate_cohort(generators[1], maps, tmp_path / "alone", seed=1)
    name = "sub-synthetic00002/anat/sub-synthetic00002_FLAIR.nii.gz"
    assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_generate_takes_the_folder_that_the_run_names(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = root / "run" / json.loads((root / "run" / "summary.json").read_text())["generator"]
    picture = tmp_path / "montage.png"
    command = ["generate", str(named), str(tmp_path / "out"), "--sample", "2", "--montage", str(picture), "--json"]
    assert fedphantom([*command, "--device", "cpu"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["generators_sha256"] == painters(tmp_path / "out")
    assert (root / "run" / "public-labels.json").exists()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_generators_or_with_those_of_two_studies_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a generator"):
        load_generators(tmp_path, CPU)
    study = study_of_sites_alone(root, "ensemble")
    for seed in (4, 5):
        changed = study.model_copy(update={"seed": seed})
        save_weights(tmp_path / f"{seed}.safetensors", initial_parameters(changed), generator_metadata(changed, 1))
    with pytest.raises(DataError, match="2 generators, not all of one study"):
        load_generators(tmp_path, CPU)


def test_a_bad_file_among_an_ensembles_generators_is_named(root: Path, tmp_path: Path) -> None:
    study = study_of_sites_alone(root, "ensemble")
    save_weights(tmp_path / "good.safetensors", initial_parameters(study), generator_metadata(study, 1))
    (tmp_path / "worse.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"'worse\.safetensors' in a folder that was read as an ensemble's generators"):
        load_generators(tmp_path, CPU)


def test_an_ensembles_member_is_audited_with_its_own_sites_patients_and_no_others(root: Path, tmp_path: Path) -> None:
    copies, sites = root / "run" / "generators", root / "run" / "sites"
    assert paint(copies / "site-a.safetensors", tmp_path / "by-a") == 0
    named = ["--generator", str(copies / "site-a.safetensors"), "--synthetic", str(tmp_path / "by-a")]
    assert audit(root, sites / "site-a", *named, "--out", str(tmp_path / "audit")) == 6
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["counts"]["sites"] == 1
    # Site b's members never trained site a's generator: such an audit would find nothing, whatever a leaks.
    assert audit(root, sites / "site-b", *named, "--out", str(tmp_path / "wrong")) == 5
    assert not (tmp_path / "wrong").exists()
