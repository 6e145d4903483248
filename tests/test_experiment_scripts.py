"""The experiments in ``benchmarks`` run to their end, at sizes that mean nothing, and compare what they name."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedphantom.common.phantom.patients import write_phantom_cohort

ROOT = Path(__file__).parent.parent
ALL_TRAIN_OR_TEST = {"test": 0.5, "reference": 0.0, "control": 0.0, "audit": 0.0, "validation": 0.0}
SITES = ("A", "B")


def experiment(script: str, folder: Path, roles: dict[str, float], *arguments: str) -> dict[str, Any]:
    """Run a script on eight procedural patients a site with the smallest study there is; its ``result.json``."""
    write_phantom_cohort(folder / "patients", patients=16, sites=2, spacing_mm=12.0)
    study = folder / "study.toml"
    command = [sys.executable, "-m", "fedphantom", "study", "new", str(study), "--template", "tiny"]
    subprocess.run(command, check=True, capture_output=True)
    lines = study.read_text(encoding="utf-8").splitlines()
    shares = [
        f"{line.split(' = ')[0]} = {roles[line.split(' = ')[0]]}" if _role(line, roles) else line for line in lines
    ]
    study.write_text("\n".join(shares), encoding="utf-8")
    sites = [part for site in SITES for part in ("--site", f"{site}={folder / 'patients'}")]
    command = [sys.executable, str(ROOT / "benchmarks" / script), str(study), *sites, "--out", str(folder / "out")]
    done = subprocess.run([*command, "--segmenter-steps", "2", *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    return result


def _role(line: str, roles: dict[str, float]) -> bool:
    return line.split(" = ")[0] in roles


@pytest.mark.slow
@pytest.mark.long
def test_label_edits_compares_edited_scans_with_as_many_unedited_ones(tmp_path: Path) -> None:
    recipe = str(ROOT / "docs" / "recipes" / "move-and-resize.toml")
    result = experiment(
        "label_edits.py", tmp_path, ALL_TRAIN_OR_TEST, "--recipe", recipe, "--variants", "2", "--seeds", "1"
    )
    assert result["counts"]["training_patients"] == result["counts"]["test_patients"] == 8
    assert 8 <= result["counts"]["synthetic_scans"] <= 16
    tumour = next(found for found in result["found"] if found["region"] == "tumour")
    for word in ("usual", "none"):
        assert set(tumour[f"augmentation: {word}"]["dice"]) == {"real", "as they are", "edited"}
        gain, dice = tumour[f"augmentation: {word}"]["gain_of_edits"], tumour[f"augmentation: {word}"]["dice"]
        assert gain["mean"] == pytest.approx(dice["edited"]["mean"] - dice["as they are"]["mean"], abs=2e-4)


@pytest.mark.slow
@pytest.mark.long
def test_sharing_modes_scores_and_attacks_every_way_of_sharing(tmp_path: Path) -> None:
    roles = {"test": 0.25, "reference": 0.25, "control": 0.0, "audit": 0.45, "validation": 0.0}
    result = experiment("sharing_modes.py", tmp_path, roles, "--patients", "test", "--volumes", "4", "--seeds", "1")
    ways = result["seeds"][0]["ways"]
    assert set(ways) == {"real", "local A", "local B", "ensemble", "federated", "pooled"}
    assert all({"A1", "A3"} <= found.keys() for name, found in ways.items() if name != "real")
    assert (tmp_path / "out" / "sharing-modes.png").exists()


@pytest.mark.slow
@pytest.mark.long
def test_sharing_modes_compares_averages_alone_by_patients_of_two_roles(tmp_path: Path) -> None:
    momentum = tmp_path / "momentum.toml"
    command = [sys.executable, "-m", "fedphantom", "study", "new", str(momentum), "--template", "tiny"]
    subprocess.run(command, check=True, capture_output=True)
    text = momentum.read_text(encoding="utf-8")
    momentum.write_text(text.replace("server_momentum = 0.0", "server_momentum = 0.5"), encoding="utf-8")
    roles = {"test": 0.25, "reference": 0.0, "control": 0.0, "audit": 0.0, "validation": 0.35}
    chosen = ["--averages", "--variant", f"momentum={momentum}", "--patients", "validation", "test"]
    result = experiment("sharing_modes.py", tmp_path, roles, *chosen, "--volumes", "4", "--seeds", "1")
    ways = result["seeds"][0]["ways"]
    assert set(ways) == {"real", "federated", "momentum"}
    assert not any("A1" in found for found in ways.values())
    for role in ("validation", "test"):
        plain, other = (ways[name]["by_role"][role]["dice"]["mean"] for name in ("federated", "momentum"))
        gain = ways["momentum"]["by_role"][role]["over_federated"]["mean"]
        assert gain == pytest.approx(other - plain, abs=2e-4)


@pytest.mark.slow
@pytest.mark.long
def test_dp_utility_compares_promises_with_the_public_material_that_they_start_from(tmp_path: Path) -> None:
    public = tmp_path / "public"
    write_phantom_cohort(public, patients=4, sites=1, spacing_mm=12.0, seed=1)
    roles = {"test": 0.0, "reference": 0.0, "control": 0.0, "audit": 0.0, "validation": 0.5}
    few = ["--rounds", "1", "--local-steps", "2", "--pretrain-steps", "2", "--volumes", "4", "--seeds", "1"]
    result = experiment("dp_utility.py", tmp_path, roles, "--public", str(public), "--epsilon", "3", "8", *few)
    found = result["seeds"][0]
    arms = {"real", "public scans", "no promise", "public generator", "ε = 3", "ε = 8"}
    assert set(found["dice"]) == set(found["per_patient"]) == arms
    for eps, other in itertools.product(("ε = 3", "ε = 8"), ("public generator", "public scans")):
        gain = found["dice"][eps]["mean"] - found["dice"][other]["mean"]
        assert found["gains"][f"{eps} over {other}"]["mean"] == pytest.approx(gain, abs=2e-4)
    for eps in (3, 8):
        assert found["statements"][f"ε = {eps}"]["epsilon"] <= eps
    assert (tmp_path / "out" / "utility-over-epsilon.png").exists()
