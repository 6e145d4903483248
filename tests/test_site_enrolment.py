"""A hospital's side of enrolment: a folder, keys and a request from an invitation; rosters believed, keys renewed."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from enrolment import NOW, Study, days, new_keys, signed_again
from promised import promised_text, write_start
from tiny_cohorts import write_tiny_cohort

from fedphantom.cli import run
from fedphantom.client.node import keys as site_keys
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.joining import SiteJoined, join, renew_keys
from fedphantom.client.node.keys import present_keys
from fedphantom.client.node.setup import SiteMade, init_site
from fedphantom.common.enrolment.request import open_request
from fedphantom.common.enrolment.site_keys import public_node_text
from fedphantom.common.errors import FedPhantomError
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


def init(root: Path, *, site: Path | None = None, **changes: Any) -> SiteMade:
    arguments: dict[str, Any] = {
        "root": root / (site or "site"),
        "invitation_file": root / "invitation",
        "cohort": root / "cohort",
        "ledgers": None,
        "start": None,
        "now": NOW,
        "stage": lambda name: lambda done, total: None,
    }
    return init_site(**(arguments | changes))


def again(root: Path, made: Path, **changes: Any) -> SiteMade:
    return init(root, cohort=made / "cohort", **changes)


def enroll(root: Path, *, now: Any = NOW) -> None:
    Study(root).enroll((root / "site" / "site-a.request.dsse.json").read_bytes(), now=now)


def joined(root: Path, *, now: Any = NOW, roster: Path | None = None, fingerprint: str | None = None) -> SiteJoined:
    coordinator = Coordinator.open(root / "coordinator")
    return join(root / "site", roster or coordinator.folder.roster, fingerprint or coordinator.fingerprint(), now)


def refused(code: int, words: str, act: Callable[[], object]) -> None:
    with pytest.raises(FedPhantomError, match=words) as caught:
        act()
    assert caught.value.exit_code == code


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# site init.


def test_the_request_holds_public_keys_alone_of_private_ones_that_are_the_owners(root: Path) -> None:
    folder = NodeFolder(root / "site")
    request = open_request(folder.request("site-a").read_bytes())
    node = load_ssh_private_key((folder.keys / "node").read_bytes(), None)  # as Flower's SuperNode reads it
    assert public_node_text(node.public_key()) == request.content.keys.node_key  # type: ignore[arg-type]  # it is one
    assert (folder.keys / "node.pub").read_text().strip() == request.content.keys.node_key
    assert present_keys(folder).public("site-a") == request.content.keys  # type: ignore[union-attr]  # there are
    for path in (folder.keys / "node", folder.keys / "identity" / "key.pem", folder.request("site-a")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (folder.root, folder.keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert b"PRIVATE" not in folder.request("site-a").read_bytes()


def test_it_says_in_plain_words_what_is_trained_what_leaves_and_what_to_compare(root: Path, made: Path) -> None:
    told = again(root, made).text()
    assert "dp: none. This study makes NO differential-privacy promise" in told
    assert "leaves a site  each round: the generator's weights" in told
    assert "drawn from the operating system's randomness" in told
    assert Coordinator.open(root / "coordinator").fingerprint() in told
    assert open_request((root / "site" / "site-a.request.dsse.json").read_bytes()).fingerprint() in told


def test_called_again_it_changes_nothing(root: Path, made: Path) -> None:
    before = everything(root / "site")
    again(root, made)
    assert everything(root / "site") == before


class Killed(BaseException):
    """Stands for the end of the process."""


def test_cut_off_at_any_moment_it_is_finished_by_the_same_command(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.relative_to(made / "site") for path in everything(made / "site")}
    for moment in range(1, 40):
        root, left = tmp_path / str(moment), [moment]
        root.mkdir()
        shutil.copy(made / "invitation", root)
        replace = os.replace

        def counting(*paths: Any, left: list[int] = left, replace: Any = replace) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            replace(*paths)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", counting)
            try:
                again(root, made)
            except Killed:
                pass
            else:
                assert moment > 10  # files that it writes one after the other
                return
        again(root, made)
        assert {path.relative_to(root / "site") for path in everything(root / "site")} == files
        request = open_request(NodeFolder(root / "site").request("site-a").read_bytes())
        assert present_keys(NodeFolder(root / "site")).public("site-a") == request.content.keys  # type: ignore[union-attr]  # there are
    pytest.fail("it never came to its end")


def test_what_a_kill_left_of_a_file_does_not_stand_in_the_way(made: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / ".tmp-0123456789ab-study.toml").write_text("name")
    shutil.copy(made / "invitation", tmp_path)
    assert again(tmp_path, made).site == "site-a"


def test_an_invitation_that_was_changed_or_expired_makes_no_folder(root: Path, made: Path) -> None:
    site = root / "another"
    changed = json.loads((root / "invitation").read_bytes())
    changed["signatures"][0]["sig"] = changed["signatures"][0]["sig"][::-1].replace("=", "") + "=="
    (root / "changed").write_text(json.dumps(changed, sort_keys=True, separators=(",", ":")))
    refused(5, "--invitation: ", lambda: again(root, made, site=site, invitation_file=root / "changed"))
    refused(5, "expired on 2027-03-15", lambda: again(root, made, site=site, now=NOW + days(15)))
    refused(3, "--cohort: ", lambda: init(root, site=site, cohort=root / "nothing"))
    refused(3, "--start: ", lambda: again(root, made, site=site, start=root / "nothing"))
    refused(3, "--ledger: ", lambda: again(root, made, site=site, ledgers=root / "ledgers"))
    assert not site.exists()


def test_a_cohort_of_several_sites_is_refused(root: Path) -> None:
    table = root / "cohort" / "participants.tsv"
    header, *rows = table.read_text().splitlines()
    column = header.split("\t").index("site")
    for number, row in enumerate(rows):
        cells = row.split("\t")
        cells[column] = "ab"[number % 2]
        rows[number] = "\t".join(cells)
    table.write_text("\n".join([header, *rows]) + "\n")
    refused(3, "--cohort: a cohort that names 2 sites", lambda: init(root, site=root / "another"))


def test_a_folder_that_holds_something_else_is_refused(root: Path, made: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan.nii.gz").write_text("mine")
    refused(3, "DIR: a folder that holds something else", lambda: again(root, made, site=tmp_path / "data"))
    assert os.listdir(tmp_path / "data") == ["scan.nii.gz"]


def test_a_folder_of_another_coordinator_or_site_is_refused(root: Path, made: Path) -> None:
    forger = new_keys()
    exchanged = signed_again(
        (root / "invitation").read_bytes(), forger.identity, coordinator_key=forger.public("x").identity_key
    )
    (root / "other").write_bytes(exchanged)
    refused(3, "another coordinator", lambda: again(root, made, invitation_file=root / "other"))
    (root / "other").write_bytes(Study(root).invite("site-b"))
    refused(3, "another site", lambda: again(root, made, invitation_file=root / "other"))


@pytest.mark.slow  # the noise that the promise takes
def test_a_site_of_a_promised_study_keeps_its_ledger_where_it_is_told(made: Path, tmp_path: Path) -> None:
    study, start = tmp_path / "study.toml", tmp_path / "start.safetensors"
    study.write_text(promised_text(write_start(start)))
    make_coordinator(tmp_path / "coordinator", study, "fed:443", (), 365, start, NOW)
    (tmp_path / "invitation").write_bytes(Study(tmp_path).invite("site-a"))
    refused(3, "--start: no readable public start", lambda: again(tmp_path, made, start=tmp_path / "nothing"))
    told = again(tmp_path, made, start=start, ledgers=tmp_path / "ledgers").text()
    assert "patient-level differential privacy at every site" in told
    folder = SiteFolder.open(tmp_path / "site")
    assert folder.ledger == tmp_path / "ledgers" / "site-a"
    refused(3, "another ledger", lambda: again(tmp_path, made, start=start, ledgers=tmp_path / "elsewhere"))


# Coins.


def test_two_real_sites_with_the_same_study_and_cohort_draw_different_roles(made: Path, tmp_path: Path) -> None:
    records, cohort = [], write_tiny_cohort(tmp_path / "cohort", 14)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(made / "invitation", tmp_path / name)
        init(tmp_path / name, cohort=cohort)
        folder = SiteFolder.open(tmp_path / name / "site")
        assert folder.coins_from == "system"
        records.append(site_material(folder, folder.study()).coins)
        assert site_material(folder, folder.study()).coins == records[-1]  # drawn once
    assert records[0].roles.keys() == records[1].roles.keys()
    assert records[0].roles != records[1].roles
    assert {record.seed_source for record in records} == {"the operating system's randomness"}


def test_a_site_folder_whose_roles_come_from_elsewhere_is_not_taken_over(root: Path, made: Path) -> None:
    table = root / "site" / "site.toml"
    table.write_text(table.read_text().replace('coins_from = "system"\n', ""))
    assert SiteFolder.open(root / "site").coins_from == "study"
    refused(3, "another source of coins", lambda: again(root, made))
    table.write_text(f'{table.read_text()}coins_from = "dice"\n')
    refused(3, "no valid site.toml", lambda: SiteFolder.open(root / "site"))


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
