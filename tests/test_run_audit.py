"""``audit run`` on a run's folder: procedural patients, their coins, a synthetic set, a journal that counts."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from fedphantom.cli import run as fedphantom
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.roles import load_roles
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, VerificationFailed
from fedphantom.common.gan.generation import generate_cohort, load_generator, numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.weights import generator_metadata, load_weights, save_weights, study_of
from fedphantom.common.journal import Journal, last_hash, read_journal
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.signing import generate_key
from fedphantom.common.site_folder import SiteFolder, site_folders, site_material
from fedphantom.common.study import NetworkTable, PublicLabelsTable, RolesTable, TrainingTable
from fedphantom.common.study_template import study_for, to_toml
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.report import audit_text
from fedphantom.privacy.audit.run import AuditSizes, audit_run_folder, read_result, verify_audit
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.release.run import pack_run
from fedphantom.server.simulation import simulate

SIZES = AuditSizes(steps=2, negative_seeds=1, draws=2, blind_permutations=5)


def make_run(root: Path, patients: int, roles: RolesTable) -> Path:
    """A simulated run of two sites, each with these patients, and synthetic volumes beside it."""
    for seed, name in enumerate(("site-a", "site-b")):
        write_phantom_cohort(root / name, patients, spacing_mm=12.0, seed=seed)
    write_phantom_cohort(root / "public", 4, spacing_mm=12.0, seed=9)
    study = study_for(
        read_cohort(root / "site-a"), name="audited", seed=4, public_labels=PublicLabelsTable(source="atlas")
    ).model_copy(
        update={
            "network": NetworkTable(preset="tiny"),
            "training": TrainingTable(rounds=1, local_steps=2),
            "roles": roles,
        }
    )
    run = root / "run"
    simulate(
        to_toml(study),
        {name: root / name for name in ("site-a", "site-b")},
        run,
        engine="local",
        prepare_site=create_site_folder,
        open_site=lambda folder: Site(site_folders(folder)[0], LocalTrainer.open),
        initial=lambda study: numpy_parameters(make_generator(study, study.seed)),
        progress=lambda record: None,
    )
    sampler = make_label_sampler(study, None)
    generator = load_generator(run / "generator.safetensors", choose_device("cpu"))
    generate_cohort(generator, [sampler.sample(1, index) for index in range(4)], root / "synthetic", 1)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), 10, RolesTable(test=0.1, control=0.2, audit=0.6))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of the run to spoil; cohorts stay where the sites know them."""
    for name in ("run", "synthetic"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def audit(root: Path, made: Path, sizes: AuditSizes = SIZES) -> dict[str, object]:
    public = read_cohort(made / "public")
    return audit_run_folder(
        root / "run", root / "synthetic", public, root / "audit", sizes, TIERS["controlled"], device="cpu"
    )


def events(root: Path, site: str) -> list[tuple[str, object]]:
    entries = read_journal(root / "run" / "sites" / site / "journal.jsonl")
    return [(e.event, e.facts.get("number")) for e in entries if e.event.startswith("audit")]


def test_an_audit_leaves_the_agreed_keys_counts_patients_and_is_counted(made: Path, root: Path) -> None:
    content = audit(root, made)
    assert content == json.loads((root / "audit" / "audit.json").read_text()) == read_result(root / "audit")
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
    records = [load_roles(root / "run" / "sites" / site / "coins.json") for site in ("site-a", "site-b")]
    assert records[0].roles.keys() == records[1].roles.keys()
    for role in ("member", "holdout", "control"):
        assert counts[role] == sum(record.counts()[role] for record in records)
    assert counts["reference"] == 4
    assert counts["synthetic"] == 4
    assert content["reference_stands_in"] == "4 public patients stand in as reference"
    assert not any(patient in text for patient in records[0].roles)
    for site in ("site-a", "site-b"):
        assert events(root, site) == [("audit-begun", 1), ("audit-done", 1)]


def test_the_second_audit_of_a_holdout_is_number_two_whatever_became_of_the_first(
    made: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedphantom.privacy.audit.run_attack.run_audit", broken_off)
        with pytest.raises(KeyboardInterrupt):
            audit(root, made)
    assert events(root, "site-a") == [("audit-begun", 1)]
    assert not (root / "audit" / "audit.json").exists()
    second = audit(root, made)
    assert second["audit_number"] == 2
    assert second["earlier_audits"] == [None]
    assert second["claim_confidence"] == 0.975
    assert events(root, "site-b") == [("audit-begun", 1), ("audit-begun", 2), ("audit-done", 2)]


def test_every_audit_is_kept_and_judged_with_what_those_before_it_showed(
    made: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = audit(root, made), audit(root, made)
    p_values = {row["id"]: row["p_value"] for row in first["attacks"] if row["threat_model"] != "none"}  # type: ignore[attr-defined]  # JSON
    assert second["earlier_audits"] == [p_values]
    for site in ("site-a", "site-b"):
        done = [e for e in read_journal(root / "run" / "sites" / site / "journal.jsonl") if e.event == "audit-done"]
        assert done[0].facts["p_values"] == p_values  # one an attack, none a patient

    folder = root / "audit"
    assert sorted(path.name for path in folder.glob("*.json")) == ["audit-001.json", "audit-002.json", "audit.json"]
    assert (folder / "audit-002.json").read_bytes() == (folder / "audit.json").read_bytes()
    assert json.loads((folder / "audit-001.json").read_text()) == first
    assert read_result(folder) == second
    assert verify_audit(folder, root / "run") == second
    assert verify_audit(folder / "audit-001.json", root / "run") == first
    capsys.readouterr()
    assert fedphantom(["audit", "show", str(folder)]) == 0
    assert "Audit 2 of this holdout: a find has to stand among the p-values of all 2" in capsys.readouterr().out
    assert fedphantom(["audit", "show", str(folder / "audit-001.json")]) == 0
    assert "Audit 1 of this holdout." in capsys.readouterr().out


def test_a_result_is_never_written_over_by_an_audit_of_other_sites(made: Path, root: Path) -> None:
    for site in ("site-a", "site-b"):
        audit_run_folder(
            root / "run" / "sites" / site,
            root / "synthetic",
            read_cohort(made / "public"),
            root / "audit",
            SIZES,
            TIERS["internal"],
            generator_file=root / "run" / "generator.safetensors",
            device="cpu",
        )
    kept = sorted((root / "audit").glob("audit-*.json"))
    assert len(kept) == 2
    assert kept[1].name == "audit-001.json"
    assert [json.loads(path.read_text())["audit_number"] for path in kept] == [1, 1]
    assert audit(root, made)["audit_number"] == 3  # of both sites' patients: each alone was a look at some of them


def test_the_blind_baseline_is_given_what_every_scans_files_say(
    made: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[AuditMaterial] = []

    def look(material: AuditMaterial, *_: object) -> NoReturn:
        seen.append(material)
        raise KeyboardInterrupt

    monkeypatch.setattr("fedphantom.privacy.audit.run_attack.run_audit", look)
    with pytest.raises(KeyboardInterrupt):
        audit(root, made)
    header = seen[0].header
    assert header is not None
    assert len(header) == len(seen[0].images)
    assert header.shape[1] > 20
    assert np.isfinite(header).all()
    assert (header.std(axis=0) > 0).any()


def test_a_journal_begun_anew_does_not_reset_the_count(made: Path, root: Path) -> None:
    (root / "run" / "sites" / "site-b" / "journal.jsonl").unlink()
    with pytest.raises(VerificationFailed, match="missing or empty"):
        audit(root, made)
    assert events(root, "site-a") == []


def test_an_audit_speaks_of_one_generator(made: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = root / "run" / "generator.safetensors"
    content = audit(root, made)
    assert fedphantom(["audit", "verify", str(root / "audit"), str(root / "no-such-run")]) == 3
    assert verify_audit(root / "audit", root / "run") == content
    assert fedphantom(["audit", "verify", str(root / "audit"), str(root / "run")]) == 0

    parameters, metadata = load_weights(generator)
    study = study_of(metadata)
    name = min(parameters)
    nudged = parameters | {name: parameters[name] + parameters[name].dtype.type(1e-3)}
    save_weights(generator, nudged, generator_metadata(study, 1))
    with pytest.raises(VerificationFailed, match="audit of another generator"):
        verify_audit(root / "audit", root / "run")
    capsys.readouterr()
    assert fedphantom(["audit", "verify", str(root / "audit"), str(root / "run")]) == 5
    assert "another generator" in capsys.readouterr().err


def test_an_audit_names_the_volumes_it_saw_and_an_edited_result_is_known_by_no_journal(made: Path, root: Path) -> None:
    content = audit(root, made)
    hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "synthetic").rglob("*.nii.gz"))
    assert content["synthetic_sha256"] == hashlib.sha256("".join(hashes).encode()).hexdigest()
    result = root / "audit" / "audit.json"
    for site in ("site-a", "site-b"):
        done = read_journal(root / "run" / "sites" / site / "journal.jsonl")[-1]
        assert done.facts["sha256"] == hashlib.sha256(result.read_bytes()).hexdigest()
    result.write_text(json.dumps(content | {"verdict": "PASS"}))
    with pytest.raises(VerificationFailed, match="says PASS"):
        verify_audit(result, root / "run")
    result.write_text(json.dumps(content | {"reasons": ["All is well."]}))
    with pytest.raises(VerificationFailed, match="a site's journal does not know"):
        verify_audit(result, root / "run")


def test_a_result_written_by_hand_is_not_packed(made: Path, root: Path) -> None:
    content = audit(root, made)
    result = root / "audit" / "audit.json"
    result.write_text(json.dumps(content | {"reasons": ["All is well."]}))
    private, _ = generate_key(root / "keys")
    with pytest.raises(VerificationFailed, match="a site's journal does not know"):
        pack_run(
            root / "run",
            root / "release",
            "volumes",
            "internal",
            private,
            result,
            root / "synthetic",
            None,
            lambda done, total: None,
        )


def test_a_failed_audit_is_not_undone_by_another_try(made: Path, root: Path) -> None:
    content = audit(root, made)
    assert verify_audit(root / "audit", root / "run") == content
    journal = Journal(next(iter(site_folders(root / "run"))).journal)
    failed = {"number": 1, "verdict": "FAIL", "sha256": "0" * 64, "generator": content["generator_sha256"]}
    journal.append("audit-done", **failed, release="weights", tier="controlled")
    journal.append("audit-done", **failed, release="volumes", tier="public")
    # Neither another kind of release nor stricter thresholds say anything about this one.
    assert verify_audit(root / "audit", root / "run") == content
    journal.append("audit-done", **failed, release="volumes", tier="internal")
    with pytest.raises(VerificationFailed, match="failed an earlier audit"):
        verify_audit(root / "audit", root / "run")


def test_what_failed_for_volumes_fails_for_the_weights_that_make_them(made: Path, root: Path) -> None:
    content = audit_run_folder(
        root / "run",
        root / "synthetic",
        read_cohort(made / "public"),
        root / "audit",
        SIZES,
        TIERS["controlled"],
        "weights",
        device="cpu",
    )
    assert verify_audit(root / "audit", root / "run") == content
    journal = Journal(next(iter(site_folders(root / "run"))).journal)
    failed = {"number": 2, "verdict": "FAIL", "sha256": "0" * 64, "generator": content["generator_sha256"]}
    journal.append("audit-done", **failed, release="volumes", tier="controlled")
    with pytest.raises(VerificationFailed, match="failed an earlier audit"):
        verify_audit(root / "audit", root / "run")


def test_edited_coins_are_refused(made: Path, root: Path) -> None:
    file = root / "run" / "sites" / "site-a" / "coins.json"
    text = file.read_text()
    swapped = text.replace('"member"', '"x"').replace('"holdout"', '"member"').replace('"x"', '"holdout"')
    assert swapped != text
    file.write_text(swapped)
    with pytest.raises(VerificationFailed, match="coin record other than"):
        audit(root, made)
    assert events(root, "site-b") == []


def lose_journal(folder: SiteFolder) -> None:
    folder.journal.unlink()
    folder.journal.with_name("journal.jsonl.head").unlink()


@pytest.mark.parametrize("kept", ["coins and state", "coins", "an empty journal"])
def test_coins_or_a_state_without_their_journal_are_no_fresh_start(made: Path, root: Path, kept: str) -> None:
    folder = next(iter(site_folders(root / "run")))
    lose_journal(folder)
    if kept != "coins and state":
        shutil.rmtree(folder.state)
    if kept == "an empty journal":
        folder.journal.touch()
    with pytest.raises(VerificationFailed, match="missing or empty"):
        site_material(folder, folder.study())
    with pytest.raises(VerificationFailed):
        audit(root, made)


def test_a_journal_cut_short_with_its_head_is_found_by_a_result_that_it_forgot(made: Path, root: Path) -> None:
    audit(root, made)
    for folder in site_folders(root / "run"):
        first = folder.journal.read_bytes().splitlines(keepends=True)
        begun = next(i for i, line in enumerate(first) if b'"audit-begun"' in line)
        folder.journal.write_bytes(b"".join(first[:begun]))
        head = folder.journal.with_name("journal.jsonl.head")
        head.unlink()
        head.write_text(f"{begun} {last_hash(folder.journal)}\n")  # both written anew
    with pytest.raises(VerificationFailed, match=r"audit-001\.json"):
        audit(root, made)
    with pytest.raises(VerificationFailed, match=r"audit-001\.json"):
        verify_audit(root / "audit", root / "run")


def test_a_site_cut_off_between_coins_and_journal_goes_on(made: Path, root: Path) -> None:
    folder = next(iter(site_folders(root / "run")))
    lose_journal(folder)
    shutil.rmtree(folder.state)
    Journal(folder.journal).begin()
    site_material(folder, folder.study())
    assert [entry.event for entry in read_journal(folder.journal)] == ["roles-drawn"]


def test_a_generator_of_another_study_and_foreign_volumes_are_refused(made: Path, root: Path) -> None:
    generator = root / "run" / "generator.safetensors"
    parameters, metadata = load_weights(generator)
    study = study_of(metadata)
    sidecar = next((root / "synthetic").rglob("*_dseg.json"))
    kept = sidecar.read_text()
    sidecar.write_text(kept.replace(hashlib.sha256(generator.read_bytes()).hexdigest(), "0" * 64))
    with pytest.raises(VerificationFailed, match="did not paint"):
        audit(root, made)
    sidecar.unlink()
    with pytest.raises(VerificationFailed, match="did not paint"):
        audit(root, made)
    sidecar.write_text(kept)
    save_weights(generator, parameters, generator_metadata(study.model_copy(update={"seed": study.seed + 1}), 1))
    with pytest.raises(VerificationFailed, match="generator of another study"):
        audit(root, made)
    assert events(root, "site-a") == []


def other_generator_in(run: Path) -> None:
    """A generator of the same study that these sites never trained, written as a run writes its own."""
    file = run / "generator.safetensors"
    parameters, metadata = load_weights(file)
    name = min(parameters)
    nudged = parameters | {name: parameters[name] + parameters[name].dtype.type(1e-3)}
    save_weights(file, nudged, generator_metadata(study_of(metadata), 1))


def test_a_generator_that_the_runs_rounds_did_not_make_is_neither_audited_nor_verified_nor_packed(
    made: Path, root: Path
) -> None:
    run, file = root / "run", root / "run" / "generator.safetensors"
    own = file.read_bytes()
    assert audit(root, made)["generator_named_by"] == "the coordinator's journal"
    result = json.loads((root / "audit" / "audit.json").read_text())
    other_generator_in(run)
    foreign = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        audit(root, made)
    assert events(root, "site-a") == [("audit-begun", 1), ("audit-done", 1)]

    # Even with a result about it that a site's journal confirms.
    (root / "audit" / "audit.json").write_text(json.dumps(result | {"generator_sha256": foreign}))
    sealed = hashlib.sha256((root / "audit" / "audit.json").read_bytes()).hexdigest()
    for site in ("site-a", "site-b"):
        Journal(run / "sites" / site / "journal.jsonl").append("audit-done", number=1, sha256=sealed)
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        verify_audit(root / "audit", run)
    generate_key(root / "keys")
    arguments = (run, root / "release", "volumes", "controlled", root / "keys" / "key.pem", root / "audit")
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        pack_run(*arguments, root / "synthetic", None, lambda done, total: None)

    file.write_bytes(own)
    (run / "journal.jsonl").unlink()  # nor is a run without its journal
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        audit(root, made)


def test_without_one_sites_folder_there_is_no_audit_no_verification_and_no_release(made: Path, root: Path) -> None:
    audit(root, made)
    shutil.rmtree(root / "run" / "sites" / "site-b")
    told = "a run of 2 sites, and the folders of 1 of them"
    with pytest.raises(VerificationFailed, match=told):
        audit(root, made)
    with pytest.raises(VerificationFailed, match=told):
        verify_audit(root / "audit", root / "run")
    generate_key(root / "keys")
    arguments = (root / "run", root / "release", "volumes", "internal", root / "keys" / "key.pem", root / "audit")
    with pytest.raises(VerificationFailed, match=told):
        pack_run(*arguments, root / "synthetic", None, lambda done, total: None)
    shutil.copytree(made / "run" / "sites" / "site-b", root / "run" / "sites" / "site-c")
    settings = root / "run" / "sites" / "site-c" / "site.toml"
    settings.write_text(settings.read_text().replace("site-b", "site-c", 1))
    with pytest.raises(VerificationFailed, match="1 of them and 1 of others"):
        audit(root, made)


def test_the_same_audit_gives_the_same_figures(made: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        for part in ("run", "synthetic"):
            shutil.copytree(made / part, tmp_path / name / part)
        found.append(audit(tmp_path / name, made))
    assert found[0] == found[1]


def test_one_sites_own_folder_is_audited_with_the_generator_named(made: Path, root: Path) -> None:
    site = root / "run" / "sites" / "site-a"
    content = audit_run_folder(
        site,
        root / "synthetic",
        read_cohort(made / "public"),
        root / "audit",
        SIZES,
        TIERS["internal"],
        generator_file=root / "run" / "generator.safetensors",
        device="cpu",
    )
    assert json.loads(json.dumps(content))["counts"]["sites"] == 1
    assert content["generator_named_by"] is None  # the site received it
    assert "No journal at hand names this generator" in audit_text(content)
    assert events(root, "site-a") == [("audit-begun", 1), ("audit-done", 1)]
    assert events(root, "site-b") == []


def test_without_a_site_a_generator_or_reference_patients_there_is_no_audit(
    made: Path, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no run folder at the path given"):
        site_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no reference patients") as refused:
        audit_run_folder(root / "run", root / "synthetic", None, root / "audit", SIZES, TIERS["internal"], device="cpu")
    assert "--public" in refused.value.remedy
    assert events(root, "site-a") == []  # it counts as no audit
    with pytest.raises(DataError, match="no run folder"):
        audit_run_folder(tmp_path / "no", root / "synthetic", None, root / "audit", SIZES, TIERS["internal"])
    with pytest.raises(DataError, match="no readable audit result"):
        read_result(root / "audit")
    (root / "run" / "generator.safetensors").unlink()
    with pytest.raises(DataError, match="it has not finished"):
        audit(root, made)


def test_public_patients_whom_a_site_holds_are_refused(made: Path, root: Path) -> None:
    private = next(iter(site_folders(root / "run"))).cohort
    with pytest.raises(DataError, match="public cohort are the sites' own"):
        audit_run_folder(
            root / "run",
            root / "synthetic",
            read_cohort(private),
            root / "audit",
            SIZES,
            TIERS["controlled"],
            device="cpu",
        )
    assert not events(root, "site-a")  # refused before the holdout was looked at


def test_networks_made_to_memorise_are_caught(tmp_path: Path) -> None:
    root = make_run(tmp_path, 32, RolesTable(test=0.05, control=0.1, audit=0.75, validation=0.0))
    content = json.loads(json.dumps(audit(root, root, AuditSizes(steps=20, negative_seeds=1, draws=4))))
    assert content["counts"]["member"] >= 24
    controls = {row["id"]: row for row in content["controls"]}
    assert "after 720 steps" in controls["positive-model"]["got"]
    assert controls["positive-model"]["ok"], controls["positive-model"]["got"]
    assert controls.keys() == {"blind", "positive-set", "positive-model", "negative"}
    assert content["verdict"] != "PASS"
