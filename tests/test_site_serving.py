"""``site start``: what is told of rounds, and when ``--once`` ends. Flower's place is taken by a script."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deployed_site import approve_as_it_stands, deploy

from fedphantom.cli import run as fedphantom
from fedphantom.client.node import connection, serving
from fedphantom.client.node.answers import REPLY_ARRIVED
from fedphantom.client.node.doctor.link import check_link
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.serving import serve
from fedphantom.client.node.status import site_facts, site_text
from fedphantom.client.node.supernode import SuperNode
from fedphantom.common.errors import ConfigError, PeerError, PolicyRefused
from fedphantom.common.journal import read_journal
from fedphantom.common.site_folder import SiteFolder

ANSWERED = [("reply-left", {"round": 1, "bytes": 4_000_000})]
IN_A_SUM = [("masked-left", {"round": 1, "what": what, "bytes": 1_000_000}) for what in ("keys", "shares", "input")]
OPENED = [("masked-left", {"round": 1, "what": "sum", "bytes": 100})]
FAILED = [("round-failed", {"round": 1, "kind": "DataError"})]
SENT = "Sent successfully"

Events = Sequence[tuple[str, dict[str, object]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SiteFolder:
    return approve_as_it_stands(deploy(tmp_path_factory.mktemp("serving")).site)


@pytest.fixture
def site(made: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> SiteFolder:
    monkeypatch.setattr(serving, "_POLL_S", 0.05)
    monkeypatch.setattr(serving, "FETCHED_S", 0.0)
    return made


def node_does(monkeypatch: pytest.MonkeyPatch, site: SiteFolder, *steps: tuple[Events, str]) -> None:
    """A SuperNode that journals, and half a second later writes a line, step by step; then it stays, and counts."""
    script = f"""
import time
from pathlib import Path
from fedphantom.common.journal import Journal
for events, line in {[(list(events), line) for events, line in steps]!r}:
    for event, facts in events:
        Journal(Path({str(site.journal)!r})).append(event, **facts)
    time.sleep(0.5)
    print(line, flush=True)
for tenth in range(600):
    time.sleep(0.1)
    Path({str(site.root / "tenths")!r}).write_text(str(tenth))
"""
    monkeypatch.setattr(SuperNode, "command", lambda self: [sys.executable, "-c", script])


def told(site: SiteFolder, *, once: bool = True) -> list[str]:
    said: list[str] = []
    serve(site, said.append, once=once)
    return said


def test_once_ends_when_the_reply_has_reached_the_coordinator(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_does(monkeypatch, site, (ANSWERED, SENT))
    said = told(site)
    assert said[0].startswith("'site-a' tries to reach the coordinator at ")
    assert said[1:] == ["round 1: 4.0 MB left for the coordinator"]


def test_it_is_ready_once_the_coordinator_let_it_in_and_a_silence_is_told_of(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNANSWERED_S", 0.2)
    node_does(monkeypatch, site, ([], "INFO :      SuperNode ID: 1"), (ANSWERED, SENT))
    _, silent, ready, answered = told(site)
    assert silent.startswith("no answer from the coordinator at ")
    assert f"'fedphantom site doctor {site.root}' says what is in the way" in silent
    assert ready.endswith("let this site in: ready for its rounds")
    assert answered.startswith("round 1: ")


def test_once_leaves_the_coordinator_time_to_fetch_what_was_sent(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower hands nobody the reply of a node that has signed off."""
    monkeypatch.setattr(serving, "FETCHED_S", 3.0)
    node_does(monkeypatch, site, (ANSWERED, SENT))
    told(site)
    assert int((site.root / "tenths").read_text()) >= 10


def test_once_in_a_sum_ends_when_the_shares_that_open_it_have_left_and_no_sooner(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_does(monkeypatch, site, (IN_A_SUM, SENT), ([], SENT), (OPENED, SENT))
    said = told(site)
    assert said[1:] == ["round 1: 1.0 MB left for the coordinator, masked"] * 3 + [
        "round 1: 0.0 MB left for the coordinator, masked"
    ]


def test_once_ends_with_an_error_where_the_round_failed_and_the_coordinator_knows(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_does(monkeypatch, site, (FAILED, SENT))
    with pytest.raises(PeerError, match="the round failed here"):
        told(site)


def test_once_does_not_wait_for_ever(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_ROUNDS_WAITED", 1e-4)  # of an hour
    node_does(monkeypatch, site, ([], "waiting"))
    with pytest.raises(PeerError, match="no round was over here after 0 min") as refused:
        told(site)
    assert "ask the coordinator whether the study runs" in refused.value.remedy


def test_how_long_a_reply_took_to_the_coordinator_is_journalled_and_the_doctor_says_it(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_journal(site.journal)
    node_does(monkeypatch, site, (ANSWERED, SENT))
    told(site)
    (arrived,) = [e.facts for e in read_journal(site.journal)[len(before) :] if e.event == REPLY_ARRIVED]
    assert (arrived["round"], arrived["bytes"]) == (1, 4_000_000)
    assert 0.5 <= float(str(arrived["seconds"])) < 30  # the node writes its line half a second after the reply left
    assert check_link(site).found.startswith("round 1: a reply of 4.0 MB arrived ")


def test_what_is_sent_without_a_reply_of_a_round_measures_nothing(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_journal(site.journal)
    node_does(monkeypatch, site, ([], SENT), (OPENED, SENT))
    told(site)
    assert REPLY_ARRIVED not in {entry.event for entry in read_journal(site.journal)[len(before) :]}


def test_without_once_it_answers_one_round_after_another(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    node_does(monkeypatch, site, (ANSWERED, SENT), (ANSWERED, SENT))

    class Enough(Exception):
        pass

    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise Enough

    with pytest.raises(Enough):
        serve(site, say)
    assert said[1:] == ["round 1: 4.0 MB left for the coordinator"] * 2


def test_ctrl_c_leaves_no_process_and_says_that_no_round_is_answered(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node_does(monkeypatch, site)
    keepers: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def started(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        keepers.append(popen(*arguments, **options))
        return keepers[-1]

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(serving, "time", SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))
    assert fedphantom(["site", "start", str(site.root)]) == 130
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith(f"stopped: this site answers no rounds until 'fedphantom site start {site.root}' is typed")
    assert [keeper.poll() is not None for keeper in keepers] == [True]


def test_status_counts_what_left_in_a_sum(tmp_path: Path) -> None:
    from fedphantom.common.journal import Journal

    site = approve_as_it_stands(deploy(tmp_path).site)
    for event, facts in [*IN_A_SUM, *OPENED]:
        Journal(site.journal).append(event, **facts)  # type: ignore[arg-type]  # numbers and words
    facts_told = site_facts(site)
    assert (facts_told["rounds_answered"], facts_told["bytes_left"]) == ([1], 3_000_100)
    assert "1 round of 2 answered" in site_text(facts_told)


def test_a_site_that_withdraws_while_it_serves_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_POLL_S", 0.05)
    monkeypatch.setattr(serving, "FETCHED_S", 0.0)
    site = approve_as_it_stands(deploy(tmp_path).site)
    withdraws = "from pathlib import Path; from fedphantom.client.node.standing import withdraw;"
    withdraws += "from fedphantom.common.site_folder import SiteFolder;"
    withdraws += f"withdraw(SiteFolder.open(Path({str(site.root)!r})), 'the board said so')"
    monkeypatch.setattr(SuperNode, "command", lambda self: [sys.executable, "-c", withdraws])
    with pytest.raises(PolicyRefused, match="this site has withdrawn"):
        serve(site, lambda text: None)


def test_before_a_site_has_joined_it_is_told_to_join(tmp_path: Path) -> None:
    site = deploy(tmp_path).site
    NodeFolder(site.root).roster.unlink()
    with pytest.raises(ConfigError, match="has not joined"):
        serve(site, lambda text: None)
