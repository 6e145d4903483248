"""Replies wait on the disk: what goes in comes out, block by block, and nothing stays behind."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedphantom.common.errors import StorageError
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.server import reply_spool
from fedphantom.server.aggregation import receive_replies
from fedphantom.server.reply_spool import ReplySpool

SHAPES = {"a.weight": (3, 4, 5), "b.bias": (7,), "c.scale": ()}
SPEC = ParameterSpec(tuple(sorted(SHAPES.items())))


def generator(seed: int) -> Parameters:
    random = np.random.default_rng(seed)
    return {name: np.asarray(random.normal(size=shape), np.float32) for name, shape in SHAPES.items()}


def test_each_generator_comes_back_as_it_was(tmp_path: Path) -> None:
    with ReplySpool(tmp_path, SPEC) as spool:
        slots = [spool.add(generator(seed)) for seed in range(4)]
        for seed in (2, 0, 3, 1):
            assert parameters_digest(spool.generator(slots[seed])) == parameters_digest(generator(seed))


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_blocks_hold_the_same_values_of_every_generator_in_the_order_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(reply_spool, "BLOCK_VALUES", block)
    with ReplySpool(tmp_path, SPEC) as spool:
        slots = [spool.add(generator(seed)) for seed in range(3)]
        for name in SHAPES:
            blocks = list(spool.blocks(name, [slots[2], slots[0]]))
            assert max(rows.shape[1] for _, rows in blocks) <= max(1, block // 2)
            got = np.concatenate([rows for _, rows in blocks], axis=1)
            np.testing.assert_array_equal(got, [generator(2)[name].ravel(), generator(0)[name].ravel()])
            assert [b.start for b, _ in blocks] == [0, *(b.stop for b, _ in blocks[:-1])]


def test_where_no_weights_travel_a_slot_holds_nothing(tmp_path: Path) -> None:
    with ReplySpool(tmp_path, ParameterSpec(())) as spool:
        assert spool.generator(spool.add({})) == {}


def test_nothing_lies_in_the_folder_by_any_name(tmp_path: Path) -> None:
    with ReplySpool(tmp_path, SPEC) as spool:
        spool.add(generator(1))
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with ReplySpool(tmp_path, SPEC) as spool, pytest.raises(StorageError, match="no space"):
        spool.add(generator(1))


def test_a_reply_is_let_go_before_the_next_is_fetched(tmp_path: Path) -> None:
    alive: list[weakref.ref[Any]] = []
    sites = [f"site-{n}" for n in range(5)]

    def outcomes() -> Iterator[RoundReply]:
        for n, site in enumerate(sites):
            assert [one for one in alive if one() is not None] == []
            reply = RoundReply(site, 1, generator(n), 1.0, {})
            alive.extend(weakref.ref(array) for array in reply.generator.values())
            yield reply
            del reply

    request = RoundRequest("d" * 64, 1, generator(9))
    with ReplySpool(tmp_path, SPEC) as spool:
        replies, _ = receive_replies(outcomes(), request, dict.fromkeys(sites, 1.0), spool)
    assert [reply.site for reply in replies] == sites
    assert len(alive) == len(SHAPES) * len(sites)
