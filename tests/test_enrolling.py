"""Who is enrolled: every way to get in that is not one's own is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from enrolment import NOW, Study, days, new_keys, signed_again
from refusals import refused

from fedphantom.common.enrolment.invitation import open_invitation
from fedphantom.common.enrolment.request import open_request
from fedphantom.common.enrolment.signed_file import file_digest
from fedphantom.common.in_toto import time_text
from fedphantom.common.journal import read_journal
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import invite, revoke
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.renewal import expiries, renew
from fedphantom.server.coordinator.setup import make_coordinator

# The way in.


def test_a_site_that_was_invited_and_asked_is_enrolled_and_on_the_roster(enrolling: Study) -> None:
    keys = new_keys()
    enrolling.enrolled("site-a", keys)
    (site,) = enrolling.roster().sites
    assert site.keys() == keys.public("site-a")
    assert (site.enrolled, site.expires) == (time_text(NOW), time_text(NOW + days(365)))
    assert enrolling.membership().by_node_key(keys.public("site-a").node_key) == site
    assert enrolling.events() == ["coordinator-made", "site-invited", "site-enrolled"]


def test_an_enrolment_counts_until_its_last_moment(enrolling: Study) -> None:
    enrolling.enrolled("site-a", new_keys())
    assert enrolling.active(NOW + days(365)) == ["site-a"]
    assert enrolling.active(NOW + days(365.001)) == []


def test_every_change_raises_the_rosters_number(enrolling: Study) -> None:
    serials = [enrolling.roster().serial]
    for name in ("site-b", "site-a"):
        enrolling.enrolled(name, new_keys())
        serials.append(enrolling.roster().serial)
    enrolling.revoke("site-b")
    assert [*serials, enrolling.roster().serial] == [0, 1, 2, 3]


def test_a_replayed_request_is_refused(enrolling: Study) -> None:
    request = enrolling.request(enrolling.invite("site-a"), new_keys())
    enrolling.enroll(request)
    before = enrolling.membership()
    refused(4, "used already", lambda: enrolling.enroll(request))
    assert enrolling.membership() == before


def test_an_invitation_is_for_one_request(enrolling: Study) -> None:
    invitation = enrolling.invite("site-a")
    enrolling.enroll(enrolling.request(invitation, new_keys()))
    refused(4, "used already", lambda: enrolling.enroll(enrolling.request(invitation, new_keys())))


def test_a_request_by_an_expired_invitation_is_refused(enrolling: Study) -> None:
    request, later = enrolling.request(enrolling.invite("site-a", days=2), new_keys()), NOW + days(2.001)
    refused(5, "expired on 2027-03-03", lambda: enrolling.enroll(request, now=later))
    enrolling.enroll(request, now=NOW + days(2))


def test_a_later_invitation_makes_the_earlier_void(enrolling: Study) -> None:
    first, second = enrolling.invite("site-a"), enrolling.invite("site-a")
    request = enrolling.request(first, new_keys())
    older = "made for an older invitation of site 'site-a', issued .*; a newer one was written since"
    name = file_digest(second)[:8]
    refused(
        4, f"{older}.*'fedphantom site init' with the newest.*begins with {name}", lambda: enrolling.enroll(request)
    )
    late = NOW + days(15)
    refused(4, f"{older}.*cannot be used any more.* Invite", lambda: enrolling.enroll(request, now=late))
    enrolling.enroll(enrolling.request(second, new_keys()))
    refused(4, f"{older}.*enrolled already", lambda: enrolling.enroll(request))


def test_a_revoked_invitation_is_void(enrolling: Study) -> None:
    invitation = enrolling.invite("site-a")
    enrolling.revoke("site-a")
    request = enrolling.request(invitation, new_keys())
    refused(4, "was revoked.*invite it again", lambda: enrolling.enroll(request))
    newer = enrolling.invite("site-a")
    refused(4, "older invitation", lambda: enrolling.enroll(request))
    enrolling.revoke("site-a")
    refused(4, "older invitation.* Invite the site again", lambda: enrolling.enroll(request))
    refused(4, "was revoked", lambda: enrolling.enroll(enrolling.request(newer, new_keys())))


def test_an_invitation_of_another_coordinator_is_refused(enrolling: Study, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Study.make(tmp_path / "other")
    request = other.request(other.invite("site-a"), new_keys())
    refused(5, "did not send", lambda: enrolling.enroll(request))


def test_an_invitation_that_a_stranger_made_up_is_refused(enrolling: Study) -> None:
    keys, forger = new_keys(), new_keys()
    forged = signed_again(
        enrolling.invite("site-a"),
        forger.identity,
        coordinator_key=forger.public("x").identity_key,
        token="00" * 32,
    )
    refused(5, "did not send", lambda: enrolling.enroll(enrolling.request(forged, keys)))


@pytest.mark.parametrize(
    "changes",
    [
        {"invitation": "0" * 64},
        {"token": "0" * 64},
        {"study_digest": "0" * 64},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_request_that_does_not_fit_its_invitation_is_refused(enrolling: Study, changes: dict[str, str]) -> None:
    request = enrolling.request(enrolling.invite("site-a"), new_keys(), changes=dict(changes))
    refused(5, "did not send", lambda: enrolling.enroll(request))


def test_a_site_cannot_enrol_under_another_name_than_it_was_invited_by(enrolling: Study) -> None:
    keys, invitation = new_keys(), enrolling.invite("site-a")
    request = enrolling.request(invitation, keys, changes={"keys": keys.public("site-b").model_dump()})
    refused(5, "sent to another site", lambda: enrolling.enroll(request))


def test_another_fingerprint_than_was_read_aloud_is_refused(enrolling: Study) -> None:
    invitation, keys, thief = enrolling.invite("site-a"), new_keys(), new_keys()
    read_aloud = open_request(enrolling.request(invitation, keys)).fingerprint()
    exchanged = enrolling.request(invitation, thief)
    refused(5, "--fingerprint: another", lambda: enrolling.enroll(exchanged, fingerprint=read_aloud))
    assert enrolling.active() == []
    enrolling.enroll(enrolling.request(invitation, keys), fingerprint=read_aloud.lower().replace("-", " "))


@pytest.mark.parametrize("part", ["node", "identity"])
def test_a_key_that_another_site_has_is_refused(enrolling: Study, part: str) -> None:
    keys = new_keys()
    enrolling.enrolled("site-a", keys)
    other = type(keys)(**({"node": new_keys().node, "identity": new_keys().identity} | {part: getattr(keys, part)}))
    request = enrolling.request(enrolling.invite("site-b"), other)
    refused(4, "key of site 'site-a' that is in use", lambda: enrolling.enroll(request))


@pytest.mark.parametrize("when", [-1.01, 1.01])
def test_a_request_dated_before_its_invitation_or_in_the_future_is_refused(enrolling: Study, when: float) -> None:
    request = enrolling.request(enrolling.invite("site-a"), new_keys(), created=NOW + days(when))
    refused(5, "dated before its invitation", lambda: enrolling.enroll(request))


def test_an_enrolled_site_is_not_invited_again(enrolling: Study) -> None:
    enrolling.enrolled("site-a", new_keys())
    refused(4, "is enrolled", lambda: enrolling.invite("site-a"))


def test_a_site_that_the_study_declares_no_weight_for_is_not_invited(tmp_path: Path, made_coordinator: Path) -> None:
    text = (made_coordinator / "study.toml").read_text()
    weighed = f'{text}[federation]\nweighting = "declared"\ndeclared_weights = {{ site-a = 1.0, site-b = 2.0 }}\n'
    (tmp_path / "study.toml").write_text(weighed)
    make_coordinator(tmp_path / "out", tmp_path / "study.toml", "fed:443", (), 365, None, NOW)
    invite(tmp_path / "out", "site-a", None, 14, NOW)
    refused(3, "no declared weight", lambda: invite(tmp_path / "out", "site-c", None, 14, NOW))


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 33, "é"])
def test_a_name_that_could_name_no_folder_is_refused(enrolling: Study, name: str) -> None:
    refused(3, "site name", lambda: enrolling.invite(name))


# The way out, and back.


def test_a_revoked_site_is_off_the_roster_and_its_keys_on_the_list_of_those_that_do_not_count(enrolling: Study) -> None:
    keys = new_keys()
    enrolling.enrolled("site-a", keys)
    enrolling.revoke("site-a", now=NOW + days(1))
    roster = enrolling.roster()
    assert roster.sites == ()
    (gone,) = roster.revoked
    assert (gone.name, gone.fingerprint) == ("site-a", keys.public("site-a").fingerprint())
    assert gone.revoked == time_text(NOW + days(1))
    last = read_journal(CoordinatorFolder(enrolling.folder).journal)[-1]
    assert (last.event, last.facts["reason"]) == ("site-revoked", "its node was stolen")


@pytest.mark.parametrize("part", ["node", "identity"])
def test_a_revoked_key_does_not_come_back(enrolling: Study, part: str) -> None:
    keys = new_keys()
    enrolling.enrolled("site-a", keys)
    enrolling.revoke("site-a")
    other = type(keys)(**({"node": new_keys().node, "identity": new_keys().identity} | {part: getattr(keys, part)}))
    for name in ("site-a", "site-b"):
        request = enrolling.request(enrolling.invite(name), other)
        refused(4, "key of site 'site-a' that is revoked", lambda request=request: enrolling.enroll(request))


def test_a_revoked_site_comes_back_with_new_keys_alone(enrolling: Study) -> None:
    old, new = new_keys(), new_keys()
    invitation = enrolling.enrolled("site-a", old)
    enrolling.revoke("site-a")
    renewal = enrolling.request(invitation, new, replaced=old)
    refused(4, "not enrolled", lambda: enrolling.enroll(renewal))
    enrolling.enrolled("site-a", new)
    assert [site.keys() for site in enrolling.roster().sites] == [new.public("site-a")]
    assert [gone.name for gone in enrolling.roster().revoked] == ["site-a"]


def test_nobody_is_revoked_by_a_name_that_is_not_there_or_without_a_reason(enrolling: Study) -> None:
    enrolling.enrolled("site-a", new_keys())
    refused(3, "no site 'site-b'", lambda: enrolling.revoke("site-b"))
    refused(3, "--reason", lambda: revoke(enrolling.folder, "site-a", "because", NOW))
    assert enrolling.active() == ["site-a"]


# Renewal.


def test_a_renewal_signed_by_the_present_key_exchanges_both_keys(enrolling: Study) -> None:
    old, new = new_keys(), new_keys()
    invitation = enrolling.enrolled("site-a", old)
    later = NOW + days(300)
    enrolling.enroll(enrolling.request(invitation, new, replaced=old, created=later), now=later)
    (site,) = enrolling.roster().sites
    assert site.keys() == new.public("site-a")
    assert site.expires == time_text(later + days(365))
    assert enrolling.roster().revoked == ()
    assert enrolling.events()[-1] == "site-renewed"


def test_a_renewal_that_another_key_signed_is_refused(enrolling: Study) -> None:
    invitation, thief = enrolling.enrolled("site-a", new_keys()), new_keys()
    request = enrolling.request(invitation, new_keys(), replaced=thief)
    refused(5, "present identity key did not sign", lambda: enrolling.enroll(request))


def test_a_replayed_renewal_is_refused_and_so_is_one_by_keys_that_were_replaced(enrolling: Study) -> None:
    old, new = new_keys(), new_keys()
    invitation = enrolling.enrolled("site-a", old)
    renewal = enrolling.request(invitation, new, replaced=old)
    enrolling.enroll(renewal)
    for request in (renewal, enrolling.request(invitation, new_keys(), replaced=old)):
        refused(5, "present identity key did not sign", lambda request=request: enrolling.enroll(request))


def test_a_renewal_back_to_former_keys_is_refused(enrolling: Study) -> None:
    old, new = new_keys(), new_keys()
    invitation = enrolling.enrolled("site-a", old)
    enrolling.enroll(enrolling.request(invitation, new, replaced=old))
    refused(4, "that is renewed", lambda: enrolling.enroll(enrolling.request(invitation, old, replaced=new)))


def test_a_site_renews_itself_and_no_other(enrolling: Study) -> None:
    keys, others = new_keys(), new_keys()
    enrolling.enrolled("site-a", keys)
    invitation = enrolling.enrolled("site-b", others)
    request = enrolling.request(invitation, new_keys(), replaced=keys)
    refused(5, "present identity key did not sign", lambda: enrolling.enroll(request))


def test_an_expired_site_is_not_renewed(enrolling: Study) -> None:
    keys, later = new_keys(), NOW + days(366)
    invitation = enrolling.enrolled("site-a", keys)
    request = enrolling.request(invitation, new_keys(), replaced=keys, created=later)
    refused(5, "keys that expired", lambda: enrolling.enroll(request, now=later))


def test_server_certificates_are_renewed_under_the_authority_that_sites_know(enrolling: Study) -> None:
    enrolling.enrolled("site-a", new_keys())
    invitation, folder = enrolling.invite("site-b"), CoordinatorFolder(enrolling.folder)
    names = ("sites-ca", "internal-ca", "proxy", "link")
    before = {name: folder.certificate(name).read_bytes() for name in names}
    told = renew(enrolling.folder, NOW + days(100)).expiries
    changed = {name for name in names if folder.certificate(name).read_bytes() != before[name]}
    assert changed == {"proxy", "link"}
    assert open_invitation(invitation).authority.encode() == before["sites-ca"]
    assert [one.what for one in told] == [
        "invitation for site-b",
        "site site-a",
        "certificate proxy",
        "certificate link",
        "certificate sites-ca",
        "certificate internal-ca",
    ]
    assert [one.expired for one in told] == [True, *[False] * 5]
    assert told[2].expires == time_text(NOW + days(465))
    assert expiries(Coordinator.open(enrolling.folder), NOW)[0].expired is False


def test_a_roster_that_a_kill_left_behind_the_registry_is_written_again_by_whoever_looks_next(
    enrolling: Study,
) -> None:
    enrolling.enrolled("site-a", new_keys())
    roster = CoordinatorFolder(enrolling.folder).roster
    before = roster.read_bytes()
    enrolling.revoke("site-a")
    newest = roster.read_bytes()
    for left in (before, b"{", None):
        if left is None:
            roster.unlink()
        else:
            roster.write_bytes(left)
        Coordinator.open(enrolling.folder)
        assert roster.read_bytes() == newest
    assert [site.name for site in enrolling.roster().sites] == []


def test_a_site_that_left_is_told_as_such_where_it_is_to_leave_again(enrolling: Study) -> None:
    enrolling.enrolled("site-a", new_keys())
    enrolling.revoke("site-a")
    refused(3, "no site 'site-a' is enrolled or invited: it was revoked already", lambda: enrolling.revoke("site-a"))
