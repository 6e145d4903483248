"""``server run`` and ``server resume``: the rounds of a deployed study, followed until the last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.enrolment.roster import EnrolledSite
from ...common.errors import ConfigError, PeerError
from ...common.flower_bundle import BUNDLE_FILE, bundle_text
from ...common.masking.peers import Peers, write_peers
from ...common.progress import Report
from ...common.study import Study, read_study_text
from ..following import follow
from ..gathering import GATHERING_S
from ..rounds import Rounds
from ..run_folder import RunFolder
from ..simulation import MakeInitial
from .folder import CoordinatorFolder
from .naming import name_generator
from .registry import Registry
from .serving import control_of, nodes_of, refuse_not_served, superlink_of

_RUN = "flower-run"
"""File with Flower's identifier of the run that was started last."""


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        folder: The run's folder.
        generator: Path of the result; None where no weights left a site.
        rounds: Rounds done.
        given_up: Which of them gave no average: why, by number.
    """

    folder: RunFolder
    generator: Path | None
    rounds: int
    given_up: Mapping[int, str] = field(default_factory=dict)

    def text(self) -> str:
        """For a terminal."""
        done = f"{counted(self.rounds, 'round')} done; generator: {self.generator or 'none left a site'}"
        return "\n".join([*given_up_text(self.given_up), done])


def given_up_text(why: Mapping[int, str]) -> list[str]:
    """One line a round that was given up.

    Args:
        why: By the round's number.
    """
    return [f"round {number} was given up, and no site's training of it counts: {one}" for number, one in why.items()]


def run_study(
    folder: CoordinatorFolder,
    initial: MakeInitial,
    progress: Report,
    say: Callable[[str], None],
    *,
    resumed: bool = False,
) -> RunResult:
    """Do every round that is left.

    Args:
        folder: The coordinator's folder; ``server start`` runs for it.
        initial: Makes the initial generator.
        progress: (rounds done, rounds in all).
        say: Told what is waited for.
        resumed: Whether there must be a run to go on with.

    Raises:
        ConfigError: nobody serves, fewer sites are enrolled than the quorum, the study was changed since the run
            began, or there is nothing to resume.
        PeerError: a round fell below the quorum, run it again to go on; or fewer sites than that have not left.
        StorageError: the disk is full, read-only or forbidden.
    """
    refuse_not_served(folder)
    run = RunFolder(folder.run)
    if resumed and not run.begun:
        raise ConfigError(
            "no run to resume", expected="one that was begun", remedy="Begin it with 'fedphantom server run'."
        )
    with run.lock():
        study, sites, present = claim(folder, run)
        generator = initial(study)
        rounds = Rounds.open(study, run, sites, generator)
        total = study.training.rounds
        progress(rounds.checkpoint.round, total)
        checkpoint = rounds.checkpoint
        if not rounds.finished:
            control = control_of(folder)
            _end_earlier(folder)
            identifier = control.submit(_bundle(folder, study))
            write_atomic(folder.superlink / _RUN, identifier.encode())
            say(f"asking {', '.join(present)}")
            for site in set(_expired(folder)) & set(sites):
                say(f"not asked: {site}, whose enrolment expired: revoke it, then invite it again")
            if absent := _not_connected(folder, present):
                say(
                    f"not connected: {', '.join(absent)}. A round begins without them once {GATHERING_S:.0f} s have"
                    f" passed and {counted(study.federation.quorum, 'site')} are there; it waits"
                    f" {rounds.deadline_s / 60:.0f} min for so many"
                )
            checkpoint = follow(
                run,
                control,
                identifier,
                lambda record: progress(record.round, total),
                folder.superlink / "superlink.log",
                lambda: None,
            )
        run.write_results(study, sites, checkpoint, "flower")
        name_generator(folder, study, checkpoint)
    given_up = {record.round: record.given_up for record in checkpoint.history if record.given_up}
    return RunResult(run, run.result(study), checkpoint.round, given_up)


def _not_connected(folder: CoordinatorFolder, sites: Sequence[str]) -> list[str]:
    """Of these sites, those whose node is not there now."""
    known = control_of(folder).nodes()
    there = {each.site for each in nodes_of(folder).read() if known.get(each.node) == "online"}
    return [site for site in sites if site not in there]


def goes_on(folder: CoordinatorFolder) -> bool:
    """Whether a run is under way, followed by a command or not."""
    try:
        return _under_way(folder) is not None
    except PeerError:
        return False


def stop_run(folder: CoordinatorFolder) -> bool:
    """End the run that goes on; whether there was one. Its checkpoints stand."""
    # Where nobody serves no run goes on: it ended with 'server start'.
    return superlink_of(folder).answers() and _end_earlier(folder)


def claim(folder: CoordinatorFolder, run: RunFolder) -> tuple[Study, tuple[str, ...], tuple[str, ...]]:
    """Study and sites: those of the run that was begun, or of who is enrolled now; and which of them did not leave.

    Raises:
        ConfigError: as :func:`run_study`.
        PeerError: fewer than a round needs have not left, or the SuperLink does not know the node of one that has not.
    """
    text = read_study_text(folder.study)
    sites = run.claimed()[1] if run.begun else _enrolled(folder)
    run.root.mkdir(parents=True, exist_ok=True)
    study = run.claim(text, sites)
    if study.federation.secure_aggregation:
        # Anew each time: sites hold each other's keys against the newest roster that they approved.
        write_peers(run.peers, Peers({site.name: site.identity() for site in _active(folder)}))
    left = {**_expired(folder), **Registry(folder).read().left()}
    present = tuple(site for site in sites if site not in left)
    if len(present) < study.federation.fewest_sites and set(sites) & left.keys():
        raise PeerError(
            f"{counted(len(present), 'site')} left of {len(sites)}"
            f" ({'; '.join(f'{site}: {left[site]}' for site in sites if site in left)})",
            expected=f"at least {study.federation.fewest_sites}, without which no round counts",
            remedy="The study ends here, unless a site that left or expired is invited again.",
        )
    known = set(nodes_of(folder).sites_by_key().values())
    if missing := sorted(set(present) - known):
        raise PeerError(
            f"the SuperLink does not know the node of {', '.join(missing)}",
            expected="every site of the run enrolled, and let in by 'fedphantom server start'",
            remedy="Wait until it says so, or look into its log.",
        )
    return study, sites, present


def _expired(folder: CoordinatorFolder) -> dict[str, str]:
    """Sites whose enrolment is over: their keys are not let in, and nobody waits for them."""
    now = datetime.now(UTC)
    return {site.name: "its enrolment expired" for site in Registry(folder).read().sites if not site.active(now)}


def _enrolled(folder: CoordinatorFolder) -> tuple[str, ...]:
    return tuple(site.name for site in _active(folder))


def _active(folder: CoordinatorFolder) -> tuple[EnrolledSite, ...]:
    return Registry(folder).read().active(datetime.now(UTC))


def _under_way(folder: CoordinatorFolder) -> str | None:
    """Flower's identifier of the run that was started last, unless it has ended."""
    try:
        identifier = (folder.superlink / _RUN).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    return None if control_of(folder).status(identifier).startswith(("finished", "unknown")) else identifier


def _end_earlier(folder: CoordinatorFolder) -> bool:
    """End the run that was started last, so that no two write into one folder; forget how it ended."""
    identifier = _under_way(folder)
    if identifier is not None:
        with contextlib.suppress(PeerError):  # it may have ended by itself meanwhile
            control_of(folder).stop(identifier)
    RunFolder(folder.run).forget_outcome()
    return identifier is not None


def _bundle(folder: CoordinatorFolder, study: Study) -> Path:
    app = superlink_of(folder).folder / "app"
    write_atomic(app / BUNDLE_FILE, bundle_text(study.digest()).encode())
    return app
