"""What ``make bench`` keeps: figures for programs, and beside them a table for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


@pytest.mark.parametrize("kept", RESULTS, ids=[path.stem for path in RESULTS])
def test_beside_each_result_stands_its_table_with_hardware_and_versions(kept: Path) -> None:
    result = json.loads(kept.read_text())
    table = kept.with_suffix(".md").read_text()
    script = "import json, sys; from result_table import markdown; print(markdown(json.load(sys.stdin)), end='')"
    made = subprocess.run(
        [sys.executable, "-c", script],
        cwd=BENCHMARKS,
        input=kept.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert table == made.stdout
    for named in (result["measured"], result["hardware"]["processor"], *result["hardware"]["versions"].values()):
        assert named in table
    assert table.count("\n| `") == len(result["rows"])


def figures(script: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, script, *arguments]
    made = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    return {str(name): float(value) for name, value in json.loads(made.stdout.splitlines()[-1]).items()}


@pytest.mark.long
def test_the_coordinators_memory_does_not_grow_with_the_number_of_sites() -> None:
    few, many = (figures("many_sites.py", sites, "4")["peak_mb"] for sites in ("3", "28"))
    assert many - few < 35  # blocks of all replies, 25 MB at most; 25 more replies as a whole would be 100 MB


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.network
def test_rounds_over_flower_are_timed_and_their_bytes_counted() -> None:
    found = figures("flower_rounds.py", "4", "2")
    assert 0.5 < found["seconds"] < 120
    assert 1.0 < found["wire_over_parameters"] < 1.1
