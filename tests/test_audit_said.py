"""What whoever runs an audit is told before a look at the holdout is spent, which nothing brings back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from audited_run import audit, events, make_run
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from officers import OFFICERS, STRANGER

from fedphantom.cli import run as fedphantom
from fedphantom.common.federation import FederationTable
from fedphantom.common.keys import key_id
from fedphantom.common.study import RolesTable
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
