"""A site whose training is three lines of arithmetic: deterministic, resumable, and able to fail on order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fedphantom.client.own_generator import settle_generator
from fedphantom.common.atomic import write_atomic
from fedphantom.common.errors import DataError, PolicyRefused
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import Study

UNSAYABLE = "/data/sub-0042_MUELLER/anat"  # what an unlucky exception might hold


class LinearTrainer:
    """Moves the generator towards a value of the site's own, by a state that lives on the site's disk.

    ``behaviour.json`` in the cohort may order ``fail``, ``refuse`` and ``crash`` (rounds), ``sleep`` (seconds) and
    ``hold`` (as long as the file is there).
    """

    def __init__(self, folder: SiteFolder) -> None:
        self.folder = folder
        self._file = folder.cohort / "behaviour.json"
        self.behaviour = json.loads(self._file.read_text()) if self._file.exists() else {}

    @classmethod
    def open(cls, site_dir: Path) -> LinearTrainer:
        return cls(SiteFolder.open(site_dir))

    def train_round(self, request: RoundRequest) -> RoundReply:
        time.sleep(self.behaviour.get("sleep", 0))
        while self.behaviour.get("hold") and self._file.exists():
            time.sleep(0.05)
        if request.round in self.behaviour.get("fail", []):
            raise DataError(f"the scan at {UNSAYABLE} is cut short", expected="a whole file", remedy="Copy it again.")
        if request.round in self.behaviour.get("refuse", []):
            raise PolicyRefused("patients who changed", expected="those of then", remedy="Put them back.")
        if request.round in self.behaviour.get("crash", []):
            raise RuntimeError(f"cannot read {UNSAYABLE}")
        before = self.folder.state / f"after-{request.round - 1}.json"
        state = json.loads(before.read_text()) if before.exists() else 0.1
        state = 0.7 * state + sum(self.folder.name.encode()) / 1000
        write_atomic(self.folder.state / f"after-{request.round}.json", json.dumps(state).encode())
        study = self.folder.study()
        start = request.generator or linear_generator(study)
        generator = {n: (0.5 * v + np.float32(state)).astype(np.float32) for n, v in start.items()}
        leaving = settle_generator(self.folder, study, request.round, generator)
        weight = study.federation.weight_of(self.folder.name)
        return RoundReply(self.folder.name, request.round, leaving, weight, {"fake_mean": state})


def linear_generator(study: Study) -> Parameters:
    random = np.random.default_rng(study.seed)
    return {
        "up.weight": random.normal(size=(3, 4)).astype(np.float32),
        "down.weight": random.normal(size=(2, 3, 5)).astype(np.float32),
        "head.bias": np.zeros(1, dtype=np.float32),
    }


def study_text(rounds: int = 3, quorum: int = 2, deadline_s: float = 600.0, seed: int = 7, federation: str = "") -> str:
    return f"""
name = "linear"
seed = {seed}
channels = ["T1"]
labels = {{ background = 0, tumour = 1 }}
[grid]
shape = [16, 8, 8]
spacing_mm = [1.0, 1.0, 1.0]
[public_labels]
source = "atlas"
[training]
rounds = {rounds}
[federation]
quorum = {quorum}
deadline_s = {deadline_s}
ema_decay = 0.5
{federation}
"""


def cohorts_of(root: Path, sites: Iterable[str]) -> dict[str, Path]:
    """An empty folder for each site: linear ones have no patients."""
    cohorts = {site: root / "cohorts" / site for site in sites}
    for path in cohorts.values():
        path.mkdir(parents=True, exist_ok=True)
    return cohorts


def order(cohort: Path, **behaviour: object) -> None:
    """Have the site of this cohort behave otherwise."""
    (cohort / "behaviour.json").write_text(json.dumps(behaviour))
