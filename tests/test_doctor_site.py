"""What a site's doctor says of the site itself: enrolment, keys, terms, cohort, records, what is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deployed_site import PATIENT, Deployed, approve_as_it_stands, deploy
from promised import DELTA, promised_site, trainer

from fedphantom.client.node import launcher
from fedphantom.client.node.answers import REPLY_ARRIVED
from fedphantom.client.node.approval_text import ledger_rows
from fedphantom.client.node.doctor import software
from fedphantom.client.node.doctor.cohort_state import check_cohort_state
from fedphantom.client.node.doctor.enrolled import check_enrolment, check_key_files
from fedphantom.client.node.doctor.examination import finding_of
from fedphantom.client.node.doctor.finding import Outcome, without_small_counts
from fedphantom.client.node.doctor.link import check_link
from fedphantom.client.node.doctor.records import check_coins, check_journal, check_ledger
from fedphantom.client.node.doctor.software import check_launcher, check_telemetry, check_versions
from fedphantom.client.node.doctor.terms import check_approval, check_limits, check_standing, check_study
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.keys import make_next_keys, take_next_keys
from fedphantom.client.node.standing import go_on, pause, withdraw
from fedphantom.client.site_setup import read_egress_rule
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.exchange import RoundRequest
from fedphantom.common.flower_programs import QUIET, flower_environment
from fedphantom.common.journal import Journal
from fedphantom.common.site_folder import SiteFolder

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Approved, too."""
    made = deploy(tmp_path_factory.mktemp("deployed"))
    approve_as_it_stands(made.site)
    return made


@pytest.fixture
def site(deployed: Deployed, tmp_path: Path) -> SiteFolder:
    """A copy to spoil; it knows its cohort by the path in the original."""
    shutil.copytree(deployed.site.root, tmp_path / "site")
    return SiteFolder.open(tmp_path / "site")


def said(site: SiteFolder, check: Callable[[], Outcome]) -> tuple[str, str]:
    finding = finding_of(site, "it", check)
    assert (finding.fix == "") == (finding.light == "green")
    return finding.light, finding.found


def lit(site: SiteFolder, check: Callable[[], Outcome], words: str = "") -> str:
    light, found = said(site, check)
    assert words in found
    return light


# Enrolment and keys.


def test_a_link_is_declared_until_a_reply_arrived_and_yellow_where_that_was_slower(site: SiteFolder) -> None:
    declared = check_link(site)
    assert (declared.light, declared.fix) == ("green", "")
    assert declared.found.startswith("not measured before a reply of this site arrived; the study declares 10 Mbit/s")
    values = read_egress_rule(site).generator.values
    assert f"its {4e-6 * values:.1f} MB take {32e-7 * values:.0f} s each way" in declared.found
    for seconds, light in {54.0: "green", 56.0: "yellow"}.items():  # 40 s by the study, and 15 s of handing over
        Journal(site.journal).append(REPLY_ARRIVED, round=7, bytes=50_000_000, seconds=seconds)
        measured = check_link(site)
        arrived = f"a reply of 50.0 MB arrived {seconds:.0f} s after it left, {400 / seconds:.2g} Mbit/s or more"
        assert measured.light == light
        assert measured.found.startswith(f"round 7: {arrived}; the study declares")
    assert "'slowest_link_mbit'" in measured.fix


def test_an_enrolment_is_green_yellow_from_thirty_days_ahead_and_red_once_expired(site: SiteFolder) -> None:
    assert lit(site, lambda: check_enrolment(site, NOW)) == "green"
    assert lit(site, lambda: check_enrolment(site, NOW + timedelta(days=330))) == "green"
    assert lit(site, lambda: check_enrolment(site, NOW + timedelta(days=340))) == "yellow"
    assert lit(site, lambda: check_enrolment(site, NOW + timedelta(days=366)), "expired") == "red"


def test_a_site_that_has_not_joined_is_red(site: SiteFolder) -> None:
    NodeFolder(site.root).roster.unlink()
    assert lit(site, lambda: check_enrolment(site, NOW), "has not joined") == "red"


def test_keys_that_the_roster_does_not_name_are_red(site: SiteFolder) -> None:
    make_next_keys(NodeFolder(site.root))
    take_next_keys(NodeFolder(site.root))
    assert lit(site, lambda: check_enrolment(site, NOW), "does not name the keys") == "red"


def test_a_roster_that_was_changed_is_red(site: SiteFolder) -> None:
    roster = NodeFolder(site.root).roster
    envelope = json.loads(roster.read_bytes())
    envelope["signatures"][0]["sig"] = "AAAA" + envelope["signatures"][0]["sig"][4:]
    roster.write_text(json.dumps(envelope))
    assert lit(site, lambda: check_enrolment(site, NOW)) == "red"


@pytest.mark.parametrize("name", ["keys/node", "keys/identity/key.pem", "invitation.dsse.json"])
def test_a_secret_that_others_may_read_is_red(site: SiteFolder, name: str) -> None:
    assert lit(site, lambda: check_key_files(site)) == "green"
    (site.root / name).chmod(0o640)
    assert lit(site, lambda: check_key_files(site), Path(name).name) == "red"


def test_masking_secrets_that_others_may_read_are_red(site: SiteFolder) -> None:
    site.masking.mkdir()
    (site.masking / "00003.json").touch(0o600)
    assert lit(site, lambda: check_key_files(site)) == "green"
    (site.masking / "00003.json").chmod(0o604)
    assert lit(site, lambda: check_key_files(site), "00003.json") == "red"


def test_a_folder_that_others_may_look_into_is_yellow(site: SiteFolder) -> None:
    site.root.chmod(0o755)
    assert lit(site, lambda: check_key_files(site)) == "yellow"


def test_a_site_without_keys_is_red(site: SiteFolder) -> None:
    shutil.rmtree(site.root / "keys")
    assert lit(site, lambda: check_key_files(site), "no keys") == "red"


# Terms.


def test_the_study_is_green_and_red_where_it_is_not_the_rosters_or_cannot_be_read(site: SiteFolder) -> None:
    assert lit(site, lambda: check_study(site), "study 'tiny'") == "green"
    text = site.study_file.read_text()
    site.study_file.write_text(text.replace("seed = 5", "seed = 6"))
    assert lit(site, lambda: check_study(site), "not the study") == "red"
    site.study_file.write_text("seed = ")
    assert lit(site, lambda: check_study(site)) == "red"


def test_limits_are_green_and_red_where_they_are_passed_or_cannot_be_read(site: SiteFolder) -> None:
    assert lit(site, lambda: check_limits(site)) == "green"
    limits = site.root / "limits.toml"
    limits.write_text(limits.read_text().replace("local_steps = 5000", "local_steps = 3   "))
    light, found = said(site, lambda: check_limits(site))
    assert light == "red"
    assert "3" not in found  # what a site allows is nobody else's business
    limits.write_text("rounds = ")
    assert lit(site, lambda: check_limits(site), "limits.toml") == "red"


def test_an_approval_that_stands_is_green_and_red_once_anything_changed(site: SiteFolder) -> None:
    assert lit(site, lambda: check_approval(site)) == "green"
    (site.root / "limits.toml").open("a").write("# other\n")
    assert lit(site, lambda: check_approval(site), "limits.toml was changed") == "red"
    (site.root / "approval.json").unlink()
    assert lit(site, lambda: check_approval(site)) == "red"


def test_a_site_that_takes_part_is_green_yellow_while_it_pauses_and_red_once_withdrawn(site: SiteFolder) -> None:
    assert lit(site, lambda: check_standing(site)) == "green"
    pause(site)
    assert lit(site, lambda: check_standing(site)) == "yellow"
    go_on(site)
    assert lit(site, lambda: check_standing(site)) == "green"
    withdraw(site, "no longer")
    assert lit(site, lambda: check_standing(site)) == "red"


# Cohort.


def with_cohort(site: SiteFolder, cohort: Path) -> SiteFolder:
    (site.root / "site.toml").write_text(f'name = "site-a"\ncohort = {json.dumps(str(cohort))}\nstudy = "study.toml"\n')
    return SiteFolder.open(site.root)


def state(site: SiteFolder) -> tuple[str, str]:
    return said(site, lambda: check_cohort_state(site, check_cohort(read_cohort(site.cohort), site.study())))


def test_a_cohort_without_problems_is_green_and_its_size_not_told(site: SiteFolder, tmp_path: Path) -> None:
    shutil.copytree(site.cohort, tmp_path / "plain")
    for number, patient in enumerate(sorted((tmp_path / "plain").glob("sub-*"))):
        for path in sorted(patient.rglob("*"), reverse=True):
            if path.is_file():
                path.rename(path.with_name(path.name.replace(patient.name, f"sub-{number:02d}")))
        patient.rename(patient.with_name(f"sub-{number:02d}"))
    table = tmp_path / "plain" / "participants.tsv"
    names = sorted(path.name for path in site.cohort.glob("sub-*"))
    text = table.read_text()
    for number, name in enumerate(names):
        text = text.replace(name, f"sub-{number:02d}")
    table.write_text(text)
    site = with_cohort(site, tmp_path / "plain")
    site.coins.unlink()
    assert state(site) == ("green", "fewer than 20 usable scans")


def test_a_cohorts_problems_are_told_as_codes_and_no_small_count(site: SiteFolder, tmp_path: Path) -> None:
    shutil.copytree(site.cohort, tmp_path / "spoilt")
    next((tmp_path / "spoilt").rglob("*_dseg.nii.gz")).write_bytes(b"nothing")
    site = with_cohort(site, tmp_path / "spoilt")
    site.coins.unlink()
    light, found = state(site)
    assert light == "yellow"
    assert "unreadable-file in fewer than 20" in found
    assert PATIENT.replace("-", "") not in found


def test_a_cohort_of_other_patients_than_roles_were_drawn_for_is_red(site: SiteFolder, tmp_path: Path) -> None:
    shutil.copytree(site.cohort, tmp_path / "fewer")
    shutil.rmtree(next((tmp_path / "fewer").glob("sub-*")))
    light, found = state(with_cohort(site, tmp_path / "fewer"))
    assert light == "red"
    assert "are others than those" in found


def test_a_cohort_without_a_usable_scan_is_red_as_one_that_cannot_be_read(site: SiteFolder, tmp_path: Path) -> None:
    shutil.copytree(site.cohort, tmp_path / "broken")
    for label in (tmp_path / "broken").rglob("*_dseg.nii.gz"):
        label.write_bytes(b"nothing")
    light, found = state(with_cohort(site, tmp_path / "broken"))
    assert (light, "no usable scan" in found) == ("red", True)
    assert lit(site, lambda: check_cohort_state(site, None), "cannot be read") == "red"


# Records.


def test_a_journal_is_green_yellow_after_a_failed_round_and_red_once_edited(site: SiteFolder) -> None:
    assert lit(site, lambda: check_journal(site), "an unbroken chain") == "green"
    Journal(site.journal).append("round-failed", round=1, kind="DataError")
    assert lit(site, lambda: check_journal(site), "(DataError)") == "yellow"
    Journal(site.journal).append("reply-left", round=1)
    assert lit(site, lambda: check_journal(site)) == "green"
    site.journal.write_bytes(site.journal.read_bytes().replace(b"DataError", b"LostError"))
    assert lit(site, lambda: check_journal(site), "was changed after it was written") == "red"
    site.journal.unlink()
    assert lit(site, lambda: check_journal(site), "no readable journal") == "red"


def test_coins_are_green_before_and_after_the_draw_and_red_where_lost_or_edited(site: SiteFolder) -> None:
    assert lit(site, lambda: check_coins(site), "is the one that the journal names") == "green"
    record = site.coins.read_text()
    site.coins.unlink()
    assert lit(site, lambda: check_coins(site), "is gone") == "red"
    site.coins.write_text(record.replace('"holdout"', '"member"', 1) + " ")
    assert lit(site, lambda: check_coins(site)) == "red"
    site.coins.unlink()
    for path in site.root.glob("journal.jsonl*"):
        path.unlink()
    assert lit(site, lambda: check_coins(site), "not drawn yet") == "green"


def test_a_study_without_a_promise_is_said_to_make_none(site: SiteFolder) -> None:
    assert lit(site, lambda: check_ledger(site, site.study()), "dp: none") == "green"


def test_what_a_ledger_still_holds_is_green_and_yellow_where_it_is_not_enough(tmp_path: Path) -> None:
    promised = promised_site(tmp_path, ledgers=tmp_path / "ledgers")
    study = promised.study()
    learner = trainer(promised)
    assert lit(promised, lambda: check_ledger(promised, study), "is left") == "green"
    learner.train_round(RoundRequest(study.digest(), 1, {}))
    assert lit(promised, lambda: check_ledger(promised, study), "asks for no more") == "green"
    (promised.state / "noised-means.safetensors").unlink()
    with (promised.root / "site.toml").open("a") as file:
        file.write("budget = 5.0\n")
    tight = SiteFolder.open(promised.root)
    assert lit(tight, lambda: check_ledger(tight, study), "may not be left") == "yellow"
    promised.ledger.joinpath("ledger.jsonl").unlink()
    assert lit(promised, lambda: check_ledger(promised, study)) == "red"


def test_a_ledger_that_goes_with_the_sites_folder_is_yellow(tmp_path: Path) -> None:
    promised = promised_site(tmp_path)
    Journal(promised.journal).begin()
    found = check_ledger(promised, promised.study())
    assert found.light == "yellow"
    assert "another folder for the same patients begins a new one" in found.found
    assert "ledger.secret" in found.fix


def test_who_approves_a_promised_study_reads_whether_the_sites_budget_lasts(tmp_path: Path) -> None:
    promised = promised_site(tmp_path)
    said = "Privacy budget of this site's patients: 1 noised step needed"
    assert ledger_rows(promised, promised.study())[-1] == f"{said}, and left."
    with (promised.root / "site.toml").open("a") as file:
        file.write("budget = 0.1\n")
    short = SiteFolder.open(promised.root)
    allowed = f"at δ = {DELTA:g} is allowed here, and none of it spent"
    goes_on = "Where it is spent, the study goes on without this site."
    assert ledger_rows(short, short.study())[-1] == f"{said}, 0 left (ε = 0.1 {allowed}). {goes_on}"


def test_who_approves_a_promised_study_reads_where_its_ledger_lies(site: SiteFolder, tmp_path: Path) -> None:
    within = promised_site(tmp_path / "promised")
    assert "another folder for the same patients begins a new one" in "".join(ledger_rows(within, within.study()))
    with (within.root / "site.toml").open("a") as file:
        file.write('ledger = "../ledgers"\n')
    outside = SiteFolder.open(within.root)
    assert ledger_rows(outside, outside.study())[1] == f"Privacy ledger: {outside.ledger}"
    assert ledger_rows(site, site.study()) == ()


# Software.


def test_packages_are_green_yellow_with_another_flower_and_red_where_one_does_not_fit(site: SiteFolder) -> None:
    assert lit(site, check_versions, "flwr 1.41") == "green"
    assert lit(site, lambda: check_versions({"flwr": "1.42.0"}), "1.41 was tested") == "yellow"
    assert lit(site, lambda: check_versions({"flwr": "1.43.0"}), "flwr is 1.43.0, needed") == "red"
    assert lit(site, lambda: check_versions({"torch": "2.0.1"}), "torch is 2.0.1") == "red"


def test_a_package_that_is_missing_is_red(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "requires", lambda name: ["flwr>=1.41", "no-such-package-anywhere>=1"])
    assert lit(site, check_versions, "no-such-package-anywhere is missing") == "red"


def test_a_flower_whose_private_names_moved_is_red_here_and_refused_by_the_launcher(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lit(site, check_launcher) == "green"
    import flwr.supernode.runtime.run_clientapp as runtime

    monkeypatch.setattr(runtime, "install_from_fab", lambda content: None)
    assert lit(site, check_launcher, "install_from_fab is not as expected") == "red"
    assert launcher.main([str(site.root)]) == launcher.WRONG_FLOWER
    assert "install_from_fab" in capsys.readouterr().err
    monkeypatch.setattr(launcher, "_RUNTIME", "flwr.no_such_module")
    assert lit(site, check_launcher, "there is no flwr.no_such_module") == "red"


def test_telemetry_is_green_and_red_where_one_switch_is_on(site: SiteFolder) -> None:
    environment = flower_environment(site.root / "node" / "home")
    assert lit(site, lambda: check_telemetry(environment)) == "green"
    for name in QUIET:
        on = {**environment, name: "1" if QUIET[name] == "0" else "0"}
        assert lit(site, lambda on=on: check_telemetry(on), name) == "red"  # type: ignore[misc]  # bound
    # Flower's identifier for it: made before Flower looks at the switch, so that it says nothing.
    (site.root / "node" / "home").mkdir(parents=True)
    (site.root / "node" / "home" / "source").write_text("id")
    assert lit(site, lambda: check_telemetry(environment)) == "green"


def test_flower_itself_heeds_the_switches_that_are_set() -> None:
    from flwr.supercore import constant, telemetry

    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"  # by the same variable, set for all tests
    assert constant.FLWR_DISABLE_UPDATE_CHECK in QUIET


# Words.


def test_counts_of_patients_below_twenty_are_never_told() -> None:
    assert without_small_counts("7 patients then, 6 now") == "fewer than 20 patients then, 6 now"
    assert without_small_counts("1 scan") == "fewer than 20 scans"
    assert without_small_counts("20 patients and 120 scans") == "20 patients and 120 scans"
    assert without_small_counts("3 rounds of 4 steps") == "3 rounds of 4 steps"
