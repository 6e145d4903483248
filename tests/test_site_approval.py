"""A site's limits, approval and standing: nothing is answered but what a person approved, within what it allows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from deployed_site import Deployed, deploy
from enrolment import Study as Enrolled
from enrolment import new_keys
from promised import promised_text
from refusals import refused
from tiny_cohorts import tiny_text

from fedphantom.client.node.approval import APPROVAL_FILE, approve, propose, refuse_unapproved
from fedphantom.client.node.approval_text import proposal_of, proposal_text
from fedphantom.client.node.joining import join
from fedphantom.client.node.limits import LIMITS_FILE, LIMITS_TEXT, SiteLimits, read_limits
from fedphantom.client.node.permission import check_permission
from fedphantom.client.node.standing import go_on, pause, standing, withdraw
from fedphantom.common.errors import ConfigError, PolicyRefused, VerificationFailed
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import Study, parse_study
from fedphantom.server.coordinator.coordinator import Coordinator

WORDS = "00000-00000-00000-00000-00000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deploy(tmp_path_factory.mktemp("approval"))


@pytest.fixture
def site(made: Deployed, tmp_path: Path) -> SiteFolder:
    """Joined, with limits that its four patients keep, and nothing approved."""
    shutil.copytree(made.site.root, tmp_path / "site")
    text = LIMITS_TEXT.replace("patients = 10 ", "patients = 1 ").replace("sites = 2 ", "sites = 1 ")
    (tmp_path / "site" / LIMITS_FILE).write_text(text)
    return SiteFolder.open(tmp_path / "site")


def approved(site: SiteFolder) -> SiteFolder:
    proposal = proposal_of(site)
    approve(site, proposal, proposal.seen.word())
    return site


def test_what_is_shown_ends_in_the_words_that_approve_it_and_only_they_do(site: SiteFolder) -> None:
    proposal = proposal_of(site)
    shown = proposal_text(site, proposal)
    assert shown.endswith(f"--seen {proposal.seen.word()}")
    assert "Each of" in shown
    assert "the coordinator sees of 'site-a'" in shown
    with pytest.raises(PolicyRefused, match="nobody has approved it"):
        check_permission(site)
    refused(
        4, "--seen: not the words of what stands here now: they were mistyped", partial(approve, site, proposal, WORDS)
    )
    for typed, letters in {"": 0, "X": 1, proposal.seen.word()[:-1]: 24, "U" + proposal.seen.word()[1:]: 25}.items():
        no_words = f"--seen: no words of an approval .{letters} letters? .*copy its last line whole"
        refused(3, no_words, partial(approve, site, proposal, typed))
    assert not (site.root / APPROVAL_FILE).exists()
    approve(site, proposal, proposal.seen.word().lower().replace("-", " "))
    check_permission(site)
    assert proposal_of(site).changes == ()


def test_the_words_of_an_earlier_approval_are_told_with_what_changed_since(site: SiteFolder) -> None:
    words = proposal_of(site).seen.word()
    approved(site)
    with_limits(site)
    refused(
        4,
        f"--seen: the words of the approval before this one; since then: {LIMITS_FILE} was changed; expected",
        lambda: approve(site, proposal_of(site), words),
    )


def with_limits(site: SiteFolder) -> None:
    path = site.root / LIMITS_FILE
    path.write_text(path.read_text().replace("rounds = 200", "rounds = 150"))


def with_egress(site: SiteFolder) -> None:
    site.egress.write_text(site.egress.read_text().replace('"fake_std"', '"patients"'))


def with_study(site: SiteFolder) -> None:
    site.study_file.write_text(site.study_file.read_text().replace("local_steps = ", "local_steps = 1"))


@pytest.mark.parametrize(
    ("change", "said"),
    [(with_limits, "limits.toml was changed"), (with_egress, "what may leave"), (with_study, "training.local_steps")],
)
def test_whatever_changes_after_the_approval_stops_the_site(
    site: SiteFolder, change: Callable[[SiteFolder], None], said: str
) -> None:
    approved(site)
    change(site)
    with pytest.raises(PolicyRefused, match=said):
        refuse_unapproved(site)


def test_other_code_under_the_same_version_stops_the_site(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    approved(site)
    monkeypatch.setattr("fedphantom.client.node.approval.installed_code_digest", lambda: "0" * 64)
    with pytest.raises(PolicyRefused, match="other code under the same version"):
        check_permission(site)


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ({"site-a": "keys", "site-b": "keys"}, ()),
        ({"site-a": "keys", "site-b": "others"}, ("site 'site-b' has other keys",)),
        ({"site-a": "keys"}, ("site 'site-b' no longer takes part",)),
        (
            {"site-a": "others", "site-b": "keys", "site-c": "keys"},
            ("site 'site-c' takes part now", "site 'site-a' has other keys"),
        ),
    ],
)
def test_another_site_or_a_sites_other_keys_are_a_change(
    site: SiteFolder, sites: dict[str, str], said: tuple[str, ...]
) -> None:
    before = replace(proposal_of(site).seen, sites={"site-a": "keys", "site-b": "keys"})
    after = replace(before, sites=sites)
    assert after.changes_since(before) == said
    assert (after.word() == before.word()) == (not said)


def test_whoever_joins_after_the_approval_stops_the_site(made: Deployed, site: SiteFolder, tmp_path: Path) -> None:
    """Only a person may add somebody to those whom a site trains with."""
    approved(site)
    shutil.copytree(made.coordinator.root, tmp_path / "coordinator")
    study, now = Enrolled(tmp_path), datetime.now(UTC)
    study.enrolled("site-b", new_keys(), now=now)
    coordinator = Coordinator.open(tmp_path / "coordinator")
    join(site.root, coordinator.folder.roster, coordinator.fingerprint(), now)
    with pytest.raises(PolicyRefused, match="site 'site-b' takes part now"):
        check_permission(site)


def test_an_approval_that_was_written_by_hand_is_found_out(site: SiteFolder) -> None:
    approved(site)
    path = site.root / APPROVAL_FILE
    path.write_text(path.read_text().replace('"site": "site-a"', '"site": "site-b"'))
    with pytest.raises(VerificationFailed, match="other than the one that the site's journal names"):
        check_permission(site)


def test_a_study_put_in_place_of_the_enrolled_one_cannot_be_approved(site: SiteFolder) -> None:
    with_study(site)
    with pytest.raises(PolicyRefused, match="not the one that its coordinator's roster names"):
        propose(site, patients=4, reply_bytes=1)


# Limits.


def limits(**changes: object) -> SiteLimits:
    default = {
        "rounds": 200,
        "local_steps": 5000,
        "patients": 1,
        "sites": 1,
        "sharing": ["weights", "ensemble", "volumes"],
        "differential_privacy": False,
        "secure_aggregation": False,
        "epsilon": 10.0,
        "reply_mb": 512,
    }
    return SiteLimits.model_validate(default | changes)


def study() -> Study:
    return parse_study(tiny_text())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 1}, "rounds .at most 1"),
        ({"local_steps": 1}, "steps a round .at most 1"),
        ({"patients": 13}, "fewer training patients here than 13"),
        ({"sites": 3}, "2 sites .at least 3"),
        ({"sites": 3}, "rounds of 2 sites .at least 3"),
        ({"sharing": ["volumes"]}, "sharing = 'weights'"),
        ({"differential_privacy": True}, "no differential privacy"),
        ({"secure_aggregation": True}, "no secure aggregation"),
        ({"reply_mb": 1}, "replies of 2 MB .at most 1"),
    ],
)
def test_a_study_that_asks_for_more_is_refused_and_told_what(changes: dict[str, object], said: str) -> None:
    limits().refuse(study(), sites=("a", "b"), patients=12, reply_bytes=2_000_000)
    with pytest.raises(PolicyRefused, match=said) as refused:
        limits(**changes).refuse(study(), sites=("a", "b"), patients=12, reply_bytes=2_000_000)
    assert refused.value.exit_code == 4


def test_a_promise_of_more_than_the_site_allows_is_refused() -> None:
    promised = parse_study(promised_text("a" * 64))
    assert promised.privacy.promise is not None
    asked = promised.privacy.promise.epsilon
    limits(epsilon=asked).refuse(promised, sites=("a", "b"), patients=12, reply_bytes=1)
    with pytest.raises(PolicyRefused, match=f"ε = {asked:g} .at most {asked / 2:g}"):
        limits(epsilon=asked / 2).refuse(promised, sites=("a", "b"), patients=12, reply_bytes=1)


def test_the_file_that_a_site_begins_with_can_be_read_and_a_key_that_none_has_cannot(tmp_path: Path) -> None:
    (tmp_path / LIMITS_FILE).write_text(LIMITS_TEXT)
    assert read_limits(tmp_path) == limits(patients=10, sites=2)
    for text in (LIMITS_TEXT + "speed = 3\n", LIMITS_TEXT.replace("rounds = 200", "rounds = true"), "rounds = [", ""):
        (tmp_path / LIMITS_FILE).write_text(text)
        with pytest.raises(ConfigError, match=r"limits\.toml"):
            read_limits(tmp_path)


# Standing.


def test_a_site_that_pauses_answers_nothing_until_it_goes_on(site: SiteFolder) -> None:
    approved(site)
    pause(site)
    assert standing(site) == "paused"
    with pytest.raises(PolicyRefused, match="this site has paused"):
        check_permission(site)
    go_on(site)
    check_permission(site)


def test_a_withdrawal_is_final(site: SiteFolder) -> None:
    approved(site)
    withdraw(site, "the board decided so")
    for attempt in (pause, go_on, check_permission):
        with pytest.raises(PolicyRefused, match="has withdrawn"):
            attempt(site)
    assert standing(site) == "withdrawn"
