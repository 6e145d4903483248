"""``site doctor`` as a whole: its lines, its exit codes, and that what it says may be sent to the coordinator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from deployed_site import PATIENT, Deployed, approve_as_it_stands, deploy, door

from fedphantom.cli import run
from fedphantom.client.node.doctor import examination
from fedphantom.client.node.doctor.examination import Examination, finding_of
from fedphantom.client.node.doctor.finding import Finding, Outcome, green
from fedphantom.common.errors import DataError

pytestmark = pytest.mark.network  # real sockets on loopback

GOLDEN = Path(__file__).parent / "golden" / "doctor.json"
LINES = [
    *("gpu", "memory", "disk", "coordinator reached", "coordinator certificate", "coordinator answers", "clock"),
    *(
        "link",
        "http proxy",
        "enrolment",
        "key files",
        "study",
        "limits",
        "approval",
        "standing",
        "cohort",
        "journal",
        "coins",
    ),
    *("ledger", "packages", "launcher", "telemetry"),
]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    made = deploy(tmp_path_factory.mktemp("deployed"))
    approve_as_it_stands(made.site)
    return made


def said(site: Path, capsys: pytest.CaptureFixture[str], code: int, *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["site", "doctor", str(site), "--json", *options]) == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    found: dict[str, Any] = json.loads(told.out)
    return found


def lights(found: dict[str, Any]) -> dict[str, str]:
    return {finding["name"]: finding["light"] for finding in found["findings"]}


def test_a_site_that_is_ready_is_told_so_and_the_code_is_zero(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = deployed.coordinator.certificate("proxy"), deployed.coordinator.certificate_key("proxy")
    before = {path: path.read_bytes() for path in deployed.site.root.rglob("*") if path.is_file()}
    with door(deployed.port, *paths):
        found = said(deployed.site.root, capsys, 0)
    assert found["ok"]
    assert list(lights(found)) == LINES
    assert {name for name, light in lights(found).items() if light != "green"} <= {"gpu", "memory", "disk", "cohort"}
    assert {path: path.read_bytes() for path in deployed.site.root.rglob("*") if path.is_file()} == before


def test_one_red_line_makes_the_code_three_and_the_others_are_told(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(deployed.site.root, capsys, 3)
    assert [name for name, light in lights(found).items() if light == "red"] == ["coordinator reached"]
    assert not found["ok"]


def test_nothing_that_is_said_names_a_patient_a_path_or_a_small_count(
    deployed: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cohort is spoilt in several ways, under names that tell; a check fails with such a name in its words."""
    site = Path(shutil.copytree(deployed.site.root, tmp_path / "site"))
    cohort = Path(shutil.copytree(deployed.site.cohort, tmp_path / PATIENT))
    (site / "site.toml").write_text(f'name = "site-a"\ncohort = {json.dumps(str(cohort))}\nstudy = "study.toml"\n')
    scans = sorted(cohort.rglob("*_T1w.nii.gz")) + sorted(cohort.rglob("*_dseg.nii.gz"))
    assert scans
    scans[0].write_bytes(b"nothing")
    shutil.rmtree(sorted(cohort.glob("sub-*"))[-1])
    (cohort / f"{PATIENT}.nii.gz").write_bytes(b"nothing")

    def fail(*_: object) -> Outcome:
        raise ValueError(f"cannot read {cohort}")

    monkeypatch.setattr(examination.records, "check_coins", fail)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{PATIENT}:word@127.0.0.1:9")
    capsys.readouterr()
    for options in ([], ["--json"]):
        assert run(["site", "doctor", str(site), *options]) == 3
        told = "".join(capsys.readouterr()).replace("\n", "")
        for planted in (PATIENT, PATIENT.replace("-", ""), str(tmp_path), "word@", "Meier"):
            assert planted not in told
        assert "this check itself failed" in told or not options
        for count in range(1, 20):
            assert f" {count} patient" not in told
            assert f" {count} scan" not in told
    assert PATIENT in (site / "errors.log").read_text()  # which stays


@pytest.mark.parametrize("spoilt", ["site.toml", "study.toml", "invitation.dsse.json", "roster.dsse.json", "keys"])
def test_whatever_is_missing_every_other_line_is_told(
    deployed: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoilt: str
) -> None:
    site = Path(shutil.copytree(deployed.site.root, tmp_path / "site"))
    shutil.rmtree(site / spoilt) if (site / spoilt).is_dir() else (site / spoilt).unlink()
    if spoilt == "site.toml":
        assert run(["site", "doctor", str(site)]) == 3
        assert "error: DIR: " in capsys.readouterr().err
        return
    found = said(site, capsys, 3)
    assert list(lights(found)) == LINES
    assert lights(found)["launcher"] == "green"
    assert not (site / "errors.log").exists()  # foreseen: no check failed itself


def test_a_step_is_taken_where_it_is_asked_for(
    deployed: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "measure_step", lambda root: "it was not taken")
    found = said(deployed.site.root, capsys, 3, "--step")
    assert list(lights(found)) == [*LINES[:2], "step", *LINES[2:]]
    assert "it was not taken" in found["findings"][2]["found"]


def test_a_site_without_a_network_is_not_red_for_want_of_one(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(deployed.site.root, capsys, 0, "--offline")
    network = {name for name in LINES if name.startswith(("coordinator", "clock", "link", "http"))}
    assert list(lights(found)) == [name for name in LINES if name not in network]


def test_our_own_refusals_and_anybodys_failures_are_red_lines(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site

    def refuse() -> Outcome:
        raise DataError("7 patients without a scan", expected="scans", remedy="Bring them.")

    assert finding_of(site, "it", refuse) == Finding(
        "it", "red", "fewer than 20 patients without a scan", "Bring them."
    )
    assert finding_of(site, "it", lambda: green("well")) == Finding("it", "green", "well", "")


def test_the_object_for_machines_is_as_it_was(deployed: Deployed) -> None:
    findings = (
        Finding("gpu", "yellow", "CPU only: rounds take long", "Use another machine."),
        Finding("standing", "green", "takes part", ""),
        Finding("clock", "red", "290 s behind the coordinator's", "Set this machine's clock."),
    )
    found = Examination("site-a", "2027-03-01T12:00:00Z", findings).to_json()
    assert found == json.loads(GOLDEN.read_text())


def test_for_people_each_light_is_counted(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "doctor", str(deployed.site.root)]) == 3
    told = capsys.readouterr().out
    assert "1 red" in told
    assert "coordinator reached" in told
