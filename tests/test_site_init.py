"""A hospital's folder, keys and request, made from an invitation; its coins."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from enrolled_site import again, everything, init
from enrolment import NOW, Study, days, new_keys, signed_again
from killed import killed_at
from promised import promised_text, write_start
from refusals import refused
from tiny_cohorts import write_tiny_cohort

from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.keys import present_keys
from fedphantom.common.enrolment.request import open_request
from fedphantom.common.enrolment.site_keys import public_node_text
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.setup import make_coordinator

# site init.


def test_the_request_holds_public_keys_alone_of_private_ones_that_are_the_owners(invited: Path) -> None:
    folder = NodeFolder(invited / "site")
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


def test_it_says_in_plain_words_what_is_trained_what_leaves_and_what_to_compare(
    invited: Path, invited_site: Path
) -> None:
    told = again(invited, invited_site).text()
    assert "dp: none. This study makes NO differential-privacy promise" in told
    assert "leaves a site  each round: the generator's weights" in told
    assert "drawn from the operating system's randomness" in told
    assert Coordinator.open(invited / "coordinator").fingerprint() in told
    assert open_request((invited / "site" / "site-a.request.dsse.json").read_bytes()).fingerprint() in told


def test_called_again_it_changes_nothing(invited: Path, invited_site: Path) -> None:
    before = everything(invited / "site")
    again(invited, invited_site)
    assert everything(invited / "site") == before


def test_cut_off_at_any_moment_it_is_finished_by_the_same_command(
    invited_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.relative_to(invited_site / "site") for path in everything(invited_site / "site")}
    for moment in range(1, 40):
        invited = tmp_path / str(moment)
        invited.mkdir()
        shutil.copy(invited_site / "invitation", invited)
        if not killed_at(moment, lambda invited=invited: again(invited, invited_site), monkeypatch):
            assert moment > 10  # files that it writes one after the other
            return
        again(invited, invited_site)
        assert {path.relative_to(invited / "site") for path in everything(invited / "site")} == files
        request = open_request(NodeFolder(invited / "site").request("site-a").read_bytes())
        assert present_keys(NodeFolder(invited / "site")).public("site-a") == request.content.keys  # type: ignore[union-attr]  # there are
    pytest.fail("it never came to its end")


def test_what_a_kill_left_of_a_file_does_not_stand_in_the_way(invited_site: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / ".tmp-0123456789ab-study.toml").write_text("name")
    shutil.copy(invited_site / "invitation", tmp_path)
    assert again(tmp_path, invited_site).site == "site-a"


def test_an_invitation_that_was_changed_or_expired_makes_no_folder(invited: Path, invited_site: Path) -> None:
    site = invited / "another"
    changed = json.loads((invited / "invitation").read_bytes())
    changed["signatures"][0]["sig"] = changed["signatures"][0]["sig"][::-1].replace("=", "") + "=="
    (invited / "changed").write_text(json.dumps(changed, sort_keys=True, separators=(",", ":")))
    refused(5, "--invitation: ", lambda: again(invited, invited_site, site=site, invitation_file=invited / "changed"))
    refused(5, "expired on 2027-03-15", lambda: again(invited, invited_site, site=site, now=NOW + days(15)))
    refused(3, "--cohort: ", lambda: init(invited, site=site, cohort=invited / "nothing"))
    refused(3, "--start: ", lambda: again(invited, invited_site, site=site, start=invited / "nothing"))
    refused(3, "--ledger: ", lambda: again(invited, invited_site, site=site, ledgers=invited / "ledgers"))
    assert not site.exists()


def test_a_cohort_of_several_sites_is_refused(invited: Path) -> None:
    table = invited / "cohort" / "participants.tsv"
    header, *rows = table.read_text().splitlines()
    column = header.split("\t").index("site")
    for number, row in enumerate(rows):
        cells = row.split("\t")
        cells[column] = "ab"[number % 2]
        rows[number] = "\t".join(cells)
    table.write_text("\n".join([header, *rows]) + "\n")
    refused(3, "--cohort: a cohort that names 2 sites", lambda: init(invited, site=invited / "another"))


def test_a_folder_that_holds_something_else_is_refused(invited: Path, invited_site: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan.nii.gz").write_text("mine")
    refused(3, "DIR: a folder that holds something else", lambda: again(invited, invited_site, site=tmp_path / "data"))
    assert os.listdir(tmp_path / "data") == ["scan.nii.gz"]


def test_a_folder_of_another_coordinator_or_site_is_refused(invited: Path, invited_site: Path) -> None:
    forger = new_keys()
    exchanged = signed_again(
        (invited / "invitation").read_bytes(), forger.identity, coordinator_key=forger.public("x").identity_key
    )
    (invited / "other").write_bytes(exchanged)
    refused(3, "another coordinator", lambda: again(invited, invited_site, invitation_file=invited / "other"))
    (invited / "other").write_bytes(Study(invited).invite("site-b"))
    refused(3, "another site", lambda: again(invited, invited_site, invitation_file=invited / "other"))


def test_a_promised_study_is_not_begun_without_a_place_for_its_ledger(invited_site: Path, tmp_path: Path) -> None:
    study, start = tmp_path / "study.toml", tmp_path / "start.safetensors"
    study.write_text(promised_text(write_start(start)))
    make_coordinator(tmp_path / "coordinator", study, "fed:443", (), 365, start, NOW)
    (tmp_path / "invitation").write_bytes(Study(tmp_path).invite("site-a"))
    refused(3, "--ledger: no place for the privacy ledger", lambda: again(tmp_path, invited_site, start=start))
    assert not (tmp_path / "site").exists()


@pytest.mark.slow  # the noise that the promise takes
def test_a_site_of_a_promised_study_keeps_its_ledger_where_it_is_told(invited_site: Path, tmp_path: Path) -> None:
    study, start = tmp_path / "study.toml", tmp_path / "start.safetensors"
    study.write_text(promised_text(write_start(start)))
    make_coordinator(tmp_path / "coordinator", study, "fed:443", (), 365, start, NOW)
    (tmp_path / "invitation").write_bytes(Study(tmp_path).invite("site-a"))
    refused(
        3,
        "--start: no readable public start",
        lambda: again(tmp_path, invited_site, start=tmp_path / "nothing", ledgers=tmp_path / "ledgers"),
    )
    told = again(tmp_path, invited_site, start=start, ledgers=tmp_path / "ledgers").text()
    assert "patient-level differential privacy at every site" in told
    folder = SiteFolder.open(tmp_path / "site")
    assert folder.ledger == tmp_path / "ledgers" / "site-a"
    refused(3, "another ledger", lambda: again(tmp_path, invited_site, start=start, ledgers=tmp_path / "elsewhere"))
    assert again(tmp_path, invited_site, start=start).site == "site-a"  # made before: the ledger is where it was


# Coins.


def test_two_real_sites_with_the_same_study_and_cohort_draw_different_roles(invited_site: Path, tmp_path: Path) -> None:
    records, cohort = [], write_tiny_cohort(tmp_path / "cohort", 14)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(invited_site / "invitation", tmp_path / name)
        init(tmp_path / name, cohort=cohort)
        folder = SiteFolder.open(tmp_path / name / "site")
        assert folder.coins_from == "system"
        records.append(site_material(folder, folder.study()).coins)
        assert site_material(folder, folder.study()).coins == records[-1]  # drawn once
    assert records[0].roles.keys() == records[1].roles.keys()
    assert records[0].roles != records[1].roles
    assert {record.seed_source for record in records} == {"the operating system's randomness"}


def test_a_site_folder_whose_roles_come_from_elsewhere_is_not_taken_over(invited: Path, invited_site: Path) -> None:
    table = invited / "site" / "site.toml"
    table.write_text(table.read_text().replace('coins_from = "system"\n', ""))
    assert SiteFolder.open(invited / "site").coins_from == "study"
    refused(3, "another source of coins", lambda: again(invited, invited_site))
    table.write_text(f'{table.read_text()}coins_from = "dice"\n')
    refused(3, "the key 'coins_from' is 'dice', which is text", lambda: SiteFolder.open(invited / "site"))
