"""The public start file: made from public scans alone, and taken only as the study names it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promised import promised_text, write_start
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError, DataError, FedPhantomError, PolicyRefused, VerificationFailed
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.gan.public_maps import PublicMaps
from fedphantom.common.gan.public_start import first_parameters, read_public_start
from fedphantom.common.labels.chain import LabelSource, label_digest
from fedphantom.common.labels.sampler import LabelSampler, PublicLabelMap
from fedphantom.common.study import Study, parse_study
from fedphantom.common.tensor_file import decode, encode
from fedphantom.privacy.study_summary import study_text

CPU = choose_device("cpu")


@pytest.fixture
def start(tmp_path: Path) -> tuple[Path, Study]:
    file = tmp_path / "start.safetensors"
    return file, parse_study(promised_text(write_start(file)))


def renamed(file: Path, study: Study) -> Study:
    """The study, naming the file as it is now."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return study.model_copy(update={"training": study.training.model_copy(update={"start": digest})})


def test_networks_means_and_label_maps_come_back_as_they_were_written(start: tuple[Path, Study]) -> None:
    read = read_public_start(*start)
    state = read.state(start[1], CPU)
    for name, value in state.discriminator.state_dict().items():
        assert np.array_equal(value.numpy(), read.discriminator[name])
    assert read.maps.shape == (4, 16, 16, 16)
    assert set(np.unique(read.maps)) == {0, 1, 4}
    assert read.means(CPU).centre.shape == (2, 4)


def test_the_generator_of_a_run_starts_from_it(start: tuple[Path, Study]) -> None:
    first = first_parameters(start[1], start[0])
    assert all(np.array_equal(first[name], value) for name, value in read_public_start(*start).generator.items())


def test_label_maps_are_varied_alike_everywhere_and_hold_classes(start: tuple[Path, Study]) -> None:
    study = start[1]
    sampler = read_public_start(*start).sampler(study)
    maps, again = PublicMaps(sampler, study), PublicMaps(sampler, study)
    assert np.array_equal(maps.classes, again.classes)
    assert maps.volumes.shape == (len(maps.classes), 0, 16, 16, 16)
    assert set(np.unique(maps.classes)) <= {0, 1, 2}
    assert len({one.tobytes() for one in maps.classes}) > len(maps.classes) / 2


def test_label_maps_that_nobody_declares_public_are_not_shown_to_a_generator(start: tuple[Path, Study]) -> None:
    """The training loop takes the type for it, so nothing else may make one."""
    study = start[1]
    labels = np.ones(study.grid.shape, np.uint8)
    private = LabelSource(kind="private", name="0" * 64, licence="private", sha256=label_digest(labels))
    sampler = LabelSampler([PublicLabelMap(labels, private)], study.public_labels, study.grid.spacing_mm)
    with pytest.raises(PolicyRefused, match="not declared public"):
        PublicMaps(sampler, study)
    with pytest.raises(TypeError):
        PublicMaps(np.zeros((1, 0, 16, 16, 16), np.float32), labels[None], study)  # type: ignore[call-arg, arg-type]


def test_another_file_than_the_study_names_is_refused(start: tuple[Path, Study]) -> None:
    file, study = start
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(VerificationFailed, match="other than the one that the study names"):
        read_public_start(file, study)


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text"])
def test_no_readable_start_is_said_so(start: tuple[Path, Study], damage: str) -> None:
    file, study = start
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes(b"" if damage == "empty" else b"not a start")
        study = renamed(file, study)
    with pytest.raises(DataError):
        read_public_start(file, study)


@pytest.mark.parametrize("lacking", ["generator.head.bias", "discriminator.head.bias", "means.centre", "map."])
def test_a_start_that_lacks_a_part_is_refused(start: tuple[Path, Study], lacking: str) -> None:
    file, study = start
    arrays, facts = decode(file.read_bytes(), "start")
    file.write_bytes(encode({n: a for n, a in arrays.items() if not n.startswith(lacking)}, facts))
    with pytest.raises(DataError, match="does not fit the study"):
        read_public_start(file, renamed(file, study))


@pytest.mark.parametrize(
    ("part", "value"),
    [("generator.head.bias", np.nan), ("means.scale", 0.0), ("means.centre", np.inf), ("map.0000", 7)],
)
def test_a_start_with_values_that_cannot_be_used_is_refused(start: tuple[Path, Study], part: str, value: float) -> None:
    file, study = start
    arrays, facts = decode(file.read_bytes(), "start")
    arrays[part] = np.full_like(arrays[part], value)
    file.write_bytes(encode(arrays, facts))
    with pytest.raises(DataError, match="does not fit the study"):
        read_public_start(file, renamed(file, study))


def test_a_study_that_names_none_is_told_how_to_make_one(start: tuple[Path, Study]) -> None:
    file, study = start
    without = study.model_copy(update={"training": study.training.model_copy(update={"start": None})})
    with pytest.raises(ConfigError, match="study pretrain"):
        read_public_start(file, without)


def paired_text(sha256: str, **options: Any) -> str:
    return tiny_text(**options).replace("[training]", f'[training]\nstart = "{sha256}"')


def test_a_study_of_paired_scans_may_go_out_from_one(tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    text = paired_text(write_start(file))
    study = parse_study(text)
    read = read_public_start(file, study)
    first = first_parameters(study, file)
    assert all(np.array_equal(first[name], value) for name, value in read.generator.items())
    cohort, spec = write_tiny_cohort(tmp_path / "cohort", 12), ParameterSpec.of(first)
    folder = create_site_folder(tmp_path / "site", "site-a", cohort, text, spec, start=file)
    state = LocalTrainer.open(folder.root).way.fresh_state()
    for network, parameters in ((state.generator, read.generator), (state.discriminator, read.discriminator)):
        assert all(np.array_equal(value.numpy(), parameters[name]) for name, value in network.state_dict().items())
    # What is trained to be compared with it, an audit's controls, sees no public scan.
    assert study.paired().training.start is None


def test_a_site_of_such_a_study_needs_the_very_file(tmp_path: Path) -> None:
    file, cohort = tmp_path / "start.safetensors", write_tiny_cohort(tmp_path / "cohort", 12)
    text = paired_text(write_start(file))
    spec = ParameterSpec.of(initial_parameters(parse_study(text)))
    with pytest.raises(FedPhantomError, match="no readable public start"):
        create_site_folder(tmp_path / "without", "site-a", cohort, text, spec)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(FedPhantomError, match="other than the one that the study names"):
        create_site_folder(tmp_path / "another", "site-a", cohort, text, spec, start=file)


def test_what_a_study_begins_with_is_shown() -> None:
    assert "begins with" not in study_text(parse_study(tiny_text()))
    shown = study_text(parse_study(paired_text("abcdef0123456789" * 4)))
    assert "a public start (abcdef0123456789): both networks, trained on public scans alone" in shown


def test_a_label_network_goes_out_from_none() -> None:
    text = paired_text("0" * 64).replace("[network]", '[network]\nmaps = "images-to-labels"')
    with pytest.raises(ConfigError, match=r"training\.start"):
        parse_study(text)


def test_a_start_for_a_study_that_goes_out_from_none_is_refused(start: tuple[Path, Study]) -> None:
    with pytest.raises(FedPhantomError, match="goes out from none"):
        first_parameters(parse_study(tiny_text()), start[0])


# study pretrain


def test_pretrain_makes_a_start_that_the_study_then_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, study, out = write_tiny_cohort(tmp_path / "public", 3), tmp_path / "study.toml", tmp_path / "start"
    study.write_text(promised_text("a" * 64).replace(f'start = "{"a" * 64}"', ""))
    given = ["study", "pretrain", str(study), str(out), "--public", str(cohort), "--steps", "3"]
    assert run([*given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scans"], told["maps"], told["steps"]) == (3, 3, 3)
    read_public_start(out, parse_study(promised_text(told["sha256"])))
    assert run(given) == 3  # it is there already
    assert "there already" in capsys.readouterr().err


def test_pretrain_refuses_patients_who_belong_to_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, study = write_tiny_cohort(tmp_path / "private", 3), tmp_path / "study.toml"
    table = cohort / "participants.tsv"
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    at = header.index("site")
    named = [header, *([*row[:at], "mercy", *row[at + 1 :]] for row in rows)]
    table.write_text("\n".join("\t".join(row) for row in named) + "\n")
    study.write_text(tiny_text())
    assert run(["study", "pretrain", str(study), str(tmp_path / "out"), "--public", str(cohort)]) == 3
    assert "none of them marked public" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
