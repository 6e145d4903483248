"""Volumes of 240×240×155 at 1 mm with four channels: painted by an untrained generator, and segmented, in bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from measured_process import measured
from real_patients import FOLDER, MOST_MB, full_size_study, write_tissue_cohort

from fedphantom.common.study_template import to_toml

pytestmark = pytest.mark.slow

SEGMENT = """
import json
from fedphantom.client.evaluation.report import evaluate_scans
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import prepare
from fedphantom.common.study import read_study

root = Path(sys.argv[1])
study = read_study(root / "study.toml")
scans = prepare(read_cohort(root / "table" / "cohort.tsv"), study, root / "cache")
arms = {"real": scans.only([0])}
done = evaluate_scans(arms, scans.only([1]), study, steps=2, seed=0, folder=None, progress=lambda done, total: None)
print(json.dumps(done["arms"]))
"""


def test_a_volume_is_sampled_painted_and_written_within_five_gigabytes() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "full_size.py"
    facts = json.loads(subprocess.run([sys.executable, script, "cpu"], capture_output=True, check=True).stdout)
    assert facts["peak_mb"] < MOST_MB


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the two real patients are not beside this checkout")
@pytest.mark.long
def test_segmenters_are_trained_and_scored_on_such_volumes_in_bounds(tmp_path: Path) -> None:
    """Figures after two steps mean nothing; that whole scans are segmented, and in how much memory, does.

    One arm: every other would hold as much, one network and one scan at a time.
    """
    (tmp_path / "study.toml").write_text(to_toml(full_size_study(2)))
    write_tissue_cohort(tmp_path / "table")
    out, peak = measured(SEGMENT, tmp_path)
    assert peak < MOST_MB
    (arm,) = json.loads(out)
    assert arm["dice"]["n_test"] == 1
    assert set(arm["per_label"]) >= {"oedema", "enhancing", "necrosis"}
