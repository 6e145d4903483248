"""A site that withdraws tells the coordinator in a file that it signed, and from then on no round waits for it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from carried_rounds import NOW, SITES, Carried, later
from enrolment import new_keys, signed_again
from flower_messages import InProcessGrid, prepared
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.primitives.asymmetric import public_key_to_bytes  # private: how a SuperLink keeps a key
from linear_site import cohorts_of, study_text
from refusals import refused

from fedphantom.cli import run as fedphantom
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.joining import join, renew_keys
from fedphantom.client.node.keys import present_keys, read_keys, take_next_keys
from fedphantom.client.node.leaving import leave
from fedphantom.client.node.standing import standing
from fedphantom.common.enrolment.notice import NOTICE, Notice
from fedphantom.common.enrolment.request import open_request
from fedphantom.common.enrolment.signed_file import opened, signed
from fedphantom.common.enrolment.site_keys import public_node_text
from fedphantom.common.in_toto import time_text
from fedphantom.common.journal import read_journal, verify_journal
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import read_study
from fedphantom.server.app import run_study
from fedphantom.server.checkpoints import latest_checkpoint
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import SiteChanged, enroll, take_notice
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.nodes import NODES_VARIABLE
from fedphantom.server.coordinator.running import claim
from fedphantom.server.coordinator.serving import nodes_of
from fedphantom.server.gathering import gather
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder

REASON = "the board decided so"
THREE = (*SITES, "site-c")


def notice_of(carried: Carried, site: str) -> Path:
    made = leave(SiteFolder.open(carried.site(site)), REASON)
    assert made.notice is not None
    return Path(made.notice)


def take(carried: Carried, site: str, notice: Path) -> SiteChanged:
    return take_notice(carried.lead, site, notice, NOW)


def noted(journal: Path, event: str) -> list[Any]:
    verify_journal(journal)
    return [entry.facts for entry in read_journal(journal) if entry.event == event]


# At the site.


def test_a_withdrawal_leaves_a_notice_that_says_who_and_when_and_not_why(carried: Carried) -> None:
    notice = notice_of(carried, "site-a")
    folder = SiteFolder.open(carried.site("site-a"))
    assert standing(folder) == "withdrawn"
    key = read_keys(NodeFolder(folder.root).keys).identity.public_key()
    said = opened(NOTICE, notice.read_bytes(), [key])
    (left,) = [entry for entry in read_journal(folder.journal) if entry.event == "site-withdrew"]
    assert said == Notice(study_digest=folder.study().digest(), site="site-a", withdrawn=left.time)
    assert REASON.encode() not in notice.read_bytes()
    assert left.facts["reason"] == REASON


def test_withdrawing_again_gives_the_same_notice_also_where_it_was_lost(carried: Carried) -> None:
    notice = notice_of(carried, "site-a")
    first = notice.read_bytes()
    assert notice_of(carried, "site-a").read_bytes() == first
    journal = carried.site("site-a") / "journal.jsonl"
    assert len(noted(journal, "notice-signed")) == len(noted(journal, "site-withdrew")) == 1
    notice.unlink()
    assert notice_of(carried, "site-a").read_bytes() == first


def test_a_site_without_keys_withdraws_all_the_same(carried: Carried, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(carried.site("site-a") / "keys")
    assert fedphantom(["site", "withdraw", str(carried.site("site-a")), "--reason", REASON]) == 0
    assert "no keys to sign a notice with" in capsys.readouterr().out
    assert standing(SiteFolder.open(carried.site("site-a"))) == "withdrawn"


# At the coordinator.


def test_from_two_commands_the_site_is_out_and_everybody_can_see_it(
    three: Carried, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert fedphantom(["site", "withdraw", str(three.site("site-c")), "--reason", REASON, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made) == {"site", "withdrawn", "notice"}
    assert fedphantom(["server", "revoke", str(three.lead), "site-c", "--notice", made["notice"]]) == 0
    assert "site-c withdrew; 2 sites enrolled (site-a, site-b)" in capsys.readouterr().out
    (line,) = noted(three.lead / "journal.jsonl", "site-withdrew")
    assert (line["site"], line["withdrawn"]) == ("site-c", made["withdrawn"])
    assert fedphantom(["server", "status", str(three.lead), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["withdrew"], facts["revoked"]) == (["site-c"], [])
    assert fedphantom(["server", "status", str(three.lead)]) == 0
    assert "withdrew: site-c" in capsys.readouterr().out
    coordinator = Coordinator.open(three.lead)
    told = join(three.site("site-a"), coordinator.folder.roster, coordinator.fingerprint(), NOW)
    assert (sorted(told.sites), told.revoked) == (["site-a", "site-b"], ("site-c",))


def test_a_notice_given_again_changes_nothing_and_writes_the_roster_again(three: Carried) -> None:
    notice = notice_of(three, "site-c")
    first = take(three, "site-c", notice)
    roster = Path(first.roster).read_bytes()
    Path(first.roster).unlink()
    assert take(three, "site-c", notice) == first
    assert Path(first.roster).read_bytes() == roster
    assert len(noted(three.lead / "journal.jsonl", "site-withdrew")) == 1


def test_either_a_reason_or_a_notice_is_given(carried: Carried) -> None:
    line = ["server", "revoke", str(carried.lead), "site-a"]
    assert fedphantom(line) == 2
    assert fedphantom([*line, "--reason", REASON, "--notice", "file"]) == 2


def _changed(carried: Carried) -> bytes:
    """Another site's name under this site's signature."""
    ours, theirs = (json.loads(notice_of(carried, site).read_bytes()) for site in SITES)
    return json.dumps(ours | {"payload": theirs["payload"]}, sort_keys=True, separators=(",", ":")).encode()


def _by(carried: Carried, key: Any = None, **changes: str) -> bytes:
    """What site-a could say, signed by this key, else by its own."""
    own = present_keys(NodeFolder(carried.site("site-a")))
    assert own is not None
    said = {"study_digest": read_study(carried.lead / "study.toml").digest(), "site": "site-a"} | {
        "withdrawn": time_text(NOW)
    }
    return signed(NOTICE, Notice.model_validate(said | changes), key or own.identity)


def _own_with_more(carried: Carried) -> bytes:
    own = present_keys(NodeFolder(carried.site("site-a")))
    assert own is not None
    return signed_again(_by(carried), own.identity, reason="a patient")


SPOILT: dict[str, tuple[Callable[[Carried], bytes], int, str]] = {
    "changed": (_changed, 5, "does not hold"),
    "signed by another site": (
        lambda c: _by(c, read_keys(NodeFolder(c.site("site-b")).keys).identity),
        5,
        "unknown key",
    ),
    "signed by nobody known": (lambda c: _by(c, new_keys().identity), 5, "unknown key"),
    "of another study": (lambda c: _by(c, study_digest="0" * 64), 5, "a notice of another study"),
    "of another site": (lambda c: _by(c, site="site-b"), 5, "another site than the one named"),
    "from the future": (lambda c: _by(c, withdrawn=time_text(later(2))), 5, "dated in the future"),
    "with more in it": (_own_with_more, 3, "notice's 'reason'"),
    "of another kind": (lambda c: (c.lead / "roster.dsse.json").read_bytes(), 3, "says it is a 'roster', not a notice"),
    "no signed file": (lambda c: b"we leave", 3, "no notice"),
}


@pytest.mark.parametrize(("make", "code", "words"), SPOILT.values(), ids=SPOILT.keys())
def test_a_notice_that_the_site_did_not_sign_for_this_study_takes_nobody_out(
    carried: Carried, make: Callable[[Carried], bytes], code: int, words: str
) -> None:
    file = carried.root / "notice"
    file.write_bytes(make(carried))
    refused(code, f"--notice: .*{words}", lambda: take(carried, "site-a", file))
    assert [site.name for site in Coordinator.open(carried.lead).registry.read().sites] == list(SITES)
    assert noted(carried.lead / "journal.jsonl", "site-withdrew") == []


@pytest.mark.parametrize("reason", ["x", "gone-for-good-now", "too soon", "a\x1b[31m red reason", "no " * 200])
def test_a_site_leaves_for_a_reason_that_says_something_or_not_at_all(carried: Carried, reason: str) -> None:
    site = SiteFolder.open(carried.site("site-a"))
    refused(3, "--reason: it says too little, or too much", lambda: leave(site, reason))
    assert standing(site) == "takes part"


def test_a_site_that_nobody_enrolled_cannot_leave(carried: Carried) -> None:
    notice = notice_of(carried, "site-a")
    refused(3, "no site 'site-x' is enrolled", lambda: take(carried, "site-x", notice))
    carried.revoke("site-a")
    refused(3, "no site 'site-a' is enrolled", lambda: take(carried, "site-a", notice))


def test_an_old_notice_does_not_take_out_a_site_that_came_back_with_new_keys(carried: Carried) -> None:
    notice = Path(shutil.copy(notice_of(carried, "site-a"), carried.root / "old"))
    take(carried, "site-a", notice)
    shutil.rmtree(carried.site("site-a"))
    carried.enrol("site-a")
    refused(5, "no longer count", lambda: take(carried, "site-a", notice))
    assert "site-a" in [site.name for site in Coordinator.open(carried.lead).registry.read().sites]


def test_a_notice_by_keys_that_were_renewed_is_made_again_by_the_present_ones(carried: Carried) -> None:
    site, folder = carried.site("site-a"), NodeFolder(carried.site("site-a"))
    renewal = renew_keys(site, NOW)
    enroll(carried.lead, Path(renewal.request), renewal.fingerprint, NOW)
    assert open_request(Path(renewal.request).read_bytes()).content.renews
    old = notice_of(carried, "site-a")
    refused(5, "no longer count.*run 'fedphantom site withdraw' again", lambda: take(carried, "site-a", old))
    take_next_keys(folder)
    assert take(carried, "site-a", notice_of(carried, "site-a")).enrolled == ("site-b",)


# Rounds.


def test_a_round_by_files_is_done_without_a_site_that_withdrew_and_nobody_is_asked_to_close_it(three: Carried) -> None:
    request = Path(three.export().file)
    replies = [three.train(site, request) for site in SITES]
    assert not three.take(*replies).done
    take(three, "site-c", notice_of(three, "site-c"))
    done = three.take()
    assert (done.done, done.answered, dict(done.missing)) == (True, SITES, {"site-c": "it withdrew"})
    second = three.export()
    assert second.sites == SITES
    assert "to site-a, site-b" in second.text()


def test_what_a_site_sent_before_it_withdrew_is_left_out_of_the_round_under_way(three: Carried) -> None:
    request = Path(three.export().file)
    three.take(*[three.train(site, request) for site in ("site-a", "site-c")])
    reply = three.root / "site-c.reply"
    take(three, "site-c", notice_of(three, "site-c"))
    refused(5, "since it withdrew", lambda: three.take(reply))
    done = three.take(three.train("site-b", request))
    assert (done.answered, dict(done.missing)) == (
        SITES,
        {"site-c": "it withdrew after it had replied, or was damaged here"},
    )


def test_below_the_quorum_nothing_is_promised(carried: Carried) -> None:
    carried.take(carried.train("site-a"))
    take(carried, "site-b", notice_of(carried, "site-b"))
    refused(4, "quorum asks for 2 .missing: site-b: it withdrew.*Too few sites are left", carried.take)
    checkpoint = latest_checkpoint(carried.lead / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.round == 0


def test_a_site_that_comes_back_is_waited_for_again(three: Carried) -> None:
    assert three.round(THREE).answered == THREE
    take(three, "site-c", notice_of(three, "site-c"))
    for site in SITES:  # the next request is made by a roster without it
        three.join(site)
    assert three.round(SITES).answered == SITES
    shutil.rmtree(three.site("site-c"))
    three.enrol("site-c")
    assert three.export().sites == THREE


def _opened(folder: RunFolder) -> Rounds:
    study, sites = folder.claimed()
    return Rounds.open(study, folder, sites)


class Known(InProcessGrid):
    """A grid that knows the keys of its nodes."""

    keys: Mapping[int, bytes]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, public_key=key) for node, key in self.keys.items()]


@pytest.mark.usefixtures("identity")
def test_over_a_network_no_round_waits_for_a_site_whose_key_is_no_longer_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = study_text(rounds=2, deadline_s=60.0)
    folder, grid = prepared(tmp_path / "out", cohorts_of(tmp_path, THREE), text, Known)
    assert isinstance(grid, Known)
    del grid.contexts[max(grid.contexts)]
    keys = [new_keys().node.public_key() for _ in SITES]
    grid.keys = dict(zip(grid.contexts, map(public_key_to_bytes, keys), strict=True))
    rows = [
        {"site": site, "key": public_node_text(key), "node": str(node)}
        for site, key, node in zip(SITES, keys, grid.contexts, strict=True)
    ]
    (tmp_path / "nodes.json").write_text(json.dumps(rows))
    monkeypatch.setenv(NODES_VARIABLE, str(tmp_path / "nodes.json"))
    began = time.monotonic()
    rounds = run_study(grid, folder)
    assert time.monotonic() - began < 30  # and not the minute for which a site that may still come is waited for
    assert [record.left_out for record in rounds.checkpoint.history] == [{"site-c": "no reply"}] * 2


def let_in(carried: Carried, sites: Sequence[str]) -> None:
    """As 'server start' notes it once it has let these sites in."""
    rows = [{"site": site, "key": f"key of {site}", "node": site} for site in sites]
    table = nodes_of(CoordinatorFolder(carried.lead)).path
    table.parent.mkdir(exist_ok=True)
    table.write_text(json.dumps(rows))


def test_a_run_goes_on_without_a_site_that_left_and_ends_below_the_quorum(three: Carried) -> None:
    folder = CoordinatorFolder(three.lead)
    run = RunFolder(folder.run)
    let_in(three, THREE)
    assert claim(folder, run)[1:] == (THREE, THREE)
    take(three, "site-c", notice_of(three, "site-c"))
    let_in(three, SITES)
    assert claim(folder, run)[1:] == (THREE, SITES)
    let_in(three, ["site-a"])
    refused(1, "does not know the node of site-b", lambda: claim(folder, run))
    take(three, "site-b", notice_of(three, "site-b"))
    refused(1, "1 site left of 3 .site-b: withdrew; site-c: withdrew.", lambda: claim(folder, run))


def test_fewer_nodes_than_the_quorum_are_never_enough_however_few_are_let_in(tmp_path: Path) -> None:
    folder, _ = prepared(tmp_path / "out", cohorts_of(tmp_path, THREE), study_text(deadline_s=0.3))
    rounds = _opened(folder)
    refused(1, "1 of 1 site connected before the deadline", lambda: gather(lambda: [2], rounds, 0.1, let_in=lambda: 1))
