"""A hospital joins by a roster and renews its keys; the whole way, as it is typed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from enrolled_site import again, enroll, joined
from enrolment import NOW, Study, days, new_keys, signed_again
from killed import Killed
from refusals import refused

from fedphantom.cli import run
from fedphantom.client.node import keys as site_keys
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.joining import renew_keys
from fedphantom.client.node.keys import present_keys
from fedphantom.common.in_toto import time_text
from fedphantom.common.journal import read_journal
from fedphantom.common.keys import load_private_key
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.setup import make_coordinator

# site join.


def test_a_site_goes_by_a_roster_that_names_it(invited: Path) -> None:
    enroll(invited)
    told = joined(invited)
    assert (told.site, told.serial, list(told.sites), told.new_keys) == ("site-a", 1, ["site-a"], False)
    assert told.expires == time_text(NOW + days(365))
    folder = NodeFolder(invited / "site")
    assert folder.roster.read_bytes() == CoordinatorFolder(invited / "coordinator").roster.read_bytes()
    last = read_journal(SiteFolder.open(folder.root).journal)[-1]
    assert (last.event, last.facts["serial"], last.facts["sites"]) == ("roster-accepted", 1, ["site-a"])
    assert joined(invited) == told


def test_a_roster_with_another_fingerprint_than_was_read_aloud_is_refused(invited: Path) -> None:
    enroll(invited)
    refused(5, "--fingerprint: another", lambda: joined(invited, fingerprint=new_keys().public("x").fingerprint()))
    refused(3, "--fingerprint: ", lambda: joined(invited, fingerprint="4Z9QK"))
    assert not NodeFolder(invited / "site").roster.exists()


def test_a_roster_signed_by_another_key_is_refused(invited: Path) -> None:
    enroll(invited)
    forged = invited / "forged"
    forged.write_bytes(
        signed_again(CoordinatorFolder(invited / "coordinator").roster.read_bytes(), new_keys().identity)
    )
    refused(5, "ROSTER: a signature by the unknown key", lambda: joined(invited, roster=forged))


def test_an_older_roster_is_refused_and_so_is_another_of_the_same_number(invited: Path) -> None:
    enroll(invited)
    folder = CoordinatorFolder(invited / "coordinator")
    older = invited / "older"
    older.write_bytes(folder.roster.read_bytes())
    Study(invited).enrolled("site-b", new_keys())
    joined(invited)
    refused(5, "roster number 1 where number 2", lambda: joined(invited, roster=older))
    older.write_bytes(
        signed_again(folder.roster.read_bytes(), load_private_key(folder.private_key), issued="2027-03-02T12:00:00Z")
    )
    refused(5, "roster number 2 where number 2", lambda: joined(invited, roster=older))
    assert joined(invited).serial == 2


def test_a_roster_without_this_site_or_with_other_keys_under_its_name_is_refused(invited: Path) -> None:
    refused(5, "without this site", lambda: joined(invited))
    study = Study(invited)
    study.enroll(study.request((invited / "invitation").read_bytes(), new_keys()))
    refused(5, "other keys under this site's name", lambda: joined(invited))


def test_a_revoked_site_is_told_so_and_the_others_go_by_the_roster(invited: Path) -> None:
    enroll(invited)
    Study(invited).enrolled("site-b", new_keys())
    joined(invited)
    Study(invited).revoke("site-b")
    assert joined(invited).revoked == ("site-b",)
    Study(invited).revoke("site-a")
    refused(4, "revoked this site's keys on 2027-03-01", lambda: joined(invited))


def test_a_roster_on_which_the_site_expired_is_refused(invited: Path) -> None:
    enroll(invited)
    refused(5, "expired on 2028-02-29", lambda: joined(invited, now=NOW + days(366)))


def test_a_roster_of_another_study_is_refused(invited: Path, tmp_path: Path) -> None:
    enroll(invited)
    folder = CoordinatorFolder(invited / "coordinator")
    other = invited / "study.toml"
    other.write_text(other.read_text().replace("seed = 5", "seed = 6"))
    make_coordinator(tmp_path / "other", other, "fed:443", (), 365, None, NOW)
    shutil.copytree(folder.keys, tmp_path / "other" / "keys", dirs_exist_ok=True)
    coordinator = Coordinator.open(tmp_path / "other")
    coordinator.write_roster(coordinator.registry.read())
    refused(5, "roster of another study", lambda: joined(invited, roster=coordinator.folder.roster))


# site renew, and a new invitation.


def test_renewed_keys_are_used_once_they_stand_on_a_roster(invited: Path) -> None:
    enroll(invited)
    joined(invited)
    folder, later = NodeFolder(invited / "site"), NOW + days(300)
    before = present_keys(folder)
    asked = renew_keys(invited / "site", later)
    assert renew_keys(invited / "site", later + days(1)) == asked
    assert present_keys(folder) == before or present_keys(folder).public("x") == before.public("x")  # type: ignore[union-attr]  # there are
    enroll(invited, now=later)
    assert joined(invited, now=later).new_keys
    after = present_keys(folder).public("site-a")  # type: ignore[union-attr]  # there are
    assert after.fingerprint() == asked.fingerprint
    assert after != before.public("site-a")  # type: ignore[union-attr]  # there were
    assert not folder.next_keys.exists()
    assert not (folder.root / "keys-old").exists()
    assert not joined(invited, now=later).new_keys


def test_a_site_that_has_not_joined_or_expired_renews_nothing(invited: Path) -> None:
    refused(3, "has not joined", lambda: renew_keys(invited / "site", NOW))
    enroll(invited)
    joined(invited)
    refused(5, "do not count", lambda: renew_keys(invited / "site", NOW + days(366)))


@pytest.mark.parametrize("move", [0, 1])
def test_cut_off_between_two_moves_of_its_keys_it_goes_on(
    invited: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    enroll(invited)
    joined(invited)
    asked = renew_keys(invited / "site", NOW)
    enroll(invited)
    moves, replace = iter(range(10)), os.replace

    def killed(source: Any, target: Any) -> None:
        if "keys" in Path(source).name and next(moves) == move:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(site_keys.os, "replace", killed)
        with pytest.raises(Killed):
            joined(invited)
    assert joined(invited).new_keys
    assert present_keys(NodeFolder(invited / "site")).public("site-a").fingerprint() == asked.fingerprint  # type: ignore[union-attr]  # there are


def test_a_revoked_site_that_is_invited_again_asks_with_new_keys_and_keeps_all_else(
    invited: Path, invited_site: Path
) -> None:
    enroll(invited)
    joined(invited)
    site = SiteFolder.open(invited / "site")
    coins = site_material(site, site.study()).coins
    first = present_keys(NodeFolder(invited / "site")).public("site-a")  # type: ignore[union-attr]  # there are
    Study(invited).revoke("site-a")
    (invited / "invitation").write_bytes(Study(invited).invite("site-a"))
    told = again(invited, invited_site)
    assert not told.renews
    assert told.fingerprint != first.fingerprint()
    assert again(invited, invited_site) == told
    enroll(invited)
    assert joined(invited).new_keys
    assert site_material(site, site.study()).coins == coins


# The whole way, as it is typed.


def test_the_whole_way_as_it_is_typed(
    invited_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def told(line: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert run([*line.split(), "--json"]) == code
        said = capsys.readouterr()
        return dict(json.loads(said.out)) if code == 0 else {"error": said.err}

    server = told(f"server init lead --study {invited_site / 'study.toml'} --address localhost:8443 --also 127.0.0.1")
    for name in ("site-a", "site-b"):
        told(f"server invite lead {name} --out {name}.invitation --days 7")
        asked = told(f"site init {name} --invitation {name}.invitation --cohort {invited_site / 'cohort'}")
        assert asked["coordinator"] == server["fingerprint"]
        enrolled = told(f"server enroll lead {asked['request']} --fingerprint {asked['fingerprint']}")
        told(f"site join {name} {enrolled['roster']} --fingerprint {server['fingerprint']}")
    assert enrolled["enrolled"] == ["site-a", "site-b"]
    replayed = f"server enroll lead {asked['request']} --fingerprint {asked['fingerprint']}"
    assert "used already" in told(replayed, code=4)["error"]
    renewal = told("site renew site-b")
    told(f"server enroll lead {renewal['request']} --fingerprint {renewal['fingerprint']}")
    assert told(f"site join site-b {enrolled['roster']} --fingerprint {server['fingerprint']}")["new_keys"]
    assert run(["server", "revoke", "lead", "site-a", "--reason", "it left the consortium"]) == 0
    assert (
        "revoked this site's keys"
        in told(f"site join site-a {enrolled['roster']} --fingerprint {server['fingerprint']}", code=4)["error"]
    )
    assert [one["what"] for one in told("server renew lead")["expiries"]][-1].startswith("certificate ")
