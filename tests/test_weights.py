"""generator.safetensors and the tensor files under it: whole, listed facts only, the same bytes each time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_site import linear_generator, study_text
from safetensors.numpy import save_file

from fedphantom.common.errors import DataError, StorageError
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.gan.weights import METADATA, generator_metadata, load_weights, save_weights, study_of
from fedphantom.common.study import parse_study
from fedphantom.common.tensor_file import encode

STUDY = parse_study(study_text())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "generator.safetensors"
    save_weights(path, linear_generator(STUDY), generator_metadata(STUDY, 3))
    return path


def test_parameters_and_facts_come_back_as_they_were(file: Path) -> None:
    parameters, metadata = load_weights(file)
    assert parameters_digest(parameters) == parameters_digest(linear_generator(STUDY))
    assert metadata["rounds"] == "3"
    assert metadata["labels"] == "background=0,tumour=1"
    assert metadata["dp"] == "none"
    assert study_of(metadata) == STUDY


def test_the_same_content_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    turned = dict(reversed(list(linear_generator(STUDY).items())))
    save_weights(again, turned, dict(reversed(generator_metadata(STUDY, 3).items())))
    assert again.read_bytes() == file.read_bytes()


def test_a_changed_byte_anywhere_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= 0x01
        file.write_bytes(bytes(changed))
        with pytest.raises(DataError):
            load_weights(file)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_file_cut_short_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="cut short"):
        load_weights(file)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError):
        load_weights(tmp_path / "other.safetensors")


def test_a_fact_that_is_not_listed_is_neither_written_nor_read(file: Path) -> None:
    with pytest.raises(ValueError, match="patients"):
        save_weights(file, linear_generator(STUDY), {"patients": "sub-01"})
    file.write_bytes(encode(linear_generator(STUDY), {"patients": "sub-01"}))
    with pytest.raises(DataError, match="unknown entries") as refused:
        load_weights(file)
    assert "sub-01" not in str(refused.value)
    assert "patients" not in METADATA


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    broken = {"w": np.array([np.nan], np.float32)}
    with pytest.raises(DataError, match="NaN"):
        save_weights(tmp_path / "x.safetensors", broken, {})
    (tmp_path / "x.safetensors").write_bytes(encode(broken, {}))
    with pytest.raises(DataError, match="NaN"):
        load_weights(tmp_path / "x.safetensors")


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable weights file"):
        load_weights(tmp_path / "absent.safetensors")


def test_a_study_that_does_not_fit_its_digest_is_refused(file: Path) -> None:
    _, metadata = load_weights(file)
    with pytest.raises(DataError):
        study_of({**metadata, "study_digest": "0" * 64})


def test_a_full_disk_leaves_the_older_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="no space"):
        save_weights(file, linear_generator(STUDY), generator_metadata(STUDY, 4))
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@given(st.dictionaries(st.text(min_size=1, max_size=5), shapes, min_size=1, max_size=5), st.integers(0, 2**32))
def test_packing_and_unpacking_change_no_bit(drawn: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    parameters = {name: random.normal(size=shape).astype(np.float32) for name, shape in drawn.items()}
    spec = ParameterSpec.of(parameters)
    flat = spec.pack(parameters)
    assert flat.shape == (spec.values,)
    assert parameters_digest(spec.unpack(flat)) == parameters_digest(parameters)


def test_specifications_of_different_networks_have_different_digests() -> None:
    one = ParameterSpec.of({"w": np.zeros((2, 3), np.float32)})
    assert one.digest() != ParameterSpec.of({"w": np.zeros((3, 2), np.float32)}).digest()
    assert one.digest() != ParameterSpec.of({"v": np.zeros((2, 3), np.float32)}).digest()
    with pytest.raises(ValueError, match="expected"):
        one.unpack(np.zeros(7, np.float32))
