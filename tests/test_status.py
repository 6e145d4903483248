"""What ``server status`` and ``site status`` say of how things stand, once, or again and again until Ctrl-C."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from carried_rounds import NOW, SITES, Carried

from fedphantom.cli import run as fedphantom
from fedphantom.client.node.leaving import leave
from fedphantom.common import watched_status
from fedphantom.common.errors import PeerError
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server.checkpoints import latest_checkpoint, write_checkpoint
from fedphantom.server.coordinator import running, status
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import invite, take_notice
from fedphantom.server.coordinator.running import RunResult
from fedphantom.server.coordinator.status import server_facts, status_text
from fedphantom.server.run_folder import RunFolder


def facts(carried: Carried) -> dict[str, Any]:
    return server_facts(Coordinator.open(carried.lead).folder)


def said(carried: Carried) -> str:
    return status_text(facts(carried))


# Carried rounds.


def test_of_a_study_that_nobody_began_nothing_is_said_to_be_carried(carried: Carried) -> None:
    assert (facts(carried)["by_files"], facts(carried)["carried"]) == (False, None)
    assert "nobody serves" in said(carried)


def test_of_a_carried_round_it_is_said_who_has_answered_and_who_is_missing(carried: Carried) -> None:
    carried.export()
    found = facts(carried)["carried"]
    assert (found["round"], found["answered"], found["missing"]) == (
        1,
        [],
        {"site-a": "no reply", "site-b": "no reply"},
    )
    assert found["asked"]
    carried.take(carried.train("site-b"))
    found = facts(carried)["carried"]
    assert (found["answered"], found["missing"], found["quorum"]) == (["site-b"], {"site-a": "no reply"}, 2)
    assert "round 0 of 3 done; rounds go by files" in said(carried)
    assert "replies of site-b are here; missing site-a: no reply; a round needs 2" in said(carried)


def test_between_two_carried_rounds_it_is_said_what_is_to_be_done_and_after_the_last_nothing(carried: Carried) -> None:
    carried.round()
    found = facts(carried)["carried"]
    assert (found["round"], found["asked"], found["answered"]) == (2, None, [])
    assert "round 2 goes by files and was not asked yet: 'fedphantom server export'" in said(carried)
    carried.round()
    carried.round()
    assert (facts(carried)["by_files"], facts(carried)["carried"]) == (True, None)
    assert "round 3 of 3 done; rounds go by files" in said(carried)


def test_what_status_says_of_a_carried_round_is_what_the_import_says(three: Carried) -> None:
    request = Path(three.export().file)
    for site in ("site-a", "site-c"):
        told = three.take(three.train(site, request))
        assert facts(three)["carried"]["missing"] == dict(told.missing)
    made = leave(SiteFolder.open(three.site("site-b")), "the board decided so")
    take_notice(three.lead, "site-b", Path(str(made.notice)), NOW)
    assert facts(three)["carried"]["missing"] == {"site-b": "it withdrew"}
    three.revoke("site-c")
    assert facts(three)["carried"]["answered"] == ["site-a"]
    assert "revoked since" in facts(three)["carried"]["missing"]["site-c"]


def test_a_quorum_that_is_here_and_a_reply_that_is_gone_are_seen(three: Carried) -> None:
    request = Path(three.export().file)
    three.take(*[three.train(site, request) for site in SITES])
    assert "missing site-c: no reply; 'fedphantom server import DIR --close' goes on without them" in said(three)
    next((three.lead / "round-files").glob("*.site-a.reply.safetensors")).unlink()
    assert facts(three)["carried"]["answered"] == ["site-b"]


def test_a_request_that_is_written_anew_after_its_loss_keeps_the_replies_that_answer_it(carried: Carried) -> None:
    request = Path(carried.export().file)
    carried.take(carried.train("site-a", request))
    request.unlink()
    assert facts(carried)["carried"]["asked"] is None
    carried.export()
    assert facts(carried)["carried"]["answered"] == ["site-a"]


# Who is invited, and a study that is another.


def test_who_is_invited_and_did_not_answer_yet_is_named_with_the_last_day(
    carried: Carried, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert facts(carried)["invited"] == []
    invite(carried.lead, "site-x", None, 14, datetime.now(UTC))
    (sent,) = facts(carried)["invited"]
    assert (sent["name"], sent["expired"]) == ("site-x", False)
    assert f"invited, its request not granted yet: site-x (until {sent['until'][:10]})" in said(carried)
    monkeypatch.setattr(status, "time_text", lambda moment: "9999-01-01T00:00:00Z")
    assert "which is over: invite it again" in said(carried)
    carried.revoke("site-x")
    assert facts(carried)["invited"] == []


def test_no_command_goes_by_a_study_that_was_edited_since(carried: Carried, capsys: pytest.CaptureFixture[str]) -> None:
    for study in (carried.lead / "study.toml", carried.site("site-a") / "study.toml"):
        study.write_text(re.sub("^rounds = .*", "rounds = 77", study.read_text(), flags=re.M))
    for command in ("status", "start"):
        assert fedphantom(["server", command, str(carried.lead)]) == 5
        assert "another study.toml than the one that the folder was made for" in capsys.readouterr().err
    assert fedphantom(["site", "status", str(carried.site("site-a"))]) == 0
    told = capsys.readouterr().out
    assert "study.toml here is not the study of the invitation: put the invitation's text back" in told
    assert "0 rounds of 3 answered" in told


def test_where_nobody_serves_no_run_is_there_to_be_stopped(
    carried: Carried, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedphantom(["server", "stop", str(carried.lead)]) == 0
    assert capsys.readouterr().out == "no run goes on\n"


# Again and again.


@pytest.mark.parametrize(("group", "folder"), [("server", "lead"), ("site", "site-a")])
def test_a_watched_status_is_looked_up_anew_each_time_until_ctrl_c_which_is_130(
    carried: Carried,
    group: str,
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt
        if len(waits) == 1:
            carried.take(carried.train("site-a"))

    monkeypatch.setattr(watched_status, "time", SimpleNamespace(sleep=wait))
    carried.export()
    line = [group, "status", str(carried.root / folder), "--watch", "--json"]
    assert fedphantom(line) == 130
    told = capsys.readouterr()
    assert told.err == "stopped: the watching alone; what was watched goes on as it was\n"
    seen, decoder, rest = [], json.JSONDecoder(), told.out.lstrip()
    while rest:
        found, end = decoder.raw_decode(rest)
        seen.append(found)
        rest = rest[end:].lstrip()
    answered = [one["carried"]["answered"] if group == "server" else one["rounds_answered"] for one in seen]
    assert answered == [[], *[["site-a"] if group == "server" else [1]] * 2]


def test_a_sites_status_holds_counts_and_no_identifier(carried: Carried, capsys: pytest.CaptureFixture[str]) -> None:
    carried.train("site-a")
    capsys.readouterr()
    assert fedphantom(["site", "status", str(carried.site("site-a"))]) == 0
    told = capsys.readouterr().out
    assert "1 round of 3 answered" in told
    assert "enrolled until 2028-02-29" in told
    assert str(carried.root) not in told


def test_a_round_that_was_given_up_is_named_as_such(carried: Carried) -> None:
    carried.round()
    folder = carried.lead / "run" / "checkpoints"
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    lost = replace(checkpoint.history[0], given_up="two sites did not come back", sites=())
    write_checkpoint(folder, replace(checkpoint, history=(lost,)))
    assert facts(carried)["rounds_given_up"] == [1]
    assert facts(carried)["why_given_up"] == {1: lost.given_up}
    assert f"round 1 was given up, and no site's training of it counts: {lost.given_up}" in said(carried)
    assert said(carried).count("; answered 0 of 0\n") == len(SITES)  # as sites that had missed nothing
    told = RunResult(RunFolder(carried.lead / "run"), None, 1, {1: lost.given_up}).text()
    assert told.splitlines()[0].endswith("no site's training of it counts: two sites did not come back")


def test_the_declared_link_stands_beside_what_rounds_took_and_rounds_by_files_measure_none(carried: Carried) -> None:
    carried.round()
    assert facts(carried)["link"] is None
    run = RunFolder(carried.lead / "run")
    run.journal.unlink()
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    first = replace(checkpoint.history[0], seconds=4.0)
    slower, lost = replace(first, round=2, seconds=9.0), replace(first, round=3, sites=(), seconds=1.0, given_up="lost")
    write_checkpoint(run.checkpoints, replace(checkpoint, round=3, history=(slower, first, lost)))
    link = facts(carried)["link"]
    values = sum(array.size for array in checkpoint.aggregate.values())
    assert (link["bytes_there_and_back"], link["declared_mbit"]) == (8 * values, 10.0)
    assert (link["quickest_round"], link["seconds"]) == (1, 4.0)
    assert link["mbit_or_more"] == pytest.approx(64e-6 * values / 4)
    assert "at the 10 Mbit/s that the study declares of the slowest link; round 1, the quickest, took 4 s" in said(
        carried
    )
    write_checkpoint(run.checkpoints, replace(checkpoint, round=4, history=()))
    assert "no round has measured it yet" in said(carried)


@pytest.mark.parametrize(
    ("nodes", "absent"),
    [
        ({"1": "online", "2": "online"}, []),
        ({"1": "online", "2": "registered"}, ["site-b"]),
        ({"1": "offline"}, ["site-a", "site-b"]),
        ({}, ["site-a", "site-b"]),
    ],
)
def test_whoever_is_asked_and_not_there_is_named(
    carried: Carried, monkeypatch: pytest.MonkeyPatch, nodes: dict[str, str], absent: list[str]
) -> None:
    folder = Coordinator.open(carried.lead).folder
    known = [SimpleNamespace(site="site-a", node="1"), SimpleNamespace(site="site-b", node="2")]
    monkeypatch.setattr(running, "control_of", lambda folder: SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(running, "nodes_of", lambda folder: SimpleNamespace(read=lambda: known))
    assert running._not_connected(folder, ["site-a", "site-b"]) == absent


def test_nobody_is_said_to_run_what_nobody_began(carried: Carried) -> None:
    assert not running.goes_on(Coordinator.open(carried.lead).folder)
    assert facts(carried)["running"] is False


def test_a_site_whose_enrolment_expired_is_not_asked_and_holds_nobody_up(
    three: Carried, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Coordinator.open(three.lead).folder
    known = SimpleNamespace(sites_by_key=lambda: {"key a": "site-a", "key b": "site-b"})
    monkeypatch.setattr(running, "nodes_of", lambda folder: known)
    with pytest.raises(PeerError, match="does not know the node of site-c"):
        running.claim(folder, RunFolder(folder.run))
    monkeypatch.setattr(running, "_expired", lambda folder: {"site-c": "its enrolment expired"})
    _, sites, present = running.claim(folder, RunFolder(folder.run))
    assert (sites, present) == (("site-a", "site-b", "site-c"), ("site-a", "site-b"))
    gone = dict.fromkeys(("site-b", "site-c"), "its enrolment expired")
    monkeypatch.setattr(running, "_expired", lambda folder: gone)
    with pytest.raises(PeerError, match="site-b: its enrolment expired"):
        running.claim(folder, RunFolder(folder.run))


def test_enrolments_expire_at_their_last_moment_and_not_before(
    carried: Carried, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Coordinator.open(carried.lead).folder
    for year, expired in ((2027, set()), (2100, {"site-a", "site-b"})):
        moment = datetime(year, 6, 1, tzinfo=UTC)
        monkeypatch.setattr(running, "datetime", SimpleNamespace(now=lambda zone, at=moment: at))
        assert running._expired(folder).keys() == expired
