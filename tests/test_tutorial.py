"""The two-machine tutorial, typed as it stands in network namespaces; then what a coordinator or stranger might try."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tutorial import HOSPITALS, PORT, TUTORIAL, Tutorial, lines, tutorial
from two_networks import ADDRESS, COORDINATOR, networks_problem

from fedphantom.common.flower_programs import QUIET
from fedphantom.common.gan.weights import load_weights, study_of
from fedphantom.common.journal import read_journal, verify_journal
from fedphantom.common.site_folder import REPLY_LEFT
from fedphantom.common.study import read_study

pytestmark = [pytest.mark.slow, pytest.mark.network]

HOSTILE_SERVER = """
import json, sys, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    sent = [Message(RecordDict({"c": ConfigRecord({"x": 1})}), node, MessageType.TRAIN) for node in nodes]
    waiting, told = set(grid.push_messages(sent)), []
    deadline = time.monotonic() + 60
    while waiting and time.monotonic() < deadline:
        for reply in grid.pull_messages(sorted(waiting)):
            waiting.discard(reply.metadata.reply_to_message_id)
            told.append([reply.has_error(), reply.error.code if reply.has_error() else 0,
                         reply.error.reason if reply.has_error() else ""])
        time.sleep(0.5)
    Path(RESULT).write_text(json.dumps(told))
"""

HOSTILE_CLIENT = """
from pathlib import Path
Path(MARKER).write_text("this ran at a hospital")
from flwr.clientapp import ClientApp
app = ClientApp()
"""


def test_every_line_is_somebodys() -> None:
    assert {role for role, _ in lines()} == {COORDINATOR, *HOSPITALS}
    assert len(lines()) == TUTORIAL.read_text().count("$ fedphantom ") + 1  # and the one that sets the rounds


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tutorial]:
    """The three terminals once everything was typed; the sites still serve."""
    if problem := networks_problem():
        pytest.skip(problem)
    with tutorial(tmp_path_factory.mktemp("tutorial")) as terminals:
        for role, command in lines():
            terminals.type(role, command)
        yield terminals


def inside(terminals: Tutorial, role: str, program: str) -> str:
    """What a Python program prints in a role's network."""
    command = terminals.networks.inside(role, [sys.executable, "-c", program])
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout.strip()


def reached(terminals: Tutorial, role: str, host: str, port: int) -> bool:
    program = f"import socket; socket.create_connection(({host!r}, {port}), 3); print('reached')"
    return inside(terminals, role, program) == "reached"


def answer(terminals: Tutorial, role: str, path: str) -> str:
    """Status of a POST at the coordinator's door, as a hospital asks it."""
    authority = terminals.folder(role) / "site" / "authority.crt"
    return inside(
        terminals,
        role,
        f"import http.client, ssl; c = http.client.HTTPSConnection({ADDRESS!r}, {PORT}, timeout=10,"
        f" context=ssl.create_default_context(cafile={str(authority)!r}));"
        f" c.request('POST', {path!r}, b'x'); print(c.getresponse().status)",
    )


def test_three_rounds_are_done_and_every_site_answered_each(typed: Tutorial) -> None:
    federation = typed.folder(COORDINATOR) / "federation"
    _, metadata = load_weights(federation / "run" / "generator.safetensors")
    assert study_of(metadata).digest() == read_study(federation / "study.toml").digest()
    summary = json.loads((federation / "run" / "summary.json").read_text())
    assert [record["sites"] for record in summary["rounds"]] == [list(HOSPITALS)] * 3
    for hospital in HOSPITALS:
        journal = typed.folder(hospital) / "site" / "journal.jsonl"
        verify_journal(journal)
        left = [entry.facts["round"] for entry in read_journal(journal) if entry.event == REPLY_LEFT]
        assert left == [1, 2, 3]


def test_the_doctor_finds_nothing_red_before_the_first_round(typed: Tutorial) -> None:
    """The line itself would have ended the tutorial with 3."""
    told = typed.said[HOSPITALS[0]]
    assert " 0 red" in told
    assert "signed by the study's own authority" in " ".join(told.replace("│", " ").split())


def test_what_stays_says_what_happens_as_json_lines_too(typed: Tutorial) -> None:
    for role, folder, expected in (
        (HOSPITALS[0], "site", ["started", "ready", *["reply-left"] * 3]),
        (COORDINATOR, "federation", ["enrolled", "serving"]),
    ):
        text = (typed.folder(role) / folder / "log.jsonl").read_text()
        events = [json.loads(line) for line in text.splitlines()]
        assert [event["event"] for event in events][: len(expected)] == expected
        assert {event["level"] for event in events} == {"info"}
        assert str(typed.root) not in text


def test_a_hospital_reaches_the_coordinators_door_and_nothing_else(typed: Tutorial) -> None:
    here, there = HOSPITALS
    assert reached(typed, here, ADDRESS, PORT)
    assert not reached(typed, here, ADDRESS, 9200)
    assert not reached(typed, here, "10.77.2.2", 22)
    assert answer(typed, there, "/v1/control/start-run") == "404"
    assert answer(typed, there, "/v1/fleet/register-node") == "404"


def test_a_bundle_with_code_runs_nowhere_and_its_sender_is_told_no_detail(typed: Tutorial, tmp_path: Path) -> None:
    result, marker, app = tmp_path / "told.json", tmp_path / "marker", tmp_path / "app"
    app.mkdir()
    (app / "hostile_server.py").write_text(f"RESULT = {str(result)!r}\n{HOSTILE_SERVER}")
    (app / "hostile_client.py").write_text(f"MARKER = {str(marker)!r}\n{HOSTILE_CLIENT}")
    (app / "pyproject.toml").write_text(
        '[project]\nname = "hostile"\nversion = "1.0.0"\ndescription = "x"\nlicense = "Apache-2.0"\n'
        '[tool.flwr.app]\npublisher = "someone"\n[tool.flwr.app.components]\n'
        'serverapp = "hostile_server:app"\nclientapp = "hostile_client:app"\n'
    )
    federation = typed.folder(COORDINATOR) / "federation"
    inside(
        typed,
        COORDINATOR,
        "from pathlib import Path; from fedphantom.server.coordinator.folder import CoordinatorFolder;"
        " from fedphantom.server.coordinator.serving import control_of;"
        f" control_of(CoordinatorFolder(Path({str(federation)!r}))).submit(Path({str(app)!r}))",
    )
    for _ in range(120):
        if result.exists():
            break
        subprocess.run(["sleep", "0.5"], check=True)
    told = json.loads(result.read_text())
    assert [(failed, code) for failed, code, _ in told] == [(True, 1)] * len(HOSPITALS)
    assert not any("fedphantom" in reason or "/" in reason for _, _, reason in told)
    assert not marker.exists()
    for hospital in HOSPITALS:
        site = typed.folder(hospital) / "site"
        refusals = [entry for entry in read_journal(site / "journal.jsonl") if entry.event == "bundle-refused"]
        assert len(refusals) == 1
        assert "other files than a configuration" in str(refusals[0].facts["reason"])
        assert not [*site.glob("node/home/apps/**/*.py")]


def refused_by_the_superlink(typed: Tutorial, key: Path, scratch: Path) -> bool:
    """Whether a node with this key, in the first hospital's network, is refused by Flower's code for that."""
    authority = typed.folder(HOSPITALS[0]) / "site" / "authority.crt"
    command = [
        *("flower-supernode", "--superlink", f"{ADDRESS}:{PORT}", "--root-certificates", str(authority)),
        *("--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", "9999"),
    ]
    # Into a file: what it started holds a pipe open for longer than it lives.
    with (scratch / "log").open("wb") as log:
        refused = subprocess.run(
            typed.networks.inside(HOSPITALS[0], command),
            env={**typed.environment(), **QUIET, "FLWR_HOME": str(scratch / "home")},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    return refused.returncode == 1 and "305" in (scratch / "log").read_text()


def test_a_key_that_nobody_enrolled_is_not_let_in(typed: Tutorial, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", tmp_path / "key"], check=True)
    assert refused_by_the_superlink(typed, tmp_path / "key", tmp_path)


def test_a_revoked_site_is_put_out_and_the_coordinator_says_so(typed: Tutorial, tmp_path: Path) -> None:
    """Last: the federation is of one site afterwards."""
    gone, stays = HOSPITALS
    typed.type(COORDINATOR, f"fedphantom server revoke federation {gone} --reason 'left the consortium'")
    for _ in range(60):
        facts = json.loads(typed.type(COORDINATOR, "fedphantom server status federation --json"))
        nodes = json.loads((typed.folder(COORDINATOR) / "federation" / "superlink" / "nodes.json").read_text())
        if [node["site"] for node in nodes] == [stays]:
            break
        subprocess.run(["sleep", "0.5"], check=True)
    assert [node["site"] for node in nodes] == [stays]
    assert facts["revoked"] == [gone]
    assert refused_by_the_superlink(typed, typed.folder(gone) / "site" / "keys" / "node", tmp_path)
