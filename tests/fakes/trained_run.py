"""A federation whose sites train as a hospital's do, in this process unless it is asked for otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server.simulation import SimulationResult, simulate


def trained_run(text: str, cohorts: Mapping[str, Path], out: Path, **options: Any) -> SimulationResult:
    """``options`` are :func:`simulate`'s, in the place of those of every such run."""
    usual: dict[str, Any] = {
        "engine": "local",
        "prepare_site": create_site_folder,
        "open_site": lambda root: Site(SiteFolder.open(root), LocalTrainer.open),
        "initial": initial_parameters,
        "progress": lambda record: None,
    }
    return simulate(text, cohorts, out, **{**usual, **options})
