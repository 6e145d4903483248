"""What a compliance officer reads on a terminal after an audit."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_release import Releasable

from fedphantom.cli import run
from fedphantom.privacy.audit.report import audit_text

RESULT = {
    "verdict": "INCONCLUSIVE",
    "tier": "controlled",
    "reasons": ["Only 12 holdout patients"],
    "attacks": [
        {
            "id": "A1",
            "threat_model": "G",
            "auc": 0.61,
            "auc_ci": [0.4, 0.8],
            "tpr": [{"fpr": 0.0, "tpr": 0.25, "ci": [0.1, 0.5]}, {"fpr": 0.1, "tpr": 0.5, "ci": [0.3, 0.7]}],
            "eps_lower_bound": 0.0,
            "p_value": 0.2,
        },
        {
            "id": "B0",
            "threat_model": "none",
            "auc": 0.5,
            "auc_ci": [0.3, 0.7],
            "tpr": [],
            "eps_lower_bound": 0.0,
            "p_value": 0.5,
        },
    ],
    "controls": [{"id": "negative", "required": "chance", "got": "AUC 0.52", "ok": False}],
    "counts": {"holdout": 12},
    "epsilon_means": {"kind": "lower bound", "delta": 0.002, "unit": "patient", "adjacency": "add or remove"},
    "reference_stands_in": "16 public patients stand in as reference",
    "audit_number": 2,
}


def test_it_says_verdict_reasons_every_attack_and_what_an_epsilon_means() -> None:
    text = audit_text(RESULT)
    for part in (
        "INCONCLUSIVE",
        "Only 12 holdout",
        "A1",
        "0.25",
        "B0",
        "NO",
        "δ = 0.002",
        "public patients",
        "Audit 2 of this holdout",
        "upper bound at 97.5 %",
    ):
        assert part in text, part


def test_what_a_release_does_not_tell_of_a_small_group_is_a_dash() -> None:
    rows = [row | {"tpr": None, "auc_ci": None, "eps_lower_bound": None} for row in RESULT["attacks"]]  # type: ignore[attr-defined]  # JSON
    text = audit_text(RESULT | {"attacks": rows, "too_small": ["A3/outliers"]})
    assert "0.610 [-, -]" in text
    assert "too few patients are that isolated: A3/outliers." in text


def test_the_bound_that_is_judged_stands_beside_its_limit_and_with_its_confidence() -> None:
    rows = [row | {"auc_upper95": 0.6501} for row in RESULT["attacks"]]  # type: ignore[attr-defined]  # JSON
    text = audit_text(RESULT | {"attacks": rows, "release": "weights"})
    assert "0.651" in text
    assert "0.65 " in text
    assert "97.5 %," in text
    assert "The bound of B0 is at 95 % in every audit." in text
    assert "not judged" in audit_text(RESULT | {"attacks": rows, "release": "volumes"})


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_audit_show_reads_a_result_file_or_its_folder(
    options: list[str], releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    releasable.write_audit()
    assert run(["audit", "show", str(releasable.audit), *options]) == 0
    assert run(["audit", "show", str(releasable.audit.parent)]) == 0
    shown = capsys.readouterr().out
    assert "INCONCLUSIVE" in shown
    assert f"Shown as '{releasable.audit}' has it" in shown


def test_audit_show_of_a_run_shows_its_latest_audit(
    releasable: Releasable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    releasable.write_audit()
    (tmp_path / "a-run" / "audit").mkdir(parents=True)
    file = tmp_path / "a-run" / "audit" / "audit.json"
    file.write_bytes(releasable.audit.read_bytes())
    assert run(["audit", "show", str(tmp_path / "a-run")]) == 0
    assert f"Shown as '{file}' has it" in capsys.readouterr().out
    file.unlink()
    assert run(["audit", "show", str(tmp_path / "a-run")]) == 3


def test_audit_show_of_a_verdict_better_than_its_figures_is_refused(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS", release="volumes", negative_seeds=1)
    assert run(["audit", "show", str(releasable.audit)]) == 5


@pytest.mark.parametrize("battery", [None, 1])
def test_audit_show_of_an_audit_by_other_attacks_says_that_it_takes_a_new_audit(
    releasable: Releasable, battery: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    releasable.write_audit(battery=battery)
    assert run(["audit", "show", str(releasable.audit)]) == 3
    told = capsys.readouterr().err
    assert "other attacks than this program's" in told
    assert "Run 'fedphantom audit run' again" in told


def test_audit_show_of_something_else_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.json").write_text("[]")
    assert run(["audit", "show", str(tmp_path)]) == 3
    assert "audit result" in capsys.readouterr().err
