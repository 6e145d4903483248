"""A hospital joins by a roster and renews its keys; the whole way, as it is typed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from enrolled_site import again, enroll, init, joined
from enrolment import NOW, Study, days, new_keys, signed_again
from killed import Killed
from refusals import refused
from tiny_cohorts import write_tiny_cohort

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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator that invited site-a, a cohort for it, and the site's folder."""
    root = tmp_path_factory.mktemp("made")
    study = Study.make(root)
    write_tiny_cohort(root / "cohort", 2)
    (root / "invitation").write_bytes(study.invite("site-a"))
    init(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy; the site's folder knows its cohort by the path in the original."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# site join.


def test_a_site_goes_by_a_roster_that_names_it(root: Path) -> None:
    enroll(root)
    told = joined(root)
    assert (told.site, told.serial, list(told.sites), told.new_keys) == ("site-a", 1, ["site-a"], False)
    assert told.expires == time_text(NOW + days(365))
    folder = NodeFolder(root / "site")
    assert folder.roster.read_bytes() == CoordinatorFolder(root / "coordinator").roster.read_bytes()
    last = read_journal(SiteFolder.open(folder.root).journal)[-1]
    assert (last.event, last.facts["serial"], last.facts["sites"]) == ("roster-accepted", 1, ["site-a"])
    assert joined(root) == told


def test_a_roster_with_another_fingerprint_than_was_read_aloud_is_refused(root: Path) -> None:
    enroll(root)
    refused(5, "--fingerprint: another", lambda: joined(root, fingerprint=new_keys().public("x").fingerprint()))
    refused(3, "--fingerprint: ", lambda: joined(root, fingerprint="4Z9QK"))
    assert not NodeFolder(root / "site").roster.exists()


def test_a_roster_signed_by_another_key_is_refused(root: Path) -> None:
    enroll(root)
    forged = root / "forged"
    forged.write_bytes(signed_again(CoordinatorFolder(root / "coordinator").roster.read_bytes(), new_keys().identity))
    refused(5, "ROSTER: a signature by the unknown key", lambda: joined(root, roster=forged))


def test_an_older_roster_is_refused_and_so_is_another_of_the_same_number(root: Path) -> None:
    enroll(root)
    folder = CoordinatorFolder(root / "coordinator")
    older = root / "older"
    older.write_bytes(folder.roster.read_bytes())
    Study(root).enrolled("site-b", new_keys())
    joined(root)
    refused(5, "roster number 1 where number 2", lambda: joined(root, roster=older))
    older.write_bytes(
        signed_again(folder.roster.read_bytes(), load_private_key(folder.private_key), issued="2027-03-02T12:00:00Z")
    )
    refused(5, "roster number 2 where number 2", lambda: joined(root, roster=older))
    assert joined(root).serial == 2


def test_a_roster_without_this_site_or_with_other_keys_under_its_name_is_refused(root: Path) -> None:
    refused(5, "without this site", lambda: joined(root))
    study = Study(root)
    study.enroll(study.request((root / "invitation").read_bytes(), new_keys()))
    refused(5, "other keys under this site's name", lambda: joined(root))


def test_a_revoked_site_is_told_so_and_the_others_go_by_the_roster(root: Path) -> None:
    enroll(root)
    Study(root).enrolled("site-b", new_keys())
    joined(root)
    Study(root).revoke("site-b")
    assert joined(root).revoked == ("site-b",)
    Study(root).revoke("site-a")
    refused(4, "revoked this site's keys on 2027-03-01", lambda: joined(root))


def test_a_roster_on_which_the_site_expired_is_refused(root: Path) -> None:
    enroll(root)
    refused(5, "expired on 2028-02-29", lambda: joined(root, now=NOW + days(366)))


def test_a_roster_of_another_study_is_refused(root: Path, tmp_path: Path) -> None:
    enroll(root)
    folder = CoordinatorFolder(root / "coordinator")
    other = root / "study.toml"
    other.write_text(other.read_text().replace("seed = 5", "seed = 6"))
    make_coordinator(tmp_path / "other", other, "fed:443", (), 365, None, NOW)
    shutil.copytree(folder.keys, tmp_path / "other" / "keys", dirs_exist_ok=True)
    coordinator = Coordinator.open(tmp_path / "other")
    coordinator.write_roster(coordinator.registry.read())
    refused(5, "roster of another study", lambda: joined(root, roster=coordinator.folder.roster))


# site renew, and a new invitation.


def test_renewed_keys_are_used_once_they_stand_on_a_roster(root: Path) -> None:
    enroll(root)
    joined(root)
    folder, later = NodeFolder(root / "site"), NOW + days(300)
    before = present_keys(folder)
    asked = renew_keys(root / "site", later)
    assert renew_keys(root / "site", later + days(1)) == asked
    assert present_keys(folder) == before or present_keys(folder).public("x") == before.public("x")  # type: ignore[union-attr]  # there are
    enroll(root, now=later)
    assert joined(root, now=later).new_keys
    after = present_keys(folder).public("site-a")  # type: ignore[union-attr]  # there are
    assert after.fingerprint() == asked.fingerprint
    assert after != before.public("site-a")  # type: ignore[union-attr]  # there were
    assert not folder.next_keys.exists()
    assert not (folder.root / "keys-old").exists()
    assert not joined(root, now=later).new_keys


def test_a_site_that_has_not_joined_or_expired_renews_nothing(root: Path) -> None:
    refused(3, "has not joined", lambda: renew_keys(root / "site", NOW))
    enroll(root)
    joined(root)
    refused(5, "do not count", lambda: renew_keys(root / "site", NOW + days(366)))


@pytest.mark.parametrize("move", [0, 1])
def test_cut_off_between_two_moves_of_its_keys_it_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    enroll(root)
    joined(root)
    asked = renew_keys(root / "site", NOW)
    enroll(root)
    moves, replace = iter(range(10)), os.replace

    def killed(source: Any, target: Any) -> None:
        if "keys" in Path(source).name and next(moves) == move:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(site_keys.os, "replace", killed)
        with pytest.raises(Killed):
            joined(root)
    assert joined(root).new_keys
    assert present_keys(NodeFolder(root / "site")).public("site-a").fingerprint() == asked.fingerprint  # type: ignore[union-attr]  # there are


def test_a_revoked_site_that_is_invited_again_asks_with_new_keys_and_keeps_all_else(root: Path, made: Path) -> None:
    enroll(root)
    joined(root)
    site = SiteFolder.open(root / "site")
    coins = site_material(site, site.study()).coins
    first = present_keys(NodeFolder(root / "site")).public("site-a")  # type: ignore[union-attr]  # there are
    Study(root).revoke("site-a")
    (root / "invitation").write_bytes(Study(root).invite("site-a"))
    told = again(root, made)
    assert not told.renews
    assert told.fingerprint != first.fingerprint()
    assert again(root, made) == told
    enroll(root)
    assert joined(root).new_keys
    assert site_material(site, site.study()).coins == coins


# The whole way, as it is typed.


def test_the_whole_way_as_it_is_typed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def told(line: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert run([*line.split(), "--json"]) == code
        said = capsys.readouterr()
        return dict(json.loads(said.out)) if code == 0 else {"error": said.err}

    server = told(f"server init lead --study {made / 'study.toml'} --address localhost:8443 --also 127.0.0.1")
    for name in ("site-a", "site-b"):
        told(f"server invite lead {name} --out {name}.invitation --days 7")
        asked = told(f"site init {name} --invitation {name}.invitation --cohort {made / 'cohort'}")
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
