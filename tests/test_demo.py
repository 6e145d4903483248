"""The whole way of the data, in one process, on a handful of small procedural patients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedphantom.cli import run
from fedphantom.client.evaluation.report import evaluate_scans
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.errors import ConfigError
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.journal import Journal
from fedphantom.common.site_folder import SiteFolder
from fedphantom.privacy.audit.run import AUDITED, AuditSizes
from fedphantom.server.demo import HospitalSide, run_demo
from fedphantom.server.demo_material import DemoSizes

pytestmark = pytest.mark.slow

SMALL = DemoSizes(
    rounds=1,
    local_steps=2,
    synthetic=6,
    generator_lr=1e-3,
    segmenter_steps=3,
    audit=AuditSizes(steps=2, negative_seeds=1, draws=1, blind_permutations=5),
    patients=30,
    spacing_mm=12.0,
)
HOSPITAL = HospitalSide(
    create_site_folder,
    lambda root: Site(SiteFolder.open(root), LocalTrainer.open),
    initial_parameters,
    evaluate_scans,
)


def demo(out: Path, *, sizes: DemoSizes = SMALL, sites: int = 3) -> tuple[dict[str, object], list[str]]:
    stages: list[str] = []

    def stage(name: str) -> object:
        stages.append(name)
        return lambda done, total: None

    summary = run_demo(out, None, sites, "internal", "local", HOSPITAL, stage, sizes)  # type: ignore[arg-type]
    return summary, stages


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    demo(out)
    return out


def test_it_leaves_what_the_contract_names(finished: Path) -> None:
    for name in ("cohorts", "run", "synthetic", "evaluation.json", "audit", "report.html", "summary.json"):
        assert (finished / name).exists(), name
    assert (finished / "release").is_dir() != (finished / "release-refused.json").is_file()
    for name in ("generator.safetensors", "summary.json", "checkpoints", "sites"):
        assert (finished / "run" / name).exists(), name


def test_its_figures_are_the_evaluation_and_the_audit(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [arm["name"] for arm in summary["evaluation"]["arms"]] == ["real", "synthetic", "real+synthetic"]
    assert summary["audit"]["verdict"] != "PASS"  # one negative control is not enough
    assert summary["dp"] == "none"


def test_called_again_it_trains_nothing_and_audits_nothing_anew(finished: Path) -> None:
    generator = (finished / "run" / "generator.safetensors").read_bytes()
    again, _ = demo(finished)
    journal = Journal(finished / "run" / "sites" / "A" / "journal.jsonl")
    assert journal.count(AUDITED) == 1
    assert (finished / "run" / "generator.safetensors").read_bytes() == generator
    assert again["audit"] == json.loads((finished / "audit" / "audit.json").read_text())


def test_another_demo_is_not_mixed_into_the_folder(finished: Path) -> None:
    with pytest.raises(ConfigError, match="another cohort"):
        demo(finished, sites=2)


def test_no_patient_is_named_in_what_may_leave(finished: Path) -> None:
    coins = [json.loads(path.read_text()) for path in finished.glob("run/sites/*/coins.json")]
    patients = {patient for record in coins for patient in record["roles"]}
    assert len(patients) == 30
    leaving = [finished / "report-shareable.html", finished / "run" / "summary.json", finished / "audit" / "audit.json"]
    leaving += [path for path in (finished / "release").rglob("*") if path.is_file()]
    for path in leaving:
        content = path.read_bytes()
        assert not [patient for patient in patients if patient.encode() in content], path.name


def test_the_release_verifies_and_one_changed_byte_does_not(finished: Path, tmp_path: Path) -> None:
    if not (finished / "release").is_dir():
        pytest.skip("the gate refused this demo's release")
    key = str(finished / "keys" / "key.pub.pem")
    assert run(["release", "verify", str(finished / "release"), "--key", key]) == 0
    readme = finished / "release" / "README.md"
    content = readme.read_bytes()
    readme.write_bytes(content[:-1] + b"x")
    try:
        assert run(["release", "verify", str(finished / "release"), "--key", key]) == 5
    finally:
        readme.write_bytes(content)
