"""Secure rounds over Flower: its messages in one process, and real processes on loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flower_messages import InProcessGrid
from flower_processes import flower_processes
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from linear_run import linear_simulation
from linear_site import UNSAYABLE, LinearTrainer, linear_generator, order
from secure_run import cohorts_in, prepared_run, secure_text

from fedphantom.client.app import make_client_app
from fedphantom.common.errors import PeerError, PolicyRefused
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.journal import read_journal
from fedphantom.common.sayable import ROUND_OVER
from fedphantom.common.wire import FAILURE, FLAT, GENERATOR, MASKED, METRICS, QUESTION
from fedphantom.server.app import run_study
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder

FOUR = tuple(f"site-{letter}" for letter in "abcd")

pytestmark = pytest.mark.usefixtures("unflushed")


def over_messages(
    out: Path, cohorts: dict[str, Path], text: str, grid: type[InProcessGrid] = InProcessGrid
) -> tuple[RunFolder, InProcessGrid]:
    folder = prepared_run(out, cohorts, text)
    study = folder.claimed()[0]
    Rounds.open(study, folder, tuple(cohorts), linear_generator(study))
    return folder, grid(make_client_app(LinearTrainer.open), [folder.site(name) for name in cohorts])


@pytest.mark.usefixtures("identity")
def test_flower_messages_give_the_same_generator_as_direct_calls(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    order(cohorts["site-b"], fail=[2])
    direct = linear_simulation(tmp_path / "direct", cohorts, text=secure_text())
    folder, grid = over_messages(tmp_path / "flower", cohorts, secure_text())
    rounds = run_study(grid, folder)
    folder.write_results(rounds.study, rounds.sites, rounds.checkpoint, "flower")
    assert folder.generator.read_bytes() == direct.generator.read_bytes()
    assert [record.sites for record in rounds.checkpoint.history] == [record.sites for record in direct.rounds]
    assert rounds.checkpoint.history[1].left_out == {"site-b": "the site's cohort needs mending"}


@pytest.mark.usefixtures("identity")
def test_what_a_site_sends_holds_a_masked_array_and_no_generator(tmp_path: Path) -> None:
    replies: list[Message] = []

    class Listening(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message:
            replies.append(reply)
            return reply

    folder, grid = over_messages(tmp_path / "out", cohorts_in(tmp_path), secure_text(rounds=1), Listening)
    run_study(grid, folder)
    values = ParameterSpec.of(linear_generator(folder.claimed()[0])).values
    assert len(replies) == 4 * 4
    for reply in replies:
        arrays = reply.content.array_records
        if arrays:
            assert set(reply.content) == {QUESTION, GENERATOR, METRICS}
            assert set(arrays[GENERATOR]) == {MASKED}
            assert arrays[GENERATOR][MASKED].dtype == "uint32"
            assert len(arrays[GENERATOR][MASKED].numpy()) == values
        else:
            assert set(reply.content) == {QUESTION}


@pytest.mark.usefixtures("identity")
def test_a_plain_request_to_a_site_of_a_secure_study_brings_no_generator(tmp_path: Path) -> None:
    """A coordinator that asks as for a plain round: it drops the word from its own copy of the study."""

    class Plain(InProcessGrid):
        def push_messages(self, messages):  # type: ignore[no-untyped-def]  # as the base
            changed = list(messages)
            for message in changed:
                if message.metadata.message_type == "train.masked":
                    message.metadata.__dict__["_message_type"] = "train"
            return super().push_messages(changed)

        def change(self, node: int, reply: Message) -> Message:
            assert not reply.content.array_records
            return reply

    folder, grid = over_messages(tmp_path / "out", cohorts_in(tmp_path), secure_text(rounds=1), Plain)
    with pytest.raises(PolicyRefused, match="the site's policy refused the round"):
        run_study(grid, folder)


def _tampered(kind: str, asked: Message, reply: Message) -> Message | None:
    content = reply.content
    record, array = content.config_records[QUESTION], content.array_records[GENERATOR][MASKED]
    match kind:
        case "silent":
            return None
        case "error":
            return Message(Error(code=2, reason=UNSAYABLE), reply_to=asked)
        case "no question":
            del content[QUESTION]
        case "longer":
            content[GENERATOR] = ArrayRecord({MASKED: Array(np.append(array.numpy(), np.uint32(1)))})
        case "a plain array":
            content[GENERATOR] = ArrayRecord({FLAT: Array(array.numpy().astype(np.float32))})
        case "another session":
            content[QUESTION] = ConfigRecord({**record, "session": "0" * 64})
        case "another site's name":
            content[QUESTION] = ConfigRecord({**record, "site": "site-a"})
        case "another weight":
            content[METRICS]["weight"] = 7.0
    reply.content = content
    return reply


NOT_AGREED = "its reply is not laid out as agreed"
TAMPERING = {
    "silent": "no reply",
    "error": "its node failed (Flower code 2)",
    "no question": NOT_AGREED,
    "longer": NOT_AGREED,
    "a plain array": NOT_AGREED,
    "another session": NOT_AGREED,
    "another site's name": "it changed its name",
    "another weight": "its weight is not the one that the study declares",
}


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize(("kind", "reason"), TAMPERING.items(), ids=TAMPERING.keys())
def test_a_masked_reply_that_is_not_as_agreed_is_left_out_of_the_sum(tmp_path: Path, kind: str, reason: str) -> None:
    class Tampering(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message | None:
            masked = reply.content.array_records if reply.has_content() else None
            return _tampered(kind, self.sent[-1], reply) if node == 3 and masked else reply

    text = secure_text(rounds=1, deadline_s=0.3)
    folder, grid = over_messages(tmp_path / "out", cohorts_in(tmp_path), text, Tampering)
    rounds = run_study(grid, folder)
    (record,) = rounds.checkpoint.history
    assert record.sites == ("site-a", "site-c", "site-d")
    assert record.left_out == {"site-b": reason}
    assert UNSAYABLE not in folder.journal.read_text()


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize(
    ("action", "named"),
    [("query.shares", "site-a"), ("train.masked", "site-a"), ("train.masked", "site-d"), ("query.sum", "site-d")],
)
def test_an_answer_in_another_sites_name_is_not_that_sites(tmp_path: Path, action: str, named: str) -> None:
    """Site b's node answers after site d's and before site a's: either could be put aside by whoever believed it."""

    class Impostor(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message:
            if node == 3 and self.sent[-1].metadata.message_type == action:
                content = reply.content
                content[QUESTION] = ConfigRecord({**content.config_records[QUESTION], "site": named})
                reply.content = content
            return reply

    folder, grid = over_messages(tmp_path / "out", cohorts_in(tmp_path), secure_text(rounds=1), Impostor)
    (record,) = run_study(grid, folder).checkpoint.history
    impostor_is_in = action == "query.sum"  # its input came before
    assert record.sites == (FOUR if impostor_is_in else ("site-a", "site-c", "site-d"))
    assert record.left_out == ({} if impostor_is_in else {"site-b": "it changed its name"})


@pytest.mark.usefixtures("identity")
def test_a_failures_site_is_one_of_the_run_or_unknown(tmp_path: Path) -> None:
    """What a node writes there goes to the coordinator's terminal and journal."""
    forged = "site-a\x1b[2J\nround 3 is done; generator released" + "x" * 5000

    class Forging(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message:
            if node == 3:
                reply.content = RecordDict({FAILURE: ConfigRecord({"site": forged, "reason": "it\x1b[2J\nrefused"})})
            return reply

    folder, grid = over_messages(tmp_path / "out", cohorts_in(tmp_path, "abc"), secure_text(rounds=1), Forging)
    with pytest.raises(PeerError) as failed:
        run_study(grid, folder)
    assert "(unknown: it[2Jrefused)" in failed.value.found
    (left_out,) = [e.facts for e in read_journal(folder.journal) if e.event == "site-left-out"]
    assert left_out == {"round": 1, "site": "unknown", "reason": "it[2Jrefused"}


class Killed(InProcessGrid):
    """Ends the coordinator once two sites have opened their first sum."""

    def push_messages(self, messages):  # type: ignore[no-untyped-def]  # as the base
        for message in (asked := list(messages)):
            if message.metadata.message_type == "query.sum" and message.metadata.dst_node_id == 4:
                super().push_messages(asked[:2])
                raise KeyboardInterrupt
        return super().push_messages(asked)


@pytest.mark.usefixtures("identity")
def test_a_round_that_sites_call_over_is_given_up_over_flower_as_well(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    folder, grid = over_messages(tmp_path / "out", cohorts, secure_text(), Killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(grid, folder)
    shutil.rmtree(folder.root / "secure")
    _, grid = over_messages(tmp_path / "out", cohorts, secure_text())
    history = run_study(grid, folder).checkpoint.history
    assert [record.sites for record in history] == [(), FOUR, FOUR]
    assert f"site-a: {ROUND_OVER}; site-b: {ROUND_OVER}" in history[0].given_up


@pytest.mark.usefixtures("identity")
def test_a_coordinator_killed_while_the_sum_is_opened_goes_on_with_the_same(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    folder, grid = over_messages(tmp_path / "out", cohorts, secure_text(), Killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(grid, folder)
    _, grid = over_messages(tmp_path / "out", cohorts, secure_text())
    rounds = run_study(grid, folder)
    assert [record.sites for record in rounds.checkpoint.history] == [FOUR] * 3
    direct = linear_simulation(tmp_path / "direct", cohorts, text=secure_text())
    folder.write_results(rounds.study, rounds.sites, rounds.checkpoint, "flower")
    assert folder.generator.read_bytes() == direct.generator.read_bytes()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("importable")
def test_real_flower_processes_give_the_same_file(tmp_path: Path) -> None:
    three = cohorts_in(tmp_path, "abc")
    direct = linear_simulation(tmp_path / "direct", three, text=secure_text(rounds=2))
    flower = linear_simulation(tmp_path / "flower", three, "flower", secure_text(rounds=2))
    assert flower.generator.read_bytes() == direct.generator.read_bytes()
    assert flower_processes(tmp_path / "flower") == []


def test_a_site_answers_questions_without_a_network_in_memory() -> None:
    """Each answer is a process of its own: what it loads, a round waits for."""
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from fedphantom.client import app; from fedphantom.client.node import permission;"
            " print('torch' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout == "False\n"
