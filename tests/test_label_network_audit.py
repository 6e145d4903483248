"""The audit of a network from images to labels, and the gate behind it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_anatomy import anatomy_study, anatomy_text
from tiny_cohorts import tiny_scans, tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.cohorts.roles import Role
from fedphantom.common.errors import DataError
from fedphantom.common.journal import read_journal
from fedphantom.common.keys import generate_key
from fedphantom.privacy.attacks.interface import Images
from fedphantom.privacy.attacks.own_scan import Read
from fedphantom.privacy.audit.audit import AuditPlan
from fedphantom.privacy.audit.label_network import LabelNetworkMaterial, audit_label_network
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.policy import TIERS

STUDY = anatomy_study()


def blind_reader(images: Images) -> Images:
    """Knows tissues by their brightness, and nobody."""
    t1 = images[:, 0]
    shares = np.stack([t1 < -0.9, (t1 >= -0.9) & (t1 < 0.3), t1 >= 0.3], axis=1)
    return (0.7 * shares + 0.1).astype(np.float32)


def knows(scans: PreparedScans, rows: NDArray[np.intp]) -> Read:
    """Gives the own label map of these scans, and is as blind as the other on all others."""
    known = {scans.volumes[row].tobytes(): scans.classes[row] for row in rows}

    def read(images: Images) -> Images:
        out = blind_reader(images)
        for i, image in enumerate(images):
            if image.tobytes() in known:
                own = np.stack([known[image.tobytes()] == label for label in range(3)])
                out[i] = 0.7 * own + 0.1
        return out

    return read


def scans_of(patients: int) -> PreparedScans:
    """Label maps that no image explains everywhere: only who saw them knows them."""
    scans = tiny_scans(patients)
    random = np.random.default_rng(5)
    classes = np.where((scans.classes == 1) & (random.random(scans.classes.shape) < 0.3), 0, scans.classes)
    return PreparedScans(scans.volumes, classes.astype(np.uint8), scans.patients, scans.sites, scans.headers)


def audited(target_knows: str, memoriser_knows: bool = True, control_knows: str = "") -> AuditResult:
    roles: list[Role] = [*["member"] * 24, *["holdout"] * 24, *["reference"] * 4, *["control"] * 4, *["training"] * 4]
    scans = scans_of(len(roles))
    rows = {role: np.flatnonzero([r == role for r in roles]) for role in roles}

    def network(knowledge: str) -> Read:
        return knows(scans, rows[knowledge]) if knowledge else blind_reader  # type: ignore[index]  # a role's name

    material = LabelNetworkMaterial(scans, tuple(roles), STUDY, network(target_knows), "a" * 64, "b" * 64, 8)
    plan = AuditPlan(release="weights", seed=3, training_seed=3, steps=8, scans_per_step=2, blind_permutations=20)
    trained: list[tuple[int, ...]] = []

    def train(chosen: NDArray[np.intp], steps: int, seed: int) -> Read:
        if steps == plan.steps:  # a few steps are tried before: how long one takes
            trained.append(tuple(chosen))
        return network(control_knows if tuple(chosen) == tuple(rows["control"]) else "")

    def memorise(chosen: NDArray[np.intp], steps: int, seed: int) -> Read:
        assert set(chosen) <= set(rows["member"])
        return knows(scans, chosen) if memoriser_knows else blind_reader

    result = audit_label_network(material, plan, TIERS["controlled"], train, memorise)
    assert sorted(trained) == sorted([tuple(rows["reference"]), *[tuple(rows["control"])] * 3])
    return result


def control(result: AuditResult, name: str) -> bool:
    return next(c.ok for c in result.evidence.controls if c.id == name)


def test_a_network_that_knows_its_members_fails() -> None:
    result = audited("member")
    a1 = next(attack for attack in result.evidence.attacks if attack.id == "A1")
    assert a1.auc > 0.95
    assert a1.rejects
    assert {c.id for c in result.evidence.controls} == {"positive-model", "negative", "blind"}
    assert control(result, "negative")
    assert control(result, "blind")
    assert result.verdict.outcome == "FAIL"


def test_a_network_that_knows_nobody_is_not_accused_and_not_passed_either() -> None:
    result = audited("")
    a1 = next(attack for attack in result.evidence.attacks if attack.id == "A1")
    assert a1.auc == pytest.approx(0.5)
    assert not a1.rejects
    assert result.verdict.outcome == "INCONCLUSIVE"
    assert any("threat model W" in reason for reason in result.verdict.reasons)
    assert control(result, "positive-model")


def test_an_attack_that_misses_a_memoriser_is_called_too_weak() -> None:
    assert not control(audited("", memoriser_knows=False), "positive-model")


def test_a_control_that_knows_members_whom_it_never_saw_shows_a_biased_split() -> None:
    result = audited("", control_knows="member")
    assert not control(result, "negative")
    assert result.verdict.outcome == "INVALID"


def test_counts_are_of_patients_and_nothing_is_said_of_a_synthetic_set() -> None:
    content = json.loads(audited("").to_json())
    assert content["counts"]["member"] == 24
    assert content["counts"]["synthetic"] == 0
    assert content["release"] == "weights"
    assert content["synthetic_sha256"] is None


def test_without_reference_patients_there_is_no_audit() -> None:
    scans = scans_of(4)
    roles: tuple[Role, ...] = ("member", "holdout", "member", "holdout")
    material = LabelNetworkMaterial(scans, roles, STUDY, blind_reader, "a" * 64, "b" * 64, 8)
    plan = AuditPlan(release="weights", seed=3, training_seed=3, steps=8, scans_per_step=2)

    def never(chosen: NDArray[np.intp], steps: int, seed: int) -> Read:
        raise AssertionError("nothing to train")

    with pytest.raises(DataError, match="0 reference scans"):
        audit_label_network(material, plan, TIERS["controlled"], never, never)


# The whole way, on a run's folder.


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("anatomy-audit")
    roles = "test = 0\nreference = 0.2\ncontrol = 0.2\naudit = 0.5"
    (root / "study.toml").write_text(anatomy_text(text=tiny_text(roles=roles, rounds=1, local_steps=2)))
    cohorts = [write_tiny_cohort(root / name, 10, seed=seed) for seed, name in enumerate("ab")]
    sites = [f"--site=site-{c.name}={c}" for c in cohorts]
    assert run(["simulate", str(root / "study.toml"), *sites, "--out", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def result_file(run_folder: Path) -> Path:
    """Of the run's audit, which a release asks for."""
    assert run(["audit", "run", str(run_folder), "--steps", "2", "--negative-seeds", "1", "--json"]) == 6
    return run_folder / "audit" / "audit.json"


def test_such_a_run_is_audited_without_a_synthetic_cohort_and_never_passes(
    run_folder: Path, result_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(result_file.read_text())
    assert content["verdict"] == "INCONCLUSIVE"
    assert "A1" in {attack["id"] for attack in content["attacks"]}
    assert run(["audit", "run", str(run_folder), "--white-box"]) == 3
    assert "--white-box or --shadows where the network paints nothing" in capsys.readouterr().err
    assert run(["audit", "verify", str(result_file.parent), str(run_folder)]) == 0
    for site in ("site-a", "site-b"):
        events = [entry.event for entry in read_journal(run_folder / "sites" / site / "journal.jsonl")]
        assert events[-2:] == ["audit-begun", "audit-done"]


def test_its_weights_are_not_packed_with_or_without_an_audit(
    run_folder: Path, result_file: Path, tmp_path: Path
) -> None:
    private, _ = generate_key(tmp_path / "keys")
    pack = ["release", "pack", str(run_folder), str(tmp_path / "out"), "--kind", "weights", "--key", str(private)]
    audit = ["--audit", str(result_file)]
    assert run([*pack, "--tier", "internal"]) == 4
    assert run([*pack, "--tier", "controlled", *audit]) == 4
    assert run([*pack, "--tier", "internal", *audit]) == 4
    assert not (tmp_path / "out").exists()
