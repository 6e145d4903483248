"""The same rounds through Flower: messages in one process, and real processes on loopback."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flower_messages import InProcessGrid, prepared
from flower_processes import flower_processes, wait_for
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from linear_run import contents, linear_simulation
from linear_site import UNSAYABLE, cohorts_of, order, study_text
from numpy.lib import format as npy

from fedphantom.common.errors import PeerError
from fedphantom.common.flower_bundle import bundle_text
from fedphantom.common.flower_programs import QUIET
from fedphantom.common.wire import FAILURE, FLAT, GENERATOR, HEADER, METRICS
from fedphantom.server.app import run_study

SITES = ("site-a", "site-b", "site-c")


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


SHARED = {
    "an average": study_text(),
    "with momentum": study_text(federation="server_momentum = 0.5"),
    "bounded and trimmed in half precision": study_text(
        quorum=3, federation='norm_bound = 0.5\ntrimmed_mean = 0.34\ntransport = "float16"'
    ),
    "an ensemble": study_text(rounds=1, federation='sharing = "ensemble"'),
    "volumes alone": study_text(rounds=1, federation='sharing = "volumes"'),
}


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED.keys())
def test_flower_messages_give_the_same_generator_as_direct_calls(
    tmp_path: Path, cohorts: dict[str, Path], text: str
) -> None:
    linear_simulation(tmp_path / "direct", cohorts, text=text)
    folder, grid = prepared(tmp_path / "flower", cohorts, text)
    rounds = run_study(grid, folder)
    folder.write_results(rounds.study, rounds.sites, rounds.checkpoint, "flower")
    assert contents(tmp_path / "direct")
    assert contents(folder.root) == contents(tmp_path / "direct")


@pytest.mark.usefixtures("identity")
def test_a_message_carries_one_packed_array_and_nothing_a_site_would_trust(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1))
    run_study(grid, folder)
    content = grid.sent[0].content
    assert set(content) == {GENERATOR, HEADER}
    assert set(content.array_records[GENERATOR]) == {FLAT}
    assert set(content.config_records[HEADER]) == {"study-digest", "round", "layout"}


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("kind", ["fail", "crash"])
def test_what_a_failing_site_says_holds_neither_path_nor_patient(
    tmp_path: Path, cohorts: dict[str, Path], kind: str
) -> None:
    heard: list[str] = []

    class Listening(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message:
            heard.append(f"{reply.content if reply.has_content() else reply.error.reason}")
            return reply

    order(cohorts["site-b"], **{kind: [2]})
    folder, grid = prepared(tmp_path / "out", cohorts, grid=Listening)
    rounds = run_study(grid, folder)
    assert not any(UNSAYABLE in text or "sub-0042" in text or "site-b/" in text for text in heard)
    assert [record.sites for record in rounds.checkpoint.history] == [SITES, ("site-a", "site-c"), SITES]
    assert UNSAYABLE in (folder.site("site-b") / "errors.log").read_text()


@pytest.mark.usefixtures("identity")
def test_a_site_without_a_folder_answers_all_the_same(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1))
    (folder.site("site-b") / "site.toml").unlink()
    rounds = run_study(grid, folder)
    assert rounds.checkpoint.history[0].sites == ("site-a", "site-c")


def _tampered(kind: str, reply: Message) -> Message | None:
    content = reply.content
    flat = content.array_records[GENERATOR][FLAT].numpy()
    metrics, header = content.metric_records[METRICS], content.config_records[HEADER]
    match kind:
        case "silent":
            return None
        case "error":
            return Message(Error(code=2, reason=UNSAYABLE), reply_to=reply)
        case "empty":
            content = RecordDict()
        case "longer":
            content[GENERATOR] = ArrayRecord({FLAT: Array(np.append(flat, np.float32(1)))})
        case "NaN":
            content[GENERATOR] = ArrayRecord({FLAT: Array(np.full_like(flat, np.nan))})
        case "float64":
            content[GENERATOR] = ArrayRecord({FLAT: Array(flat.astype(np.float64))})
        case "not an array":
            content[GENERATOR] = ArrayRecord({FLAT: Array("float32", flat.shape, "numpy.ndarray", b"\x80\x04pickle")})
        case "an archive":
            archive = BytesIO()
            np.savez(archive, flat=flat)
            content[GENERATOR] = ArrayRecord({FLAT: Array("float32", flat.shape, "numpy.ndarray", archive.getvalue())})
        case "a header that claims all memory":
            header_of = BytesIO()
            npy.write_array_header_1_0(header_of, {"descr": "<f4", "fortran_order": False, "shape": (2**58,)})
            data = header_of.getvalue() + flat.tobytes()
            content[GENERATOR] = ArrayRecord({FLAT: Array("float32", flat.shape, "numpy.ndarray", data)})
        case "no bytes":
            content[GENERATOR] = ArrayRecord({FLAT: Array("float32", flat.shape, "numpy.ndarray", b"")})
        case "half precision unasked":
            content[GENERATOR] = ArrayRecord({FLAT: Array(flat.astype(np.float16))})
        case "another layout":
            content[HEADER] = ConfigRecord({**header, "layout": "0" * 64})
        case "another round":
            content[HEADER] = ConfigRecord({**header, "round": 9})
        case "another site's name":
            content[HEADER] = ConfigRecord({**header, "site": "site-a"})
        case "no weight":
            content[METRICS] = MetricRecord({})
        case "weight NaN":
            content[METRICS] = MetricRecord({**metrics, "weight": float("nan")})
        case "failure with a long text":
            content = RecordDict({FAILURE: ConfigRecord({"site": "site-b", "reason": "x\n" * 10_000})})
    reply.content = content
    return reply


TAMPERING = [
    "silent", "error", "empty", "longer", "NaN", "float64", "not an array", "an archive",
    "a header that claims all memory", "no bytes", "half precision unasked", "another layout", "another round",
    "no weight", "weight NaN", "failure with a long text",
]  # fmt: skip


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("kind", TAMPERING)
def test_a_reply_that_is_not_as_agreed_is_left_out(tmp_path: Path, cohorts: dict[str, Path], kind: str) -> None:
    class Tampering(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message | None:
            return _tampered(kind, reply) if node == 3 else reply

    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1, deadline_s=1.0), Tampering)
    rounds = run_study(grid, folder)
    assert rounds.checkpoint.history[0].sites == ("site-a", "site-c")
    assert UNSAYABLE not in folder.journal.read_text()
    assert folder.journal.stat().st_size < 4000


@pytest.mark.usefixtures("identity")
def test_a_site_that_answers_in_anothers_name_gains_no_second_vote(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    class Impostor(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message | None:
            second = len(self.sent) > len(SITES)
            return _tampered("another site's name", reply) if node == 3 and second else reply

    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=2), Impostor)
    rounds = run_study(grid, folder)
    assert rounds.checkpoint.history[1].sites == ("site-a", "site-c")
    assert rounds.checkpoint.history[1].left_out == {"site-b": "it answered in another site's name"}


@pytest.mark.usefixtures("identity")
def test_an_error_that_the_superlink_made_for_a_dead_node_is_told_of_its_site(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    class Dying(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message | None:
            if node != 3 or len(self.sent) <= len(SITES):
                return reply
            error = Message(Error(code=5, reason=UNSAYABLE), reply_to=self.sent[-1])
            error.metadata.__dict__["_src_node_id"] = 1
            return error

    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=2), Dying)
    rounds = run_study(grid, folder)
    assert rounds.checkpoint.history[1].left_out == {"site-b": "its node failed (Flower code 5)"}


@pytest.mark.usefixtures("identity")
def test_too_few_nodes_until_the_deadline_end_the_run(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(deadline_s=0.3))
    grid.contexts = {node: context for node, context in grid.contexts.items() if node == 2}
    with pytest.raises(PeerError, match="1 of 3 sites connected"):
        run_study(grid, folder)


@pytest.mark.usefixtures("identity")
def test_a_quorum_goes_on_when_the_rest_does_not_come(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1, deadline_s=0.3))
    del grid.contexts[3]
    assert run_study(grid, folder).checkpoint.history[0].left_out == {"site-b": "no reply"}


@pytest.mark.usefixtures("identity")
def test_the_study_s_round_goes_on_after_a_resume(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    direct = linear_simulation(tmp_path / "direct", cohorts, text=study_text(quorum=3))
    order(cohorts["site-a"], crash=[3])
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(quorum=3))
    with pytest.raises(PeerError, match="round 3"):
        run_study(grid, folder)
    order(cohorts["site-a"])
    rounds = run_study(grid, folder)
    folder.write_results(rounds.study, rounds.sites, rounds.checkpoint, "flower")
    assert folder.generator.read_bytes() == direct.generator.read_bytes()


def test_the_bundle_names_installed_code_and_carries_none() -> None:
    app = tomllib.loads(bundle_text("0" * 64))["tool"]["flwr"]["app"]
    assert app["fab-include"] == ["pyproject.toml"]
    assert app["components"] == {"serverapp": "fedphantom.server.app:app", "clientapp": "fedphantom.client.app:app"}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("importable")
def test_real_flower_processes_give_the_same_file_and_leave_none_behind(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    two = {site: cohorts[site] for site in SITES[:2]}
    direct = linear_simulation(tmp_path / "direct", two, text=study_text(rounds=2))
    seen: list[int] = []
    out = tmp_path / "flower"
    flower = linear_simulation(out, two, "flower", study_text(rounds=2), lambda record: seen.append(record.round))
    assert flower.generator.read_bytes() == direct.generator.read_bytes()
    assert seen == [1, 2]
    assert flower_processes(out) == []


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("importable")
def test_a_failed_round_over_real_processes_names_the_site_and_nothing_else(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    two = {site: cohorts[site] for site in SITES[:2]}
    order(cohorts["site-b"], crash=[1])
    with pytest.raises(PeerError, match="site-b: training failed unexpectedly") as failed:
        linear_simulation(tmp_path / "out", two, "flower", study_text(rounds=1))
    assert "sub-0042" not in str(failed.value)
    assert UNSAYABLE not in "".join(path.read_text() for path in (tmp_path / "out" / "flower").glob("superlink.log"))
    assert flower_processes(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_goes_on_to_the_same_bits(
    tmp_path: Path, cohorts: dict[str, Path], number: signal.Signals
) -> None:
    two = {site: cohorts[site] for site in SITES[:2]}
    direct = linear_simulation(tmp_path / "direct", two)
    program = [sys.executable, str(Path(__file__).parent / "fakes" / "linear_run.py")]
    out = tmp_path / "out"
    arguments = [str(out), str(tmp_path / "cohorts"), "flower", *two]
    with subprocess.Popen([*program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "round 1\n"
        run.send_signal(number)
    wait_for(lambda: not flower_processes(out), 40)
    resumed = linear_simulation(out, two)
    assert resumed.generator.read_bytes() == direct.generator.read_bytes()


def test_every_process_is_told_to_stay_silent() -> None:
    assert QUIET["FLWR_TELEMETRY_ENABLED"] == "0"
    assert QUIET["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert QUIET["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
