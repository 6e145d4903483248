"""The coordinator's Flower ServerApp: the run folder named by its process's environment, resumed until done."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from ..common.errors import ConfigError, FedPhantomError
from ..common.gan.parameters import ParameterSpec
from ..common.masking.peers import read_peers
from .bounded_pull import PullBounds
from .coordinator.nodes import NODES_VARIABLE, NodeTable
from .node_names import sites_of_nodes
from .polling_grid import PollingGrid
from .rounds import Rounds
from .run_folder import RUN_VARIABLE, RunFolder
from .secure_exchange import run_secure_rounds
from .secure_flower import FlowerSites
from .strategy import GeneratorAveraging

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are left, one checkpoint each.

    Raises:
        FedPhantomError: as :class:`Rounds` and :class:`GeneratorAveraging`; also written to the outcome file.
    """
    folder = RunFolder(_run_dir())
    try:
        run_study(grid, folder)
    except FedPhantomError as error:
        parts = {"found": error.found, "expected": error.expected, "remedy": error.remedy}
        folder.write_outcome({"kind": type(error).__name__, **parts})
        raise
    folder.write_outcome({"kind": "done"})


def run_study(grid: Grid, folder: RunFolder) -> Rounds:
    """Run the rounds that are left in a claimed folder, over any Grid.

    Raises:
        PeerError: a round fell below the quorum.
        ConfigError: no run folder, or nothing in it to start from.
    """
    study, sites = folder.claimed()
    rounds = Rounds.open(study, folder, sites)
    bounds = PullBounds(ParameterSpec.of(rounds.checkpoint.aggregate).bytes)
    bounds.install()
    let_in = _let_in(rounds.sites)
    if not rounds.finished and study.federation.secure_aggregation:
        polling = PollingGrid(grid, bounds=bounds)  # each phase of a sum has a timeout of its own
        run_secure_rounds(rounds, FlowerSites(polling, rounds, let_in), read_peers(folder.peers), lambda record: None)
    elif not rounds.finished:
        polling = PollingGrid(grid, bounds=bounds, timeout_s=lambda: rounds.deadline_s)
        strategy = GeneratorAveraging(rounds, polling.node_of, sites_of_nodes=_enrolled(polling), let_in=let_in)
        strategy.start(polling, ArrayRecord(), num_rounds=rounds.remaining, timeout=rounds.deadline_s)
    return rounds


def _enrolled(grid: Grid) -> Callable[[], Mapping[int, str]] | None:
    """Whose each connected node is, by its registered key; None in a simulation, where no keys are."""
    table = _node_table()
    return (lambda: sites_of_nodes(grid, table.sites_by_key())) if table else None


def _let_in(sites: Collection[str]) -> Callable[[], int] | None:
    """How many of these sites' keys the SuperLink knows, asked anew each time: one that left is not waited for."""
    table = _node_table()
    return (lambda: len(set(table.sites_by_key().values()) & set(sites))) if table else None


def _node_table() -> NodeTable | None:
    path = os.environ.get(NODES_VARIABLE)
    return NodeTable(Path(path)) if path else None


def _run_dir() -> Path:
    value = os.environ.get(RUN_VARIABLE)
    if not value:
        raise ConfigError(
            f"no {RUN_VARIABLE} in the environment of the ServerApp",
            expected="the coordinator's run folder",
            remedy="Start the run with 'fedphantom server run' or 'fedphantom simulate'.",
        )
    return Path(value)
