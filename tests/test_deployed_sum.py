"""Secure aggregation as it is deployed: nginx, TLS, authenticated nodes, three sites that each answer one round."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deployed_site import approve_as_it_stands
from enrolment import Study
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.client.node.joining import join
from fedphantom.client.node.setup import init_site
from fedphantom.client.secure_reply import MASKED_LEFT
from fedphantom.common.flower_programs import LOOPBACK, free_ports
from fedphantom.common.journal import read_journal, verify_journal
from fedphantom.common.site_folder import REPLY_LEFT, SiteFolder, site_material
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.setup import make_coordinator

SITES = ("site-a", "site-b", "site-c")
SECURE = "[federation]\nquorum = 3\nsecure_aggregation = { threshold = 3, clip = 50.0, bits = 20 }\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.network,
    pytest.mark.skipif(
        shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists(), reason="nginx is not installed"
    ),
]


def enrolled_federation(root: Path) -> Path:
    """A coordinator's folder and, beside it, three sites that joined and approved; nothing runs yet."""
    now, (port,) = datetime.now(UTC), free_ports(1)
    (root / "study.toml").write_text(tiny_text(rounds=1, local_steps=2) + SECURE)
    make_coordinator(root / "coordinator", root / "study.toml", f"{LOOPBACK}:{port}", [], 365, None, now)
    study = Study(root)
    for site in SITES:
        write_tiny_cohort(root / f"cohort-{site}", 4, prefix=site.replace("-", ""))
        (root / "invitation").write_bytes(study.invite(site, now=now))
        cohort = root / f"cohort-{site}"
        init_site(root / site, root / "invitation", cohort, None, None, now, lambda name: lambda done, total: None)
        study.enroll((root / site / f"{site}.request.dsse.json").read_bytes(), now=now)
    coordinator = Coordinator.open(root / "coordinator")
    for site in SITES:
        join(root / site, coordinator.folder.roster, coordinator.fingerprint(), now)
        folder = SiteFolder.open(root / site)
        site_material(folder, folder.study())
        approve_as_it_stands(folder)
    return root / "coordinator"


@contextmanager
def typed(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that stays in a terminal; Ctrl-C once the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedphantom", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_three_sites_in_batch_queues_are_summed_once_and_each_ends_by_itself(tmp_path: Path) -> None:
    coordinator = enrolled_federation(tmp_path)
    with typed(tmp_path / "start.log", "server", "start", str(coordinator)):
        deadline = time.monotonic() + 90
        while "sites reach this coordinator" not in (tmp_path / "start.log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "start.log").read_text()
            time.sleep(0.2)
        once = [typed(tmp_path / f"{site}.log", "site", "start", str(tmp_path / site), "--once") for site in SITES]
        with once[0] as first, once[1] as second, once[2] as third:
            run = subprocess.run(
                [sys.executable, "-m", "fedphantom", "server", "run", str(coordinator), "--json"],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert run.returncode == 0, run.stderr
            codes = [process.wait(timeout=60) for process in (first, second, third)]
    assert codes == [0, 0, 0]
    for site in SITES:
        folder = SiteFolder.open(tmp_path / site)
        verify_journal(folder.journal)
        entries = read_journal(folder.journal)
        left = [entry.facts["what"] for entry in entries if entry.event == MASKED_LEFT]
        assert (left[0], left[-1]) == ("keys", "sum")
        assert REPLY_LEFT not in {entry.event for entry in entries}  # its own generator never did
        told = subprocess.run(
            [sys.executable, "-m", "fedphantom", "site", "status", str(folder.root), "--json"],
            capture_output=True,
            check=True,
        )
        assert json.loads(told.stdout)["rounds_answered"] == [1]
        assert "left for the coordinator, masked" in (tmp_path / f"{site}.log").read_text()
