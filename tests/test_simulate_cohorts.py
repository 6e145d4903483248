"""The cohorts of a simulation are looked through before anything is made or trained; a run that goes on says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_cohorts import tiny_study, tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.common.volumes.nifti import read_label_map
from fedphantom.common.volumes.nifti_writer import write_label_map


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Stderr since the last call, in one line."""
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, Path]:
    return {name: write_tiny_cohort(tmp_path / name, 5, seed) for seed, name in enumerate(("one", "two"))}


def simulate(tmp_path: Path, sites: dict[str, Path], roles: str = "") -> int:
    (tmp_path / "study.toml").write_text(tiny_text(rounds=1, local_steps=1, roles=roles))
    options = [word for name, cohort in sites.items() for word in ("--site", f"{name}={cohort}")]
    return run(["simulate", str(tmp_path / "study.toml"), *options, "--out", str(tmp_path / "out"), "--json"])


def lose_a_channel(cohort: Path, patients: int) -> None:
    for path in sorted(cohort.rglob("*_FLAIR.nii.gz"))[:patients]:
        path.unlink()


def draw_other_labels(cohort: Path, patients: int) -> None:
    study = tiny_study()
    for path in sorted(cohort.rglob("*_dseg.nii.gz"))[:patients]:
        labels, _ = read_label_map(path)
        write_label_map(path, np.where(labels == 4, 9, labels).astype(np.uint8), study.volume_grid())


UNUSABLE: dict[str, tuple[Callable[[Path, int], None], str]] = {
    "a missing channel": (lose_a_channel, "missing-channel: a channel is missing: FLAIR in 5 scans"),
    "wrong labels": (draw_other_labels, "label-outside-study: a label value is outside the set: 9 in 5 scans"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_site_without_a_usable_scan_is_refused_with_the_reason_before_anything_is_made(
    fault: str, tmp_path: Path, sites: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, reason = UNUSABLE[fault]
    spoil(sites["two"], 5)
    assert simulate(tmp_path, sites) == 3
    told = said(capsys)
    assert f"error: site 'two': no usable scan, 5 of 5 scans left out ({reason})" in told
    assert "sub-p" not in told
    assert str(tmp_path) not in told
    assert not (tmp_path / "out").exists()


def test_a_site_with_nobody_left_to_train_on_is_refused_too(
    tmp_path: Path, sites: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lose_a_channel(sites["one"], 4)
    assert simulate(tmp_path, sites, "test = 0.9\naudit = 0\ncontrol = 0") == 3
    assert "site 'one': no training patient once the roles of 1 patient are drawn" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_one_bad_scan_is_left_out_and_told_and_the_rest_is_trained_on(
    tmp_path: Path, sites: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lose_a_channel(sites["two"], 1)
    assert simulate(tmp_path, sites, "test = 0\naudit = 0\ncontrol = 0\nvalidation = 0") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rounds"][0]["sites"] == ["one", "two"]
    assert "site 'two': 1 of 5 scans left out (missing-channel: a channel is missing: FLAIR in 1 scan)" in captured.err
    assert "site 'one'" not in captured.err
    coins = json.loads((tmp_path / "out" / "sites" / "two" / "coins.json").read_text())
    assert len(coins["roles"]) == 4
    journal = (tmp_path / "out" / "sites" / "two" / "journal.jsonl").read_text()
    assert '"left_out":{"missing-channel":1}' in journal


def test_a_cohort_that_changed_since_its_roles_were_drawn_is_refused_before_the_next_round(
    tmp_path: Path, sites: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    roles = "test = 0\naudit = 0\ncontrol = 0\nvalidation = 0"
    assert simulate(tmp_path, sites, roles) == 0
    for path in (tmp_path / "out" / "checkpoints").glob("round-00001*"):
        path.unlink()
    lose_a_channel(sites["two"], 1)
    capsys.readouterr()
    assert simulate(tmp_path, sites, roles) == 4
    assert "site 'two': the cohort changed since its roles were drawn: 5 patients then, 4 now" in said(capsys)


def test_a_run_that_goes_on_says_so_and_a_finished_one_too(
    tmp_path: Path, sites: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(tmp_path, sites) == 0
    assert "going on" not in said(capsys)
    assert simulate(tmp_path, sites) == 0
    assert "round 1 of 1 was done before: nothing is trained again" in said(capsys)
