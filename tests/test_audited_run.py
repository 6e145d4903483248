"""What an audit of a run refuses to believe: other coins, journals, generators and sites than the run's own."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audited_run import audit, events
from planted_files import UNREAD, Plant
from tiny_cohorts import tiny_scans, tiny_study, write_tiny_cohort

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, prepare
from fedphantom.common.cohorts.roles import Role, draw_roles
from fedphantom.common.errors import DataError, VerificationFailed
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import generator_metadata, load_weights, save_weights, study_of
from fedphantom.common.journal import Journal, last_hash, read_journal
from fedphantom.common.keys import generate_key
from fedphantom.common.site_folder import SiteFolder, SiteMaterial, site_folders, site_material
from fedphantom.privacy.audit.gathering import gather
from fedphantom.privacy.audit.run import verify_audit
from fedphantom.privacy.release.run import pack_run


def test_edited_coins_are_refused(simulated: Path, spoilt: Path) -> None:
    file = spoilt / "run" / "sites" / "site-a" / "coins.json"
    text = file.read_text()
    swapped = text.replace('"member"', '"x"').replace('"holdout"', '"member"').replace('"x"', '"holdout"')
    assert swapped != text
    file.write_text(swapped)
    with pytest.raises(VerificationFailed, match="coin record other than"):
        audit(spoilt, simulated)
    assert events(spoilt, "site-b") == []


def test_a_missing_coin_record_is_refused_by_name_and_not_drawn_anew(
    spoilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coins = spoilt / "run" / "sites" / "site-b" / "coins.json"
    coins.unlink()
    before = {path: path.stat().st_mtime_ns for path in spoilt.rglob("*") if path.is_file()}
    assert fedphantom(["audit", "run", str(spoilt / "run"), "--device", "cpu"]) == 5
    assert "a site without its coin record, which its journal names" in " ".join(capsys.readouterr().err.split())
    after = {path: path.stat().st_mtime_ns for path in spoilt.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path) and "cache" not in path.parts}
    assert changed <= {".coins.json.lock"}  # of the other site, which was read first


def test_a_holdout_patient_who_trained_at_another_site_under_another_name_is_refused(tmp_path: Path) -> None:
    study = tiny_study()
    scans = tiny_scans(8).named_site("site-a")
    public = read_cohort(write_tiny_cohort(tmp_path / "open", 2, seed=9, prefix="o"))
    headers = np.zeros((len(scans), prepare(public, study, tmp_path / "cache").headers.shape[1]))
    scans = replace(scans, headers=headers)
    coins = draw_roles(set(scans.patients), study.roles, np.random.default_rng(0))

    def site(own: PreparedScans, role: Role) -> SiteMaterial:
        roles = dict.fromkeys(own.patients, role)
        return SiteMaterial(public, replace(coins, roles=roles), own)

    here = site(scans.only(range(4)), "holdout")
    noise = np.random.default_rng(3).normal(size=scans.only([5, 2]).volumes.shape).astype(np.float32)
    for role in ("member", "training"):
        there = site(scans.only(range(4, 8)).named_site("site-b"), role)
        gather([here, there], public, study, tmp_path / "cache")
        same = site(scans.only([5, 2]).named_site("site-b"), role)
        with pytest.raises(DataError, match="1 holdout scan that the generator was trained on") as refused:
            gather([here, same], public, study, tmp_path / "cache")
        assert refused.value.exit_code == 3
        exported_again = replace(same.scans, volumes=same.scans.volumes + np.float32(1e-3) * noise)
        with pytest.raises(DataError, match="1 holdout scan that the generator was trained on"):
            gather([here, replace(same, scans=exported_again)], public, study, tmp_path / "cache")
    gather([here, site(scans.only([5, 2]).named_site("site-b"), "control")], public, study, tmp_path / "cache")


def lose_journal(folder: SiteFolder) -> None:
    folder.journal.unlink()
    folder.journal.with_name("journal.jsonl.head").unlink()


@pytest.mark.parametrize("kept", ["coins and state", "coins", "an empty journal"])
def test_coins_or_a_state_without_their_journal_are_no_fresh_start(simulated: Path, spoilt: Path, kept: str) -> None:
    folder = next(iter(site_folders(spoilt / "run")))
    lose_journal(folder)
    if kept != "coins and state":
        shutil.rmtree(folder.state)
    if kept == "an empty journal":
        folder.journal.touch()
    with pytest.raises(VerificationFailed, match="missing or empty"):
        site_material(folder, folder.study())
    with pytest.raises(VerificationFailed):
        audit(spoilt, simulated)


def test_a_journal_cut_short_with_its_head_is_found_by_a_result_that_it_forgot(simulated: Path, spoilt: Path) -> None:
    audit(spoilt, simulated)
    for folder in site_folders(spoilt / "run"):
        first = folder.journal.read_bytes().splitlines(keepends=True)
        begun = next(i for i, line in enumerate(first) if b'"audit-begun"' in line)
        folder.journal.write_bytes(b"".join(first[:begun]))
        head = folder.journal.with_name("journal.jsonl.head")
        head.unlink()
        head.write_text(f"{begun} {last_hash(folder.journal)}\n")  # both written anew
    with pytest.raises(VerificationFailed, match=r"audit-001\.json"):
        audit(spoilt, simulated)
    with pytest.raises(VerificationFailed, match=r"audit-001\.json"):
        verify_audit(spoilt / "audit", spoilt / "run")


def test_a_site_cut_off_between_coins_and_journal_goes_on(simulated: Path, spoilt: Path) -> None:
    folder = next(iter(site_folders(spoilt / "run")))
    lose_journal(folder)
    shutil.rmtree(folder.state)
    Journal(folder.journal).begin()
    site_material(folder, folder.study())
    assert [entry.event for entry in read_journal(folder.journal)] == ["roles-drawn", "scans-prepared"]


def test_a_generator_of_another_study_and_foreign_volumes_are_refused(simulated: Path, spoilt: Path) -> None:
    generator = spoilt / "run" / "generator.safetensors"
    parameters, metadata = load_weights(generator)
    study = study_of(metadata)
    sidecar = next((spoilt / "synthetic").rglob("*_dseg.json"))
    kept = sidecar.read_text()
    sidecar.write_text(kept.replace(hashlib.sha256(generator.read_bytes()).hexdigest(), "0" * 64))
    with pytest.raises(VerificationFailed, match="did not paint"):
        audit(spoilt, simulated)
    sidecar.unlink()
    with pytest.raises(VerificationFailed, match="did not paint"):
        audit(spoilt, simulated)
    sidecar.write_text(kept)
    save_weights(generator, parameters, generator_metadata(study.model_copy(update={"seed": study.seed + 1}), 1))
    with pytest.raises(VerificationFailed, match="generator of another study"):
        audit(spoilt, simulated)
    assert events(spoilt, "site-a") == []


def other_generator_in(run: Path) -> None:
    """A generator of the same study that these sites never trained, written as a run writes its own."""
    file = run / "generator.safetensors"
    parameters, metadata = load_weights(file)
    name = min(parameters)
    nudged = parameters | {name: parameters[name] + parameters[name].dtype.type(1e-3)}
    save_weights(file, nudged, generator_metadata(study_of(metadata), 1))


def test_a_generator_that_the_runs_rounds_did_not_make_is_neither_audited_nor_verified_nor_packed(
    simulated: Path, spoilt: Path
) -> None:
    run, file = spoilt / "run", spoilt / "run" / "generator.safetensors"
    own = file.read_bytes()
    assert audit(spoilt, simulated)["generator_named_by"] == "the coordinator's journal"
    result = json.loads((spoilt / "audit" / "audit.json").read_text())
    other_generator_in(run)
    foreign = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        audit(spoilt, simulated)
    assert events(spoilt, "site-a") == [("audit-begun", 1), ("audit-done", 1)]

    # Even with a result about it that a site's journal confirms.
    (spoilt / "audit" / "audit.json").write_text(json.dumps(result | {"generator_sha256": foreign}))
    sealed = hashlib.sha256((spoilt / "audit" / "audit.json").read_bytes()).hexdigest()
    for site in ("site-a", "site-b"):
        Journal(run / "sites" / site / "journal.jsonl").append("audit-done", number=1, sha256=sealed)
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        verify_audit(spoilt / "audit", run)
    generate_key(spoilt / "keys")
    arguments = (run, spoilt / "release", "volumes", "controlled", spoilt / "keys" / "key.pem", spoilt / "audit")
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        pack_run(*arguments, spoilt / "synthetic", None, lambda stage: lambda done, total: None)

    file.write_bytes(own)
    (run / "journal.jsonl").unlink()  # nor is a run without its journal
    with pytest.raises(VerificationFailed, match="the run's journal does not know"):
        audit(spoilt, simulated)


def test_without_one_sites_folder_there_is_no_audit_no_verification_and_no_release(
    simulated: Path, spoilt: Path
) -> None:
    audit(spoilt, simulated)
    shutil.rmtree(spoilt / "run" / "sites" / "site-b")
    told = "a run of 2 sites, and the folders of 1 of them"
    with pytest.raises(VerificationFailed, match=told):
        audit(spoilt, simulated)
    with pytest.raises(VerificationFailed, match=told):
        verify_audit(spoilt / "audit", spoilt / "run")
    generate_key(spoilt / "keys")
    arguments = (
        spoilt / "run",
        spoilt / "release",
        "volumes",
        "internal",
        spoilt / "keys" / "key.pem",
        spoilt / "audit",
    )
    with pytest.raises(VerificationFailed, match=told):
        pack_run(*arguments, spoilt / "synthetic", None, lambda stage: lambda done, total: None)
    shutil.copytree(simulated / "run" / "sites" / "site-b", spoilt / "run" / "sites" / "site-c")
    settings = spoilt / "run" / "sites" / "site-c" / "site.toml"
    settings.write_text(settings.read_text().replace("site-b", "site-c", 1))
    with pytest.raises(VerificationFailed, match="1 of them and 1 of others"):
        audit(spoilt, simulated)


@pytest.mark.parametrize("plant", UNREAD)
def test_an_audit_refuses_what_it_does_not_read_and_counts_nothing(simulated: Path, spoilt: Path, plant: Plant) -> None:
    plant(spoilt / "synthetic")
    with pytest.raises(VerificationFailed):
        audit(spoilt, simulated)
    assert events(spoilt, "site-a") == []


def fail_noted(run: Path, **generator: str) -> None:
    """In every site's journal, as an audit that failed notes it."""
    facts = {"number": 1, "verdict": "FAIL", "sha256": "0" * 64, "release": "volumes", "tier": "internal"}
    for folder in site_folders(run):
        Journal(folder.journal).append("audit-done", **facts, **generator)


def test_a_header_that_its_run_did_not_write_is_refused(simulated: Path, spoilt: Path) -> None:
    file = spoilt / "run" / "generator.safetensors"
    parameters, metadata = load_weights(file)
    for changed in ({"rounds": "2"}, {"ema_decay": "0.25"}, {"preset": "small"}, {"trained_on": "public"}):
        save_weights(file, parameters, metadata | changed)
        with pytest.raises(VerificationFailed, match="does not say of it what its study's training writes"):
            audit(spoilt, simulated)
    assert events(spoilt, "site-a") == []


def test_a_fail_is_of_the_parameters_whatever_the_files_hash_is(simulated: Path, spoilt: Path) -> None:
    content = audit(spoilt, simulated)
    file = spoilt / "run" / "generator.safetensors"
    parameters, metadata = load_weights(file)
    assert content["channels"] == list(study_of(metadata).channels)
    assert content["parameters_sha256"] == parameters_digest(parameters)
    done = read_journal(next(iter(site_folders(spoilt / "run"))).journal)[-1]
    assert done.facts["parameters"] == content["parameters_sha256"]
    fail_noted(spoilt / "run", generator="f" * 64, parameters="f" * 64)
    assert verify_audit(spoilt / "audit", spoilt / "run") == content
    fail_noted(spoilt / "run", generator="f" * 64, parameters=str(content["parameters_sha256"]))
    with pytest.raises(VerificationFailed, match="failed an earlier audit"):
        verify_audit(spoilt / "audit", spoilt / "run")

    renamed = study_of(metadata).model_copy(update={"name": "renamed"})
    save_weights(file, parameters, generator_metadata(renamed, 1))
    forged = content | {"generator_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (spoilt / "audit" / "audit.json").write_text(json.dumps(forged))
    with pytest.raises(VerificationFailed, match="of another study than the sites'"):
        verify_audit(spoilt / "audit", spoilt / "run")
