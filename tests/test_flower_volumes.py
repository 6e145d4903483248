"""Volumes alone over Flower: no array in any message, and a killed run that goes on to the same generators."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flower_messages import InProcessGrid, prepared
from flower_processes import flower_processes, wait_for
from flwr.app import Array, ArrayRecord, Message
from linear_run import contents, linear_simulation
from linear_site import cohorts_of, study_text

from fedphantom.common.wire import FLAT, GENERATOR
from fedphantom.server.app import run_study

SITES = ("site-a", "site-b", "site-c")
VOLUMES = study_text(rounds=1, deadline_s=120.0, federation='sharing = "volumes"')


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


@pytest.mark.usefixtures("identity")
def test_where_volumes_alone_are_shared_no_message_carries_an_array(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    heard: list[Message] = []

    class Listening(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message:
            heard.append(reply)
            return reply

    folder, grid = prepared(tmp_path / "out", cohorts, VOLUMES, Listening)
    assert run_study(grid, folder).checkpoint.history[0].sites == SITES
    for message in (*grid.sent, *heard):
        assert {name: dict(arrays) for name, arrays in message.content.array_records.items()} == {GENERATOR: {}}


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("values", [0, 1, 43], ids=["empty", "one value", "a generator's"])
def test_a_reply_with_an_array_is_left_out_where_volumes_alone_are_shared(
    tmp_path: Path, cohorts: dict[str, Path], values: int
) -> None:
    class Leaking(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message:
            if node == 3:
                reply.content[GENERATOR] = ArrayRecord({FLAT: Array(np.zeros(values, np.float32))})
            return reply

    folder, grid = prepared(tmp_path / "out", cohorts, VOLUMES, Leaking)
    record = run_study(grid, folder).checkpoint.history[0]
    assert record.sites == ("site-a", "site-c")
    assert "its reply is not laid out as agreed" in record.left_out.values()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL])
def test_a_run_that_shares_volumes_and_was_interrupted_in_its_round_goes_on_to_the_same_bits(
    tmp_path: Path, cohorts: dict[str, Path], number: signal.Signals
) -> None:
    two = {site: cohorts[site] for site in SITES[:2]}
    linear_simulation(tmp_path / "direct", two, text=VOLUMES)
    (tmp_path / "cohorts" / "study.toml").write_text(VOLUMES)
    (cohorts["site-b"] / "behaviour.json").write_text(json.dumps({"hold": True}))
    out = tmp_path / "out"
    program = [sys.executable, str(Path(__file__).parent / "fakes" / "linear_run.py")]
    arguments = [str(out), str(tmp_path / "cohorts"), "flower", *two]
    with subprocess.Popen([*program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for((out / "sites" / "site-a" / "generator.safetensors").exists, 120)
        run.send_signal(number)
    wait_for(lambda: not flower_processes(out), 40)
    assert not (out / "summary.json").exists()
    (cohorts["site-b"] / "behaviour.json").unlink()
    linear_simulation(out, two, "flower", VOLUMES)
    assert contents(out) == contents(tmp_path / "direct")
    journal = (out / "sites" / "site-a" / "journal.jsonl").read_text()
    assert journal.count('"generator-kept"') == 1
