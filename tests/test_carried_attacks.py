"""Rounds carried by hand: what is refused, by the coordinator and at a site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carried_rounds import NOW, SITES, Carried, later
from forged_reply import forged, nobody_trains, request_of
from linear_site import LinearTrainer, linear_generator, study_text
from refusals import refused

from fedphantom.client.node.file_round import REPLY_FILE_LEFT
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.joining import renew_keys
from fedphantom.client.node.keys import present_keys
from fedphantom.client.node.standing import go_on, pause, withdraw
from fedphantom.common.errors import FedPhantomError
from fedphantom.common.exchange import RoundReply, RoundRequest, SiteTrainer
from fedphantom.common.keys import load_private_key
from fedphantom.common.round_files.request import write_request
from fedphantom.common.site_folder import REPLY_LEFT, SiteFolder
from fedphantom.common.study import parse_study
from fedphantom.server.checkpoints import latest_checkpoint
from fedphantom.server.coordinator.enrolling import enroll
from fedphantom.server.coordinator.superlink import SuperLink

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


def test_a_reply_to_a_request_of_another_run_of_the_study_is_refused(
    carried: Carried, carried_template: Carried
) -> None:
    again = carried_template.copy(carried.root / "again")
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


@pytest.mark.parametrize("leaves", [pause, lambda folder: withdraw(folder, "a patient withdrew consent")])
def test_a_site_that_pauses_or_withdraws_while_it_trains_hands_nothing_out(
    carried: Carried, leaves: Callable[[SiteFolder], None]
) -> None:
    folder = SiteFolder.open(carried.site("site-a"))

    class Interrupted(LinearTrainer):
        def train_round(self, request: RoundRequest) -> RoundReply:
            reply = super().train_round(request)
            leaves(folder)  # in another terminal
            return reply

    refused(
        4, "has paused|has withdrawn", lambda: carried.train("site-a", open_trainer=lambda root: Interrupted(folder))
    )
    assert not (carried.root / "site-a.reply").exists()
    assert not {REPLY_LEFT, REPLY_FILE_LEFT} & set(carried.events("site-a"))


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


def test_a_study_with_secure_aggregation_is_refused_with_a_sentence_on_both_sides(tmp_path: Path) -> None:
    table = "secure_aggregation = { threshold = 3, clip = 4.0, bits = 20 }"
    carried = Carried.make(tmp_path / "carried", study_text(federation=table), (*SITES, "site-c"))
    refused(3, "several exchanges each", carried.export)
    refused(3, "several exchanges each", carried.take)
    request = carried.root / "study.toml"  # any file: it is refused unread
    refused(3, "several exchanges each", lambda: carried.train("site-a", request, open_trainer=nobody_trains))
