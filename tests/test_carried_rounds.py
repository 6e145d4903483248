"""Rounds carried by hand: the study that comes of them, and what may be repeated or cut off."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from carried_rounds import SITES, Carried
from forged_reply import nobody_trains
from killed import killed_at
from linear_run import contents, linear_simulation
from linear_site import study_text
from refusals import refused

from fedphantom.common.journal import read_journal, verify_journal
from fedphantom.common.site_folder import REPLY_LEFT
from fedphantom.server.checkpoints import latest_checkpoint

THREE = (*SITES, "site-c")


# A study carried from the first round to the last.


def test_three_carried_rounds_lead_to_the_generator_of_a_simulation_to_the_bit(tmp_path: Path) -> None:
    text = study_text(federation='server_momentum = 0.5\ntransport = "float16"')
    carried = Carried.make(tmp_path / "carried", text)
    told = [carried.round() for _ in range(3)]
    assert [(one.round, one.done, one.answered) for one in told] == [(n, True, SITES) for n in (1, 2, 3)]
    linear_simulation(tmp_path / "run", {site: carried.root / "cohorts" / site for site in SITES}, text=text)
    assert [carried.generator.read_bytes()] == contents(tmp_path / "run")
    assert told[-1].generator == str(carried.generator)
    for journal in (carried.lead / "run" / "journal.jsonl", *(carried.site(s) / "journal.jsonl" for s in SITES)):
        verify_journal(journal)
    assert "run-resumed" not in carried.run_events()  # each command is a process of its own, and none resumes


@pytest.mark.parametrize("sharing", ["ensemble", "volumes"])
def test_sites_that_train_alone_answer_by_files_what_they_would_over_a_network(tmp_path: Path, sharing: str) -> None:
    text = study_text(rounds=1, federation=f'sharing = "{sharing}"')
    carried = Carried.make(tmp_path / "carried", text)
    told = carried.round()
    linear_simulation(tmp_path / "run", {site: carried.root / "cohorts" / site for site in SITES}, text=text)
    own = [(carried.site(site) / "generator.safetensors").read_bytes() for site in SITES]
    copies = [path.read_bytes() for path in sorted((carried.lead / "run").glob("generators/*"))]
    assert copies + own == contents(tmp_path / "run")
    assert (told.generator is None) == (sharing == "volumes")


def test_each_command_says_what_is_to_be_done_next(carried: Carried) -> None:
    assert "each runs: fedphantom site train SITE_DIR round-00001.request.safetensors" in carried.export().text()
    half = carried.take(carried.train("site-a"))
    assert "it lacks site-b: no reply" in half.text()
    assert "a round needs 2" in half.text()
    assert "hand" in carried.export().text()
    assert "replies of site-a are here" in carried.export().text()
    assert "next: fedphantom server export DIR" in carried.take(carried.train("site-b")).text()
    carried.round()
    assert f"it was the last. generator: {carried.generator}" in carried.round().text()
    refused(3, "3 rounds came to an end", carried.export)
    assert carried.take().generator == str(carried.generator)


def test_a_rounds_seconds_count_from_when_sites_were_asked(carried: Carried) -> None:
    carried.round()
    checkpoint = latest_checkpoint(carried.lead / "run" / "checkpoints")
    assert checkpoint is not None
    assert 0 <= checkpoint.history[0].seconds < 60


# Again, and cut off.


def test_a_request_written_again_is_the_same_file_wherever_it_is_written(carried: Carried) -> None:
    first = Path(carried.export().file).read_bytes()
    out = carried.root / "out"
    assert Path(carried.export(out).file) == out / "round-00001.request.safetensors"
    assert Path(carried.export(out).file).read_bytes() == Path(carried.export().file).read_bytes() == first
    assert carried.run_events().count("request-exported") == 1
    (out / "round-00001.request.safetensors").write_text("mine")
    refused(3, "is there already", lambda: carried.export(out))
    assert (out / "round-00001.request.safetensors").read_text() == "mine"


def test_the_same_request_again_gets_the_same_reply_without_training(carried: Carried) -> None:
    first = carried.train("site-a").read_bytes()
    again = carried.train("site-a", open_trainer=nobody_trains)
    assert again.read_bytes() == first
    assert carried.train("site-a", out=again, open_trainer=nobody_trains).read_bytes() == first  # over the same
    exported = carried.export_reply("site-a", carried.root / "other")
    assert (carried.root / "other").read_bytes() == first
    assert (exported.round, exported.again) == (1, True)
    assert carried.events("site-a").count(REPLY_LEFT) == 1
    left = [e.facts for e in read_journal(carried.site("site-a") / "journal.jsonl") if e.event == "reply-file-left"]
    assert len(left) == 4
    assert {(one["round"], one["sha256"]) for one in left} == {(1, exported.sha256)}


def test_a_taken_place_is_left_alone_and_nothing_is_trained_for_it(carried: Carried) -> None:
    (carried.root / "mine").write_text("mine")
    out = carried.root / "mine"
    refused(3, "is there already", lambda: carried.train("site-a", out=out, open_trainer=nobody_trains))
    assert out.read_text() == "mine"


def test_a_site_killed_at_any_moment_answers_the_same_when_asked_again(
    carried_template: Carried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = carried_template.copy(tmp_path / "whole")
    reply = whole.train("site-a").read_bytes()
    for moment in range(1, 30):
        carried = whole.copy(tmp_path / str(moment))
        shutil.rmtree(carried.site("site-a"))
        shutil.copytree(carried_template.site("site-a"), carried.site("site-a"))
        request = Path(carried.export().file)
        killed = killed_at(moment, lambda c=carried, r=request: c.train("site-a", r), monkeypatch)  # type: ignore[misc]
        assert carried.train("site-a", request).read_bytes() == reply
        verify_journal(carried.site("site-a") / "journal.jsonl")
        if not killed:
            assert moment > 4
            return
    raise AssertionError("it never came to its end")


def test_an_import_killed_at_any_moment_neither_loses_a_reply_nor_counts_one_twice(
    carried_template: Carried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = carried_template.copy(tmp_path / "ready")
    for _ in range(2):
        ready.round()
    replies = [ready.train(site) for site in SITES]
    whole = ready.copy(tmp_path / "whole")
    whole.take(*replies)
    for moment in range(1, 40):
        carried = ready.copy(tmp_path / str(moment))
        killed = killed_at(moment, lambda c=carried: c.take(*replies), monkeypatch)  # type: ignore[misc]
        done = latest_checkpoint(carried.lead / "run" / "checkpoints")
        assert done is not None
        if done.round == 3:
            refused(5, "no round is under way after 3 rounds", lambda c=carried: c.take(*replies))  # type: ignore[misc]
        told = carried.take() if done.round == 3 else carried.take(*replies)
        assert told.done
        assert carried.generator.read_bytes() == whole.generator.read_bytes()
        checkpoint = latest_checkpoint(carried.lead / "run" / "checkpoints")
        assert checkpoint is not None
        assert [record.sites for record in checkpoint.history] == [SITES] * 3
        assert not list((carried.lead / "round-files").glob("round-*"))
        shutil.rmtree(carried.root)
        if not killed:
            assert moment > 8
            return
    raise AssertionError("it never came to its end")


def test_a_reply_that_was_damaged_where_it_lies_is_missed_and_can_be_taken_in_again(carried: Carried) -> None:
    reply = carried.train("site-a")
    carried.take(reply)
    kept = next((carried.lead / "round-files").glob("*.site-a.reply.safetensors"))
    kept.write_bytes(reply.read_bytes()[:-1])
    assert "damaged here" in carried.take().missing["site-a"]
    assert carried.take(reply).missing == {"site-b": "no reply"}


def test_of_a_round_that_is_done_no_reply_is_kept(carried: Carried) -> None:
    carried.take(carried.train("site-a"))
    assert list((carried.lead / "round-files").glob("*.reply.safetensors"))
    carried.take(carried.train("site-b"))
    assert not list((carried.lead / "round-files").glob("*.safetensors"))


# Without everybody.


def test_a_round_goes_on_without_a_site_where_that_is_asked_for_and_the_quorum_is_there(three: Carried) -> None:
    carried = three
    carried.take(carried.train("site-a"))
    too_few = "round 1 has 1 reply, where the quorum asks for 2 .*site-b: no reply.*FILE... --close"
    refused(4, too_few, lambda: carried.take(close=True))
    half = carried.take(carried.train("site-b"))
    assert not half.done
    assert "go on without them: fedphantom server import DIR --close" in half.text()
    late = carried.train("site-c")
    done = carried.take(close=True)
    assert (done.done, done.answered, dict(done.missing)) == (True, ("site-a", "site-b"), {"site-c": "no reply"})
    refused(5, "no round is under way after 1 round", lambda: carried.take(late))
    carried.export()
    refused(5, "a reply to round 1 where round 2 is under way", lambda: carried.take(late))
    assert carried.round(THREE).answered == THREE  # and takes part again


def test_a_site_revoked_before_the_round_is_done_is_not_in_it(three: Carried) -> None:
    carried = three
    request = Path(carried.export().file)
    carried.take(*[carried.train(site, request) for site in ("site-a", "site-b")])
    carried.revoke("site-a")
    assert "revoked since" in carried.take().missing["site-a"]
    done = carried.take(carried.train("site-c", request), close=True)
    assert done.answered == ("site-b", "site-c")
