"""The coordinator's checkpoints: whole or not believed, the newest wins, a few are kept."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from fedphantom.common.errors import DataError, StorageError
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.journal import Fact
from fedphantom.common.tensor_file import decode, encode
from fedphantom.server.checkpoints import (
    KEPT,
    Checkpoint,
    RoundRecord,
    latest_checkpoint,
    newest_round,
    read_checkpoint,
    write_checkpoint,
)


def checkpoint(number: int) -> Checkpoint:
    history = tuple(
        RoundRecord(n, ("site-a", "site-b"), (1.0, 1.0), {"site-c": "no reply"}, {"fake_mean": 0.5 * n}, 1.25)
        for n in range(1, number + 1)
    )
    aggregate = {"w": np.full((2, 2), number, np.float32)}
    average = {"w": np.full((2, 2), number / 2, np.float32)} if number else None
    return Checkpoint("d" * 64, number, aggregate, average, history)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    read = read_checkpoint(write_checkpoint(tmp_path, checkpoint(2)))
    assert (read.study_digest, read.round, read.history) == ("d" * 64, 2, checkpoint(2).history)
    assert parameters_digest(read.aggregate) == parameters_digest(checkpoint(2).aggregate)
    assert read.average is not None
    np.testing.assert_array_equal(read.average["w"], 1.0)


def test_what_a_round_told_of_its_sites_comes_back_and_a_checkpoint_from_before_there_was_any_is_read(
    tmp_path: Path,
) -> None:
    record = replace(
        checkpoint(1).history[0],
        epsilon={"site-a": 1.5},
        noised_steps={"site-a": 3},
        update_norms={"site-a": 0.1, "site-b": 2.5},
        cosines={"site-a": 0.75, "site-b": -0.25},
        scaled_back=("site-b",),
        trimmed=1,
        missed={"site-c": 4},
        given_up="nobody opened its sum",
    )
    path = write_checkpoint(tmp_path, replace(checkpoint(1), history=(record,)))
    assert read_checkpoint(path).history == (record,)
    arrays, facts = decode(path.read_bytes(), "checkpoint")
    (old,) = cast(list[dict[str, Fact]], facts["history"])
    for name in ("update_norms", "cosines", "scaled_back", "trimmed", "missed", "given_up"):
        del old[name]
    path.write_bytes(encode(arrays, facts))
    plain = replace(record, update_norms={}, cosines={}, scaled_back=(), trimmed=0, missed={}, given_up="")
    assert read_checkpoint(path).history == (plain,)


def test_the_servers_velocity_and_an_ensembles_members_come_back_too(tmp_path: Path) -> None:
    one, two = ({"w": np.full((2, 2), value, np.float32), "b/c": np.ones(1, np.float32)} for value in (1, 2))
    written = replace(checkpoint(1), velocity=one, members={"site-a": one, "site-b": two})
    read = read_checkpoint(write_checkpoint(tmp_path, written))
    assert read.velocity is not None
    assert parameters_digest(read.velocity) == parameters_digest(one)
    assert {site: parameters_digest(g) for site, g in read.members.items()} == {
        "site-a": parameters_digest(one),
        "site-b": parameters_digest(two),
    }
    assert read.generators().keys() == {"site-a", "site-b"}
    assert checkpoint(1).generators().keys() == {""}


def test_round_zero_has_no_average_yet(tmp_path: Path) -> None:
    assert read_checkpoint(write_checkpoint(tmp_path, checkpoint(0))).average is None


def test_the_newest_is_read_and_the_last_few_are_kept(tmp_path: Path) -> None:
    for number in range(12):
        write_checkpoint(tmp_path, checkpoint(number))
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.round == newest_round(tmp_path) == 11
    kept = [f"round-{n:05d}.safetensors" for n in range(12 - KEPT, 12)]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None
    assert newest_round(tmp_path) == -1


@pytest.mark.parametrize("damage", ["cut short", "one bit changed", "emptied", "replaced by text"])
def test_a_damaged_newest_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    path = write_checkpoint(tmp_path, checkpoint(2))
    whole = path.read_bytes()
    match damage:
        case "cut short":
            path.write_bytes(whole[:-5])
        case "one bit changed":
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "emptied":
            path.write_bytes(b"")
        case _:
            path.write_bytes(b"round two went well")
    believed = latest_checkpoint(tmp_path)
    assert believed is not None
    assert believed.round == 1


def test_when_all_are_damaged_that_is_said_rather_than_started_anew(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint(1)).write_bytes(b"")
    with pytest.raises(DataError, match="round-00001"):
        latest_checkpoint(tmp_path)


def test_a_stray_of_an_interrupted_write_is_not_believed(tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path, checkpoint(1)).read_bytes()
    (tmp_path / ".tmp-0123-round-00009.safetensors").write_bytes(whole)
    (tmp_path / "round-00009.safetensors.part").write_bytes(whole)
    assert newest_round(tmp_path) == 1


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, checkpoint(1))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError):
        write_checkpoint(tmp_path, checkpoint(2))
    monkeypatch.undo()
    assert latest_checkpoint(tmp_path) is not None
    assert newest_round(tmp_path) == 1
