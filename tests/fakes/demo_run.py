"""``python demo_run.py OUT``: a demo of small procedural patients, as the command runs it, for tests to stop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedphantom import cli
from fedphantom.client.evaluation.report import evaluate_scans
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.site_folder import SiteFolder
from fedphantom.privacy.audit.run import AuditSizes
from fedphantom.server import demo
from fedphantom.server.demo import HospitalSide, run_demo
from fedphantom.server.demo_material import DemoSizes

SMALL = DemoSizes(
    rounds=2,
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


def small_demo(
    out: Path,
    stage: Callable[[str], Callable[[int, int], None]] = lambda name: lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    *,
    sites: int = 3,
    hospital: HospitalSide = HOSPITAL,
) -> dict[str, Any]:
    return run_demo(out, None, sites, "internal", "local", hospital, stage, say, SMALL)


if __name__ == "__main__":
    demo.PHANTOM_SIZES = SMALL
    sys.argv = ["fedphantom", "demo", "--out", sys.argv[1], "--engine", "local", "--json"]
    cli.main()
