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
