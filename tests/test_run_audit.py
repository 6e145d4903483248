"""``audit run`` on a run's folder: procedural patients, their coins, a synthetic set, a journal that counts."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from audited_run import SIZES, audit, audit_site, events, make_run
from officers import OFFICERS

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.roles import load_roles
from fedphantom.common.errors import DataError, VerificationFailed
from fedphantom.common.gan.weights import generator_metadata, load_weights, save_weights, study_of
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.keys import generate_key, key_id
from fedphantom.common.site_folder import site_folders
from fedphantom.common.study import RolesTable
from fedphantom.privacy.audit.kept_findings import FINDINGS
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.report import audit_text
from fedphantom.privacy.audit.run import AuditSizes, audit_run_folder, read_result, verify_audit
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.release.run import pack_run

OFFICER = OFFICERS["site-a"]


def test_an_audit_leaves_the_agreed_keys_counts_patients_and_is_counted(simulated: Path, spoilt: Path) -> None:
    content = audit(spoilt, simulated)
    assert content == json.loads((spoilt / "audit" / "audit.json").read_text()) == read_result(spoilt / "audit")
    assert {"verdict", "attacks", "controls", "counts"} <= content.keys()
    assert content["verdict"] == "INCONCLUSIVE"  # far too few patients
    text = json.dumps(content)
    attacks, controls, counts = (json.loads(text)[key] for key in ("attacks", "controls", "counts"))
    assert {"A1", "A3"} <= {attack["id"] for attack in attacks}
    for row in attacks:
        assert {"id", "threat_model", "auc", "auc_ci", "tpr", "eps_lower_bound", "p_value"} <= row.keys()
        assert 0 <= row["auc_ci"][0] <= row["auc"] <= row["auc_ci"][1] <= 1
    assert {row["id"] for row in controls} >= {"positive-set", "positive-model", "negative"}
    for row in controls:
        assert row.keys() == {"id", "required", "got", "ok"}

    # Both sites name their patients alike; they are counted as the different people they are.
    records = [load_roles(spoilt / "run" / "sites" / site / "coins.json") for site in ("site-a", "site-b")]
    assert records[0].roles.keys() == records[1].roles.keys()
    for role in ("member", "holdout", "control"):
        assert counts[role] == sum(record.counts()[role] for record in records)
    assert counts["reference"] == 4
    assert counts["synthetic"] == 4
    assert content["reference_stands_in"] == "4 public patients stand in as reference"
    assert not any(patient in text for patient in records[0].roles)
    for site in ("site-a", "site-b"):
        assert events(spoilt, site) == [("audit-begun", 1), ("audit-done", 1)]


def test_an_audit_after_one_that_was_broken_off_and_whose_findings_are_lost_is_number_two(
    simulated: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedphantom.privacy.audit.run_attack.run_audit", broken_off)
        with pytest.raises(KeyboardInterrupt):
            audit(spoilt, simulated)
    assert events(spoilt, "site-a") == [("audit-begun", 1)]
    assert not (spoilt / "audit" / "audit.json").exists()
    shutil.rmtree(spoilt / "audit" / FINDINGS)  # with them it would go on: tests/test_audit_resumed.py
    second = audit(spoilt, simulated)
    assert second["audit_number"] == 2
    assert second["earlier_audits"] == [None]
    assert second["claim_confidence"] == 0.975
    assert events(spoilt, "site-b") == [("audit-begun", 1), ("audit-begun", 2), ("audit-done", 2)]


def test_every_audit_is_kept_and_judged_with_what_those_before_it_showed(
    simulated: Path, spoilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = audit(spoilt, simulated), audit(spoilt, simulated, keys=[OFFICER])
    p_values = {}
    for row in first["attacks"]:  # type: ignore[attr-defined]  # JSON
        if row["threat_model"] != "none":
            p_values[row["id"]] = row["p_value"]
            if not row["id"].endswith("/outliers"):
                p_values[f"{row['id']}/no-false-alarm"] = row["no_false_alarm_p_value"]
    assert second["earlier_audits"] == [p_values]
    for site in ("site-a", "site-b"):
        done = [e for e in read_journal(spoilt / "run" / "sites" / site / "journal.jsonl") if e.event == "audit-done"]
        assert done[0].facts["p_values"] == p_values  # two an attack, none a patient

    folder, key = spoilt / "audit", key_id(OFFICER.public_key())
    names = ["audit-001.json", f"audit-002.{key[:16]}.signed.dsse.json", "audit-002.json", "audit.json"]
    assert sorted(path.name for path in folder.glob("*.json")) == names
    assert [facts.facts["signed_by"] for facts in done] == [[], [key]]
    assert (folder / "audit-002.json").read_bytes() == (folder / "audit.json").read_bytes()
    assert json.loads((folder / "audit-001.json").read_text()) == first
    assert read_result(folder) == second
    assert verify_audit(folder, spoilt / "run") == second
    assert verify_audit(folder / "audit-001.json", spoilt / "run") == first
    capsys.readouterr()
    for result, signed in (
        (folder, f"Signed as it ended by the key {key[:12]}…"),
        (folder / "audit-001.json", "Nobody"),
    ):
        assert fedphantom(["audit", "verify", str(result), str(spoilt / "run")]) == 0
        assert signed in capsys.readouterr().out
    assert fedphantom(["audit", "show", str(folder)]) == 0
    assert "Audit 2 of this holdout: a find has to stand among the p-values of all 2" in capsys.readouterr().out
    assert fedphantom(["audit", "show", str(folder / "audit-001.json")]) == 0
    assert "Audit 1 of this holdout." in capsys.readouterr().out


def test_a_result_is_never_written_over_by_an_audit_of_other_sites(simulated: Path, spoilt: Path) -> None:
    for site in ("site-a", "site-b"):
        audit_site(simulated, spoilt, site)
    kept = sorted((spoilt / "audit").glob("audit-*.json"))
    assert len(kept) == 2
    assert kept[1].name == "audit-001.json"
    assert [json.loads(path.read_text())["audit_number"] for path in kept] == [1, 1]
    assert (
        audit(spoilt, simulated)["audit_number"] == 3
    )  # of both sites' patients: each alone was a look at some of them


def test_the_blind_baseline_is_given_what_every_scans_files_say(
    simulated: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[AuditMaterial] = []

    def look(material: AuditMaterial, *_: object) -> NoReturn:
        seen.append(material)
        raise KeyboardInterrupt

    monkeypatch.setattr("fedphantom.privacy.audit.run_attack.run_audit", look)
    with pytest.raises(KeyboardInterrupt):
        audit(spoilt, simulated)
    header = seen[0].header
    assert header is not None
    assert len(header) == len(seen[0].images)
    assert header.shape[1] > 20
    assert np.isfinite(header).all()
    assert (header.std(axis=0) > 0).any()


def test_the_attack_on_discriminators_is_run_where_every_site_kept_its_own(simulated: Path, spoilt: Path) -> None:
    content = json.loads(json.dumps(audit(spoilt, simulated)))
    (insider,) = [row for row in content["attacks"] if row["id"] == "A6"]
    assert (insider["threat_model"], insider["binding"]) == ("I", False)
    assert "A6" in {run["attack"] for run in content["negative_runs"]}
    kept = spoilt / "run" / "sites" / "site-b" / "state" / "committed.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1])
    without = json.loads(json.dumps(audit(spoilt, simulated)))
    assert {row["id"] for row in content["attacks"]} - {row["id"] for row in without["attacks"]} == {"A6"}
    assert "A6" not in {run["attack"] for run in without["negative_runs"]}


def test_a_journal_begun_anew_does_not_reset_the_count(simulated: Path, spoilt: Path) -> None:
    (spoilt / "run" / "sites" / "site-b" / "journal.jsonl").unlink()
    with pytest.raises(VerificationFailed, match="missing or empty"):
        audit(spoilt, simulated)
    assert events(spoilt, "site-a") == []


def test_an_audit_speaks_of_one_generator(simulated: Path, spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = spoilt / "run" / "generator.safetensors"
    content = audit(spoilt, simulated)
    assert fedphantom(["audit", "verify", str(spoilt / "audit"), str(spoilt / "no-such-run")]) == 3
    assert verify_audit(spoilt / "audit", spoilt / "run") == content
    assert fedphantom(["audit", "verify", str(spoilt / "audit"), str(spoilt / "run")]) == 0

    parameters, metadata = load_weights(generator)
    study = study_of(metadata)
    name = min(parameters)
    nudged = parameters | {name: parameters[name] + parameters[name].dtype.type(1e-3)}
    save_weights(generator, nudged, generator_metadata(study, 1))
    with pytest.raises(VerificationFailed, match="audit of another generator"):
        verify_audit(spoilt / "audit", spoilt / "run")
    capsys.readouterr()
    assert fedphantom(["audit", "verify", str(spoilt / "audit"), str(spoilt / "run")]) == 5
    assert "another generator" in capsys.readouterr().err


def test_an_audit_names_the_volumes_it_saw_and_an_edited_result_is_known_by_no_journal(
    simulated: Path, spoilt: Path
) -> None:
    content = audit(spoilt, simulated)
    hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in (spoilt / "synthetic").rglob("*.nii.gz"))
    assert content["synthetic_sha256"] == hashlib.sha256("".join(hashes).encode()).hexdigest()
    result = spoilt / "audit" / "audit.json"
    for site in ("site-a", "site-b"):
        done = read_journal(spoilt / "run" / "sites" / site / "journal.jsonl")[-1]
        assert done.facts["sha256"] == hashlib.sha256(result.read_bytes()).hexdigest()
    result.write_text(json.dumps(content | {"verdict": "PASS"}))
    with pytest.raises(VerificationFailed, match="says PASS"):
        verify_audit(result, spoilt / "run")
    result.write_text(json.dumps(content | {"reasons": ["All is well."]}))
    with pytest.raises(VerificationFailed, match="a site's journal does not know"):
        verify_audit(result, spoilt / "run")


def test_a_result_written_by_hand_is_not_packed(simulated: Path, spoilt: Path) -> None:
    content = audit(spoilt, simulated)
    result = spoilt / "audit" / "audit.json"
    result.write_text(json.dumps(content | {"reasons": ["All is well."]}))
    private, _ = generate_key(spoilt / "keys")
    with pytest.raises(VerificationFailed, match="a site's journal does not know"):
        pack_run(
            spoilt / "run",
            spoilt / "release",
            "volumes",
            "internal",
            private,
            result,
            spoilt / "synthetic",
            None,
            lambda stage: lambda done, total: None,
        )


def test_a_failed_audit_is_not_undone_by_another_try(simulated: Path, spoilt: Path) -> None:
    content = audit(spoilt, simulated)
    assert verify_audit(spoilt / "audit", spoilt / "run") == content
    journal = Journal(next(iter(site_folders(spoilt / "run"))).journal)
    failed = {"number": 1, "verdict": "FAIL", "sha256": "0" * 64, "generator": content["generator_sha256"]}
    journal.append("audit-done", **failed, release="weights", tier="controlled")
    journal.append("audit-done", **failed, release="volumes", tier="public")
    # Neither another kind of release nor stricter thresholds say anything about this one.
    assert verify_audit(spoilt / "audit", spoilt / "run") == content
    journal.append("audit-done", **failed, release="volumes", tier="internal")
    with pytest.raises(VerificationFailed, match="failed an earlier audit"):
        verify_audit(spoilt / "audit", spoilt / "run")


def test_what_failed_for_volumes_fails_for_the_weights_that_make_them(simulated: Path, spoilt: Path) -> None:
    content = audit_run_folder(
        spoilt / "run",
        spoilt / "synthetic",
        read_cohort(simulated / "public"),
        spoilt / "audit",
        SIZES,
        TIERS["controlled"],
        "weights",
        device="cpu",
    )
    assert verify_audit(spoilt / "audit", spoilt / "run") == content
    journal = Journal(next(iter(site_folders(spoilt / "run"))).journal)
    failed = {"number": 2, "verdict": "FAIL", "sha256": "0" * 64, "generator": content["generator_sha256"]}
    journal.append("audit-done", **failed, release="volumes", tier="controlled")
    with pytest.raises(VerificationFailed, match="failed an earlier audit"):
        verify_audit(spoilt / "audit", spoilt / "run")


def test_the_same_audit_gives_the_same_figures(simulated: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        for part in ("run", "synthetic"):
            shutil.copytree(simulated / part, tmp_path / name / part)
        found.append(audit(tmp_path / name, simulated))
    assert found[0] == found[1]


def test_one_sites_own_folder_is_audited_with_the_generator_named(simulated: Path, spoilt: Path) -> None:
    content = audit_site(simulated, spoilt, "site-a")
    assert json.loads(json.dumps(content))["counts"]["sites"] == 1
    assert content["generator_named_by"] is None  # the site received it
    assert "No journal at hand names this generator" in audit_text(content)
    assert events(spoilt, "site-a") == [("audit-begun", 1), ("audit-done", 1)]
    assert events(spoilt, "site-b") == []


def test_without_a_site_a_generator_or_reference_patients_there_is_no_audit(
    simulated: Path, spoilt: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no run folder at the path given"):
        site_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no reference patients") as refused:
        audit_run_folder(
            spoilt / "run", spoilt / "synthetic", None, spoilt / "audit", SIZES, TIERS["internal"], device="cpu"
        )
    assert "--public" in refused.value.remedy
    assert events(spoilt, "site-a") == []  # it counts as no audit
    with pytest.raises(DataError, match="no run folder"):
        audit_run_folder(tmp_path / "no", spoilt / "synthetic", None, spoilt / "audit", SIZES, TIERS["internal"])
    with pytest.raises(DataError, match="no readable audit result"):
        read_result(spoilt / "audit")
    (spoilt / "run" / "generator.safetensors").unlink()
    with pytest.raises(DataError, match="it has not finished"):
        audit(spoilt, simulated)


def test_public_patients_whom_a_site_holds_are_refused(simulated: Path, spoilt: Path) -> None:
    private = next(iter(site_folders(spoilt / "run"))).cohort
    with pytest.raises(DataError, match="public cohort are the sites' own"):
        audit_run_folder(
            spoilt / "run",
            spoilt / "synthetic",
            read_cohort(private),
            spoilt / "audit",
            SIZES,
            TIERS["controlled"],
            device="cpu",
        )
    assert not events(spoilt, "site-a")  # refused before the holdout was looked at


def test_networks_made_to_memorise_are_caught(tmp_path: Path) -> None:
    root = make_run(tmp_path, 32, RolesTable(test=0.05, control=0.1, audit=0.75, validation=0.0))
    content = json.loads(json.dumps(audit(root, root, AuditSizes(steps=20, negative_seeds=1, draws=4))))
    assert content["counts"]["member"] >= 24
    controls = {row["id"]: row for row in content["controls"]}
    assert "after 720 steps" in controls["positive-model"]["got"]
    assert controls["positive-model"]["ok"], controls["positive-model"]["got"]
    assert controls.keys() == {
        *("blind", "positive-set", "positive-copies", "positive-model", "positive-insider", "negative")
    }
    assert controls["positive-copies"]["ok"], controls["positive-copies"]["got"]
    assert controls["positive-insider"]["ok"], controls["positive-insider"]["got"]
    assert content["verdict"] != "PASS"
