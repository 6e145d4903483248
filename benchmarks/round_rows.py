"""What a round costs beside local training: checks, state on disk, messages, average, checkpoint."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from material import Material
from measure import Row

from fedphantom.client import local_training
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.training import train
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import FederationTable
from fedphantom.common.study_template import to_toml
from fedphantom.server.simulation import simulate

SITE = "site-a"


def round_rows(material: Material) -> list[Row]:
    """``round_overhead_share``: seconds of a round beside its training steps, over those steps.

    One site: two would train side by side, and a round's wall time less the sum of their steps says nothing.
    The first round is left out: in it the site checks and prepares its cohort, which happens once.
    """
    study = material.study.model_copy(update={"federation": FederationTable(quorum=1)})
    training: list[float] = []

    def timed_train(*arguments: Any, **options: Any) -> Iterator[Any]:
        steps, seconds = train(*arguments, **options), 0.0
        while True:
            started = time.perf_counter()
            try:
                losses = next(steps)
            except StopIteration:
                training.append(seconds + time.perf_counter() - started)
                return
            seconds += time.perf_counter() - started
            yield losses

    with tempfile.TemporaryDirectory() as folder, patch.object(local_training, "train", timed_train):
        result = simulate(
            to_toml(study),
            {SITE: material.cohort},
            Path(folder) / "run",
            engine="local",
            prepare_site=create_site_folder,
            open_site=lambda root: Site(SiteFolder.open(root), LocalTrainer.open),
            initial=initial_parameters,
            progress=lambda record: None,
        )
    rounds = sum(record.seconds for record in result.rounds[1:])
    steps = sum(training[1:])
    count = len(result.rounds) - 1
    return [
        Row("round", rounds / count, "s", steps / count),
        Row("round_overhead_share", (rounds - steps) / steps, "ratio", None, 0.05),
    ]
