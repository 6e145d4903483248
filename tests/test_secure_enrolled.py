"""Secure aggregation at an enrolled site: whom it may be summed with is what was approved there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from enrolment import NOW, Study, days, new_keys
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.client.conditions import Conditions
from fedphantom.client.node.approval import approve
from fedphantom.client.node.approval_text import proposal_of, proposal_text
from fedphantom.client.node.joining import join
from fedphantom.client.node.limits import LIMITS_FILE
from fedphantom.client.node.permission import approved_peers, check_permission
from fedphantom.client.node.setup import init_site
from fedphantom.client.secure_reply import SecureReply
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.masking.keys import read_keys
from fedphantom.common.masking.messages import KeysGiven, KeysWanted
from fedphantom.common.masking.peers import Peers
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server.coordinator.coordinator import Coordinator

TERMS = "[federation]\nsecure_aggregation = { threshold = 3, clip = 20.0 }\n"


def joined(root: Path, others: str) -> Study:
    """A study of enrolled sites, the first of them with a folder, which joined."""
    study = Study.make(root, text=tiny_text() + TERMS)
    for letter in others:
        study.enrolled(f"site-{letter}", new_keys())
    write_tiny_cohort(root / "cohort", 6)
    (root / "invitation").write_bytes(study.invite("site-a"))
    init_site(
        root=root / "site",
        invitation_file=root / "invitation",
        cohort=root / "cohort",
        ledgers=None,
        start=None,
        now=NOW,
        stage=lambda name: lambda done, total: None,
    )
    study.enroll((root / "site" / "site-a.request.dsse.json").read_bytes())
    coordinator = Coordinator.open(study.folder)
    join(root / "site", coordinator.folder.roster, coordinator.fingerprint(), NOW)
    limits = root / "site" / LIMITS_FILE
    limits.write_text(limits.read_text().replace("patients = 10 ", "patients = 1 "))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three sites; the first approved."""
    study = joined(tmp_path_factory.mktemp("enrolled"), "bc")
    folder = SiteFolder.open(study.root / "site")
    approve(folder, proposal_of(folder), proposal_of(folder).seen.word())
    return study


def never(_: RoundRequest) -> RoundReply:
    raise AssertionError("nobody asked for training")


@pytest.fixture
def folder(study: Study) -> SiteFolder:
    return SiteFolder.open(study.root / "site")


def coordinators(study: Study, now: datetime) -> Peers:
    return Peers({site.name: site.identity() for site in study.membership().active(now)})


def test_site_and_coordinator_know_the_same_sites_by_the_same_keys(study: Study, folder: SiteFolder) -> None:
    assert approved_peers(folder, NOW).digest == coordinators(study, NOW).digest
    assert set(approved_peers(folder, NOW).keys) == {"site-a", "site-b", "site-c"}


def test_sites_whose_enrolment_expired_are_summed_with_no_more(folder: SiteFolder) -> None:
    assert set(approved_peers(folder, NOW + days(500)).keys) == set()


def test_the_masking_keys_of_a_permitted_site_are_signed_by_its_enrolled_identity(
    study: Study, folder: SiteFolder
) -> None:
    conditions = check_permission(folder)
    assert conditions.fewest_sites == 2  # the site's own limit; the study asks for three
    given = SecureReply(folder, never, conditions).answer(KeysWanted(folder.study().digest(), 1))
    assert isinstance(given, KeysGiven)
    peers = coordinators(study, datetime.now(UTC))
    assert read_keys(given.keys, peers, study=folder.study().digest(), round=1).site == "site-a"


def test_who_approves_reads_that_the_coordinator_sees_sums(folder: SiteFolder) -> None:
    told = proposal_text(folder, proposal_of(folder))
    assert (
        "as whole numbers under masks, which come off the sum of 3 sites or more alone, while no more than 1 of the 3"
        in told
    )
    assert "fake_mean" not in told


def test_a_site_that_asks_for_more_sites_approves_no_such_study(folder: SiteFolder) -> None:
    limits = folder.root / LIMITS_FILE
    text = limits.read_text()
    limits.write_text(text.replace("sites = 2 ", "sites = 4 "))
    try:
        with pytest.raises(PolicyRefused, match="3 sites"):
            proposal_of(folder)
    finally:
        limits.write_text(text)


@pytest.mark.parametrize(("others", "why"), [("bcdefg", "two groups of 3 could"), ("b", "2 sites: of two, each")])
def test_a_study_whose_masks_would_hide_too_little_among_its_sites_is_not_approved(
    tmp_path: Path, others: str, why: str
) -> None:
    """The coordinator that would have refused it may be another program."""
    folder = SiteFolder.open(joined(tmp_path, others).root / "site")
    with pytest.raises(PolicyRefused, match=why):
        proposal_of(folder)


def test_nor_does_a_site_give_keys_among_so_many_sites(folder: SiteFolder) -> None:
    seven = Peers({f"site-{letter}": new_keys().identity.public_key() for letter in "abcdefg"})
    with pytest.raises(PolicyRefused, match="two groups of 3 could"):
        SecureReply(folder, never, Conditions(lambda: seven)).answer(KeysWanted(folder.study().digest(), 1))
