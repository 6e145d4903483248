"""A run under Flower, followed from outside its ServerApp: round after round, until it says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..common.errors import (
    BudgetSpent,
    ConfigError,
    DataError,
    FedPhantomError,
    PeerError,
    PolicyRefused,
    StorageError,
)
from .checkpoints import Checkpoint, latest_checkpoint, newest_round
from .flower_control import UNKNOWN, FlowerControl
from .rounds import Progress
from .run_folder import RunFolder

_POLL_S = 0.25
_STATUS_POLL_S = 10.0

UNHEARD_S = 300.0
"""How long nothing is heard of a run before it counts as lost: twice what a SuperLink may take to come up again."""

# The ServerApp is another process: its error comes as text and is raised again here as what it was.
_KINDS: Mapping[str, type[FedPhantomError]] = {
    k.__name__: k for k in (BudgetSpent, ConfigError, DataError, PeerError, PolicyRefused, StorageError)
}


def follow(
    folder: RunFolder, control: FlowerControl, run: str, progress: Progress, log: Path, check: Callable[[], None]
) -> Checkpoint:
    """Wait for the run's end.

    Args:
        folder: The run's folder; the ServerApp writes checkpoints and its outcome there.
        control: Of the SuperLink that runs it.
        run: Flower's identifier.
        progress: Called after each round, from this process.
        log: Of the SuperLink, which holds the ServerApp's too: named where it ended without a word.
        check: Called again and again; raises where what carries the run has ended.

    Returns:
        The last checkpoint.

    Raises:
        PolicyRefused: a round fell below the quorum, for every site that failed refused; BudgetSpent where each one's
            budget is spent.
        PeerError: another one did, the run was stopped, or the ServerApp ended without a word.
        FedPhantomError: as the ServerApp said.
    """
    done = newest_round(folder.checkpoints)
    heard = time.monotonic()
    next_status = heard + _STATUS_POLL_S
    while (outcome := folder.read_outcome()) is None:
        before, done = done, _report(folder, done, progress)
        if done > before:
            heard = time.monotonic()
        check()
        if time.monotonic() >= next_status:
            # Only a ServerApp that died without a word is found this way, so it is asked rarely.
            status = _status(control, run)
            heard = heard if status == UNKNOWN else time.monotonic()
            if time.monotonic() - heard > UNHEARD_S:
                raise PeerError(
                    f"the SuperLink has said nothing of the run for {UNHEARD_S:.0f} s",
                    expected="a SuperLink that answers, and knows the run",
                    remedy=f"See that it runs ({log}), then run this again to go on from the last round.",
                )
            if status.startswith("finished") and folder.read_outcome() is None:
                stopped = status == "finished:stopped"
                raise PeerError(
                    "the run was stopped" if stopped else "the ServerApp ended without a result",
                    expected="Flower's processes to run until the last round",
                    remedy=("" if stopped else f"Read {log}. ") + "Run it again to go on from the last round.",
                )
            next_status = time.monotonic() + _STATUS_POLL_S
        time.sleep(_POLL_S)
    _report(folder, done, progress)
    if outcome["kind"] != "done":
        kind = _KINDS.get(outcome["kind"], PeerError)
        raise kind(outcome["found"], expected=outcome["expected"], remedy=outcome["remedy"])
    checkpoint = latest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise DataError("no checkpoint after the run", expected="one a round", remedy="Run it again.")
    return checkpoint


def _status(control: FlowerControl, run: str) -> str:
    """Flower's word for the run; one that cannot be had just now, the SuperLink being started again, is unknown."""
    try:
        return control.status(run)
    except PeerError:
        return UNKNOWN


def _report(folder: RunFolder, done: int, progress: Progress) -> int:
    """Tell of the rounds finished since; returns the newest."""
    if newest_round(folder.checkpoints) <= done:
        return done
    checkpoint = latest_checkpoint(folder.checkpoints)
    for record in checkpoint.history if checkpoint else ():
        if record.round > done:
            progress(record)
            done = record.round
    return done
