"""Rounds carried by hand: the study that comes of them, what may be repeated or cut off, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carried_rounds import NOW, SITES, Carried, later
from linear_run import contents, linear_simulation
from linear_site import LinearTrainer, linear_generator, study_text

from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.joining import renew_keys
from fedphantom.client.node.keys import present_keys
from fedphantom.client.node.standing import go_on, pause, withdraw
from fedphantom.common.errors import FedPhantomError
from fedphantom.common.exchange import RoundReply, SiteTrainer
from fedphantom.common.federation import FederationTable
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.journal import read_journal, verify_journal
from fedphantom.common.keys import load_private_key
from fedphantom.common.round_files.one_exchange import refuse_several_exchanges
from fedphantom.common.round_files.reply import write_reply
from fedphantom.common.round_files.request import RequestFile, read_request, write_request
from fedphantom.common.site_folder import REPLY_LEFT, SiteFolder
from fedphantom.common.study import parse_study
from fedphantom.server.checkpoints import latest_checkpoint
from fedphantom.server.coordinator.enrolling import enroll
from fedphantom.server.coordinator.superlink import SuperLink

SPEC = ParameterSpec.of(linear_generator(parse_study(study_text())))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    """Two hospitals that joined and approved, before the first round."""
    return Carried.make(tmp_path_factory.mktemp("carried") / "made", study_text())


@pytest.fixture
def carried(template: Carried, tmp_path: Path) -> Carried:
    return template.copy(tmp_path / "carried")


def refused(code: int, words: str, act: Callable[[], object]) -> None:
    with pytest.raises(FedPhantomError, match=words) as caught:
        act()
    assert caught.value.exit_code == code


def nobody_trains(folder: Path) -> SiteTrainer:
    raise AssertionError("it trained")


def request_of(path: Path, carried: Carried) -> RequestFile:
    key = load_private_key(carried.lead / "keys" / "key.pem").public_key()
    return read_request(path, SPEC, [key], lambda statement: None)


def forged(carried: Carried, *, signer: str, says: str | None = None, **changes: Any) -> Path:
    """A reply that a site signs to the request of the round under way, saying what it should not."""
    asked = request_of(Path(carried.export().file), carried)
    roster = changes.pop("roster", asked.roster)
    generator = {name: np.ones_like(value) for name, value in asked.request.generator.items()}
    arguments: dict[str, Any] = {"site": says or signer, "round": asked.request.round, "generator": generator}
    reply = RoundReply(**(arguments | {"weight": 1.0, "metrics": {"steps": 4.0}} | changes))
    keys = present_keys(NodeFolder(carried.site(signer)))
    assert keys is not None
    path = carried.root / "forged"
    path.write_bytes(write_reply(reply, asked, roster, keys.identity))
    return path


# A study carried from the first round to the last.


@pytest.mark.parametrize("federation", ["", "server_momentum = 0.5"])
def test_three_carried_rounds_lead_to_the_generator_of_a_simulation_to_the_bit(tmp_path: Path, federation: str) -> None:
    text = study_text(federation=federation)
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
    refused(3, "3 rounds are done", carried.export)
    assert carried.take().generator == str(carried.generator)


def test_a_round_s_seconds_count_from_when_sites_were_asked(carried: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
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


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(moment: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do it, and end it at a moment at which a file was to be put in place; whether it came that far."""
    left, replace = [moment], os.replace

    def counting(*paths: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        replace(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", counting)
        try:
            act()
        except Killed:
            return True
    return False


def test_a_site_killed_at_any_moment_answers_the_same_when_asked_again(
    template: Carried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = template.copy(tmp_path / "whole")
    reply = whole.train("site-a").read_bytes()
    for moment in range(1, 30):
        carried = whole.copy(tmp_path / str(moment))
        shutil.rmtree(carried.site("site-a"))
        shutil.copytree(template.site("site-a"), carried.site("site-a"))
        request = Path(carried.export().file)
        killed = killed_at(moment, lambda c=carried, r=request: c.train("site-a", r), monkeypatch)  # type: ignore[misc]
        assert carried.train("site-a", request).read_bytes() == reply
        verify_journal(carried.site("site-a") / "journal.jsonl")
        if not killed:
            assert moment > 4
            return
    raise AssertionError("it never came to its end")


def test_an_import_killed_at_any_moment_neither_loses_a_reply_nor_counts_one_twice(
    template: Carried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = template.copy(tmp_path / "ready")
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
            refused(5, "no round under way: 3 are done", lambda c=carried: c.take(*replies))  # type: ignore[misc]
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


def test_a_round_goes_on_without_a_site_where_that_is_asked_for_and_the_quorum_is_there(tmp_path: Path) -> None:
    sites = ("site-a", "site-b", "site-c")
    carried = Carried.make(tmp_path / "carried", study_text(), sites)
    carried.take(carried.train("site-a"))
    refused(1, "round 1 has 1 reply.*site-b: no reply", lambda: carried.take(close=True))
    half = carried.take(carried.train("site-b"))
    assert not half.done
    assert "go on without them: fedphantom server import DIR --close" in half.text()
    late = carried.train("site-c")
    done = carried.take(close=True)
    assert (done.done, done.answered, dict(done.missing)) == (True, ("site-a", "site-b"), {"site-c": "no reply"})
    refused(5, "no round under way: 1 are done", lambda: carried.take(late))
    carried.export()
    refused(5, "a reply to round 1 where round 2 is under way", lambda: carried.take(late))
    assert carried.round(sites).answered == sites  # and takes part again


def test_a_site_revoked_before_the_round_is_done_is_not_in_it(tmp_path: Path) -> None:
    carried = Carried.make(tmp_path / "carried", study_text(), ("site-a", "site-b", "site-c"))
    request = Path(carried.export().file)
    carried.take(*[carried.train(site, request) for site in ("site-a", "site-b")])
    carried.revoke("site-a")
    assert "revoked since" in carried.take().missing["site-a"]
    done = carried.take(carried.train("site-c", request), close=True)
    assert done.answered == ("site-b", "site-c")


# Attacks on the coordinator.


def test_a_reply_with_a_byte_changed_is_refused_and_journalled(carried: Carried) -> None:
    reply = carried.train("site-a")
    content = reply.read_bytes()
    reply.write_bytes(content[:-2] + bytes([content[-2] ^ 4]) + content[-1:])
    refused(5, f"FILE: {reply.name}: .*changed after it was signed", lambda: carried.take(reply))
    assert carried.run_events()[-1] == "reply-refused"
    assert carried.take().missing == dict.fromkeys(SITES, "no reply")


def test_a_reply_in_another_sites_name_is_refused(carried: Carried) -> None:
    reply = forged(carried, signer="site-b", says="site-a")
    refused(5, "another site's keys than it names", lambda: carried.take(reply))


def test_a_reply_by_a_revoked_site_is_refused(carried: Carried) -> None:
    reply = carried.train("site-b")
    carried.revoke("site-b")
    refused(5, "keys of site 'site-b' that were revoked", lambda: carried.take(reply))
    assert carried.take().missing["site-b"] == "its keys were revoked"


def test_a_reply_by_keys_that_expired_is_refused(carried: Carried) -> None:
    reply = carried.train("site-b")
    refused(5, "keys of site 'site-b' that expired", lambda: carried.take(reply, now=later(366)))


def test_a_reply_by_somebody_who_was_never_enrolled_is_refused(carried: Carried, tmp_path: Path) -> None:
    other = Carried.make(tmp_path / "other", study_text())
    reply = other.train("site-a", Path(other.export().file))
    carried.export()
    refused(5, "unknown key", lambda: carried.take(reply))


def test_a_reply_by_a_site_that_came_after_the_run_began_is_refused(carried: Carried) -> None:
    carried.export()
    carried.enrol("site-c")
    carried.join("site-c")
    refused(3, "not part of the run", lambda: carried.take(carried.train("site-c")))


def test_a_reply_to_a_round_that_is_done_does_not_count_again(carried: Carried) -> None:
    request = Path(carried.export().file)
    replies = [carried.train(site, request) for site in SITES]
    carried.take(*replies)
    before = latest_checkpoint(carried.lead / "run" / "checkpoints")
    carried.export()
    for reply in replies:
        refused(5, "a reply to round 1 where round 2 is under way", lambda reply=reply: carried.take(reply))  # type: ignore[misc]
    after = latest_checkpoint(carried.lead / "run" / "checkpoints")
    assert before is not None
    assert after is not None
    assert before.history == after.history
    assert carried.take().missing == dict.fromkeys(SITES, "no reply")


def test_a_reply_taken_in_twice_counts_once_and_a_second_other_one_not_at_all(carried: Carried) -> None:
    reply = carried.train("site-a")
    assert carried.take(reply, reply).answered == ("site-a",)
    assert carried.take(reply).answered == ("site-a",)
    assert carried.run_events().count("reply-kept") == 1
    second = forged(carried, signer="site-a")
    refused(4, "another reply of site 'site-a' to round 1", lambda: carried.take(second))
    kept = next((carried.lead / "round-files").glob("*.site-a.reply.safetensors"))
    assert kept.read_bytes() == reply.read_bytes()


def test_a_reply_to_a_request_of_another_run_of_the_study_is_refused(carried: Carried, template: Carried) -> None:
    again = template.copy(carried.root / "again")
    again.enrol("site-c")  # another roster, and so another request for the same round of the same study
    again.join("site-a")
    reply = again.train("site-a")
    carried.export()
    refused(5, "to another request for round 1", lambda: carried.take(reply))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 3.0}, "its weight is not the one that the study declares"),
        ({"round": 2}, "a reply to round 2 where round 1 is under way"),
        ({"roster": 1}, "roster number 1"),
        ({"roster": 99}, "roster number 99"),
        ({"generator": {**linear_generator(parse_study(study_text())), "head.bias": np.full(1, np.nan, np.float32)}},
         "NaN or infinite"),
        ({"generator": {"up.weight": np.ones((3, 4), np.float32)}}, "another network's parameters"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_reply_that_an_enrolled_site_signed_counts_only_as_the_study_has_it(
    carried: Carried, changes: dict[str, Any], words: str
) -> None:
    reply = forged(carried, signer="site-a", **changes)
    with pytest.raises(FedPhantomError, match=words):
        carried.take(reply)
    assert carried.take().missing == dict.fromkeys(SITES, "no reply")


def test_a_good_reply_before_a_bad_one_stays(carried: Carried) -> None:
    good = carried.train("site-a")
    bad = carried.root / "bad"
    bad.write_bytes(b"\0" * 100)
    refused(3, "FILE: bad: ", lambda: carried.take(good, bad))
    assert carried.take().answered == ("site-a",)


def test_no_round_goes_by_files_while_the_coordinator_serves_a_network(
    carried: Carried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SuperLink, "answers", lambda self: True)
    refused(3, "serves over the network", carried.export)
    refused(3, "serves over the network", carried.take)


# Attacks on a site.


def stays_as_it_was(carried: Carried, code: int, words: str, request: Path) -> None:
    """The request is refused, nothing is trained, and no reply is there."""
    out = carried.root / "out"
    refused(code, words, lambda: carried.train("site-a", request, out, nobody_trains))
    assert not out.exists()
    assert REPLY_LEFT not in carried.events("site-a")


def test_a_request_that_somebody_else_signed_is_refused_and_journalled(carried: Carried, tmp_path: Path) -> None:
    other = Carried.make(tmp_path / "other", study_text())
    stays_as_it_was(carried, 5, "REQUEST: .*unknown key", Path(other.export().file))
    assert carried.events("site-a")[-1] == "request-refused"


def test_a_sites_own_key_signs_no_request(carried: Carried) -> None:
    asked = request_of(Path(carried.export().file), carried)
    keys = present_keys(NodeFolder(carried.site("site-b")))
    assert keys is not None
    path = carried.root / "request"
    path.write_bytes(write_request(asked.request, asked.roster, keys.identity))
    stays_as_it_was(carried, 5, "unknown key", path)


def signed_by_the_lead(carried: Carried, **changes: Any) -> Path:
    asked = request_of(Path(carried.export().file), carried)
    path = carried.root / "request"
    roster = changes.pop("roster", asked.roster)
    request = type(asked.request)(**(vars(asked.request) | changes))
    path.write_bytes(write_request(request, roster, load_private_key(carried.lead / "keys" / "key.pem")))
    return path


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"study_digest": "a" * 64}, 5, "of another study"),
        ({"roster": 99}, 5, "roster number 99, where this site goes by number 2"),
        ({"round": 4}, 4, "its round is not one of the study's 3"),
        ({"generator": {}}, 3, "another network's parameters"),
        ({"generator": {**linear_generator(parse_study(study_text())), "head.bias": np.full(1, np.inf, np.float32)}}, 4,
         "NaN or infinite"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_request_is_answered_only_as_the_study_has_it(
    carried: Carried, changes: dict[str, Any], code: int, words: str
) -> None:
    stays_as_it_was(carried, code, words, signed_by_the_lead(carried, **changes))


def test_a_request_by_a_roster_that_the_site_has_not_seen_waits_until_it_has_and_approved_it(carried: Carried) -> None:
    carried.enrol("site-c")
    request = Path(carried.export().file)
    stays_as_it_was(carried, 5, "roster number 3, where this site goes by number 2", request)
    carried.join("site-a")
    assert carried.train("site-a", request).exists()


def test_another_request_for_a_round_that_was_answered_is_refused(carried: Carried) -> None:
    carried.train("site-a")
    other = signed_by_the_lead(carried, roster=1)
    out = carried.root / "out"
    refused(4, "another request for round 1", lambda: carried.train("site-a", other, out, nobody_trains))
    assert not out.exists()
    assert carried.train("site-a", open_trainer=nobody_trains).exists()  # the one that it answered still is


def test_an_earlier_round_is_not_answered_once_a_later_one_was(carried: Carried) -> None:
    first = carried.root / "first"
    first.write_bytes(Path(carried.export().file).read_bytes())
    carried.round()
    carried.train("site-a")
    out = carried.root / "out"
    refused(
        4,
        "a request for round 1, where this site has answered round 2",
        lambda: carried.train("site-a", first, out, nobody_trains),
    )


@pytest.mark.parametrize("standing", ["paused", "withdrawn", "changed"])
def test_a_site_that_may_not_answer_neither_trains_nor_hands_out_a_reply_that_it_has(
    carried: Carried, standing: str
) -> None:
    request = Path(carried.export().file)
    carried.train("site-a", request)
    folder = SiteFolder.open(carried.site("site-a"))
    if standing == "paused":
        pause(folder)
    elif standing == "withdrawn":
        withdraw(folder, "the board said so")
    else:
        (folder.root / "limits.toml").write_text((folder.root / "limits.toml").read_text() + "# read\n")
    out = carried.root / "out"
    for act in (lambda: carried.train("site-a", request, out), lambda: carried.export_reply("site-a", out)):
        with pytest.raises(FedPhantomError) as caught:
            act()
        assert caught.value.exit_code == 4
    assert not out.exists()
    if standing == "paused":
        go_on(folder)
        assert carried.train("site-a", request, out).exists()


def test_a_site_whose_enrolment_expired_does_not_train_for_nothing(carried: Carried) -> None:
    request = Path(carried.export().file)
    out = carried.root / "out"
    refused(
        5, "do not count on the roster", lambda: carried.train("site-a", request, out, nobody_trains, now=later(366))
    )


def test_a_site_that_renewed_its_keys_signs_its_reply_anew_without_other_training(carried: Carried) -> None:
    request = Path(carried.export().file)
    former = carried.train("site-a", request, carried.root / "former")
    asked = renew_keys(carried.site("site-a"), NOW)
    enroll(carried.lead, Path(asked.request), asked.fingerprint, NOW)
    carried.join("site-a")
    refused(5, "keys of site 'site-a' that were renewed", lambda: carried.take(former))
    refused(5, "unknown key", lambda: carried.export_reply("site-a", carried.root / "out"))
    calls: list[int] = []

    def counting(folder: Path) -> SiteTrainer:
        calls.append(1)
        return LinearTrainer.open(folder)

    assert carried.take(carried.train("site-a", request, open_trainer=counting)).answered == ("site-a",)
    assert calls == [1]  # asked, and it is for the trainer to answer from its state


def test_no_reply_is_handed_out_before_there_is_one(carried: Carried) -> None:
    refused(3, "no reply to hand out", lambda: carried.export_reply("site-a", carried.root / "out"))


@pytest.mark.skipif("secure_aggregation" not in FederationTable.model_fields, reason="no such studies in this release")
def test_a_study_with_secure_aggregation_is_refused_with_a_sentence() -> None:
    table = "secure_aggregation = { threshold = 2, clip = 4.0, bits = 20 }"
    study = parse_study(study_text(federation=table))
    refused(3, "several exchanges each", lambda: refuse_several_exchanges(study))
