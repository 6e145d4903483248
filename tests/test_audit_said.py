"""What whoever runs an audit is told before a look at the holdout is spent, which nothing brings back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from audited_run import audit, events, make_run
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from officers import OFFICERS, STRANGER

from fedphantom.cli import run as fedphantom
from fedphantom.common.federation import FederationTable
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.journal import Journal
from fedphantom.common.keys import key_id
from fedphantom.common.study import RolesTable
from fedphantom.privacy.audit.history import FAILED
from fedphantom.privacy.audit.report import further_text
from fedphantom.privacy.audit.run import STRANGERS

ROLES = RolesTable(test=0.0, reference=0.0, control=0.2, audit=0.7)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a study that names one officer of each site."""
    named = tuple(key_id(key.public_key()) for key in OFFICERS.values())
    root = tmp_path_factory.mktemp("said")
    return make_run(root, 8, ROLES, federation=FederationTable(approval_keys=named))


def told(root: Path, *keys: Ed25519PrivateKey) -> tuple[list[str], list[tuple[int, Sequence[str] | None]]]:
    """What is said of an audit signed by these: warnings; its number, and whether it goes on."""
    warned: list[str] = []
    begun: list[tuple[int, Sequence[str] | None]] = []
    audit(root, root, keys=keys, begins=lambda *what: begun.append(what), warn=warned.append)
    return warned, begun


def test_a_key_that_the_study_does_not_name_and_a_further_look_are_told_before_the_trainings(simulated: Path) -> None:
    assert told(simulated, STRANGER) == ([STRANGERS], [(1, None)])
    assert told(simulated, next(iter(OFFICERS.values())), STRANGER) == ([], [(2, None)])
    assert events(simulated, "site-a")[::2] == [("audit-begun", 1), ("audit-begun", 2)]
    assert "Audit 2 of this holdout, a further one: it counts for good" in further_text(2)
    assert "97.5 %" in further_text(2)


@pytest.mark.parametrize("policy", ["", "# nothing\n"])
def test_a_policy_that_says_nothing_spends_no_look(
    simulated: Path, tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    before = events(simulated, "site-a")
    line = ["audit", "run", str(simulated / "run"), "--policy", str(tmp_path / "policy.toml"), "--device", "cpu"]
    assert fedphantom([*line, "--out", str(tmp_path / "audit")]) == 3
    assert "a policy file that says nothing" in " ".join(capsys.readouterr().err.split())
    assert events(simulated, "site-a") == before


def test_a_file_in_the_place_of_a_run_is_named_as_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.toml").write_text("")
    assert fedphantom(["audit", "run", str(tmp_path / "study.toml")]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "no run folder at the path given" in said
    assert "remove" not in said


def make_private(sidecar: Path) -> None:
    content = json.loads(sidecar.read_text())
    content["LabelChain"]["source"]["kind"] = "private"
    sidecar.write_text(json.dumps(content))


def without_a_chain(sidecar: Path) -> None:
    content = json.loads(sidecar.read_text())
    del content["LabelChain"]
    sidecar.write_text(json.dumps(content))


@pytest.mark.parametrize("spoil", [make_private, without_a_chain])
@pytest.mark.parametrize("kind", ["volumes", "weights"])
def test_volumes_painted_on_private_label_maps_are_refused_before_a_look_is_spent(
    simulated: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    synthetic = Path(shutil.copytree(simulated / "synthetic", tmp_path / "synthetic"))
    for sidecar in (synthetic / "sub-synthetic00002").rglob("*.json"):
        spoil(sidecar)
    before = events(simulated, "site-a")
    line = ["audit", "run", str(simulated / "run"), "--synthetic", str(synthetic), "--out", str(tmp_path / "audit")]
    assert fedphantom([*line, "--kind", kind, "--device", "cpu"]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "fewer than 20 of 4 scans were painted on private label maps" in said
    assert "never released" in said
    assert "fedphantom generate --sample N" in said
    assert events(simulated, "site-a") == before


def test_a_generator_that_failed_before_is_told_to_be_refused_before_the_trainings(
    simulated: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "again"))
    parameters = parameters_digest(load_weights(root / "run" / "generator.safetensors")[0])
    failed = {"verdict": "FAIL", "parameters": parameters, "tier": "controlled"}
    journal = Journal(root / "run" / "sites" / "site-b" / "journal.jsonl")
    journal.append("audit-done", number=1, release="weights", **failed)  # says nothing of volumes
    officer = next(iter(OFFICERS.values()))
    assert FAILED not in told(root, officer)[0]
    journal.append("audit-done", number=2, release="volumes", **failed)
    assert told(root, officer)[0] == [FAILED]
