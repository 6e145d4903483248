"""A whole federation on this machine: every site's folder, every round, the generator.

What a client does comes in as arguments; the coordinator's side imports nothing of the hospital's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from ..common.by_product import failures
from ..common.cohort import Cohort
from ..common.device import choose_device
from ..common.errors import BudgetSpent, DataError, StorageError, about
from ..common.exchange import Parameters, RoundRequest, SiteTrainer
from ..common.flower_bundle import CLIENT_APP
from ..common.gan.parameters import ParameterSpec
from ..common.journal import read_journal
from ..common.masking.peers import read_peers
from ..common.parallel import side_by_side
from ..common.previews import FOLDER as PREVIEWS
from ..common.previews import schedule_previews
from ..common.sayable import sayable_reason
from ..common.site_folder import SiteFolder
from ..common.study import Study
from ..privacy.dp.ledger import REFUSED
from .aggregation import SiteFailure
from .budget_check import SeeBudget, check_budgets
from .checkpoints import Checkpoint, RoundRecord
from .rounds import Exchange, Outcome, Progress, Rounds, run_rounds
from .run_folder import RunFolder
from .run_pictures import prepare_previews
from .secure_exchange import run_secure_rounds
from .secure_simulation import InProcessSites, introduce
from .site_cohorts import OwnCohort, own_cohorts

Engine = Literal["local", "flower"]


class CheckSite(Protocol):
    """Looks through a site's cohort before anything is made or trained."""

    def __call__(self, folder: Path, name: str, cohort: Cohort, study: Study, /) -> str:
        """Return what is left out, in words, or nothing; raise DataError where nobody could be trained on."""
        ...


class PrepareSite(Protocol):
    """Makes a site's folder, or finds it as an earlier call left it."""

    def __call__(self, folder: Path, name: str, cohort: Path, study_text: str, generator: ParameterSpec, /) -> object:
        """Raise ConfigError where the folder belongs to another site, cohort or study."""
        ...


OpenSite = Callable[[Path], SiteTrainer]
"""Opens a prepared site folder."""

Begin = Callable[[int, int], None]
"""Called before the first round that is asked: (rounds done by an earlier call, rounds in all)."""

MakeInitial = Callable[[Study], Parameters]
"""The study's initial generator; the same study gives the same parameters."""


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation left.

    Attributes:
        folder: The run's folder.
        generator: Path of the weights file; of an ensemble, of the folder of them; None where no weights left a site.
        rounds: One record a round.
        not_drawn: Curves and previews that could not be written, over coordinator and sites; their journals say which.
    """

    folder: RunFolder
    generator: Path | None
    rounds: tuple[RoundRecord, ...]
    not_drawn: int


def simulate(
    study_text: str,
    sites: Mapping[str, Path],
    out: Path,
    *,
    engine: Engine,
    prepare_site: PrepareSite,
    open_site: OpenSite,
    initial: MakeInitial,
    progress: Progress,
    check_site: CheckSite | None = None,
    see_budget: SeeBudget | None = None,
    begin: Begin = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    client_app: str = CLIENT_APP,
    preview_every: int | None = None,
    public: Path | None = None,
) -> SimulationResult:
    """Train the study's generator over these sites; called again on the same folder, it goes on.

    Every cohort is looked through before the first round, and before the folder is made.

    Args:
        study_text: The study, TOML.
        sites: Site name to cohort; of one that names sites, a site takes its own patients.
        out: The run's folder.
        engine: ``local`` runs every site in this process, one after the other; ``flower`` starts a
            SuperLink and one SuperNode a site on loopback.
        prepare_site: Makes a site's folder under ``out/sites``.
        open_site: Opens it (engine ``local``; under ``flower`` the ClientApp does).
        initial: Makes the initial generator.
        progress: Called after each round.
        check_site: Looks through a site's cohort; None where the caller did.
        see_budget: Looks at a site's ledger before its first round here; None where nothing is promised.
        begin: Called once, before the first round that is asked.
        say: Told what a cohort check left out, which site's budget does not last to the study's end, and where previews
            were asked for that there cannot be.
        client_app: Reference to what answers at a site (engine ``flower``).
        preview_every: Rounds from one preview to the next, of public label maps for the coordinator and of its own
            scans for each site (of these alone, where the network maps images to labels); None for no previews.
        public: The public cohort that previews take label maps from, where the study's source is a folder.

    Raises:
        ConfigError: the study is not valid, or ``out`` belongs to another study, other sites or cohorts,
            or another process runs in it, or a cohort of several sites does not name the one that is
            to train on it.
        DataError: two sites hold the same scan, or a site has nobody to train on; names the sites and why.
        PolicyRefused: a site's cohort changed since its roles were drawn, or a round fell below the quorum and every
            site that failed in it refused by its policy.
        BudgetSpent: budgets do not last to the study's end at as many sites as a round needs; in a round, they are
            spent at too many.
        VerificationFailed: a site's ledger cannot be trusted.
        PeerError: a round fell below the quorum; names the sites. Run it again to go on.
        OutputTaken: ``out`` is a file, or holds something else.
        StorageError: the disk is full, read-only or forbidden.
    """
    folder = RunFolder(out.resolve())
    folder.check_free()
    study = folder.check_claim(study_text, tuple(sites))
    own = own_cohorts(sites)
    begun, generator = folder.begun, initial(study)
    if check_site and not begun:  # a refused command makes no folder
        _check_sites(check_site, folder, own, study, say)
    if see_budget and not begun:
        check_budgets(see_budget, folder, own, study, 0, say)
    with folder.lock():
        study = folder.claim(study_text, tuple(sites))
        spec = ParameterSpec.of(generator)
        for name in sorted(sites):
            with about(f"site '{name}'"):
                cohort = own[name].placed(folder.site_table(name))
            prepare_site(folder.site(name), name, cohort, study_text, spec)
            schedule_previews(folder.site(name) / PREVIEWS, preview_every)
        if study.federation.secure_aggregation:
            introduce(folder, tuple(sites))
        prepare_previews(folder, study, preview_every, public, say)
        rounds = Rounds.open(study, folder, tuple(sites), generator)
        checkpoint = rounds.checkpoint
        if check_site and begun and not rounds.finished:  # only now: it is the run that these arguments began
            _check_sites(check_site, folder, own, study, say)
        if see_budget and begun and not rounds.finished:
            check_budgets(see_budget, folder, own, study, checkpoint.round, say)
        begin(checkpoint.round, study.training.rounds)
        if not rounds.finished:
            try:
                if engine == "flower":
                    # Here, so that a local run needs no Flower in memory.
                    from .flower_engine import run_flower

                    checkpoint = run_flower(rounds, progress, client_app)
                else:
                    checkpoint = _run_local(rounds, open_site, progress)
            except BudgetSpent as error:
                raise _with_what_is_left(error, folder, sites) from error
        folder.write_results(study, tuple(sites), checkpoint, engine)
    not_drawn = failures([folder.journal, *(SiteFolder.open(folder.site(name)).journal for name in sites)])
    return SimulationResult(folder, folder.result(study), checkpoint.history, not_drawn)


def going_on(done: int, total: int) -> str:
    """What a run that was begun before says first; empty for a new one.

    >>> going_on(3, 8)
    'going on after round 3 of 8'
    """
    if done >= total:
        return f"round {total} of {total} was done before: nothing is trained again"
    return f"going on after round {done} of {total}" if done else ""


def _check_sites(
    check_site: CheckSite, folder: RunFolder, own: Mapping[str, OwnCohort], study: Study, say: Callable[[str], None]
) -> None:
    """Look through every cohort, also after one was found unusable: all is to be mended at once."""
    refused: list[DataError] = []
    for name in sorted(own):
        try:
            with about(f"site '{name}'"):
                left_out = check_site(folder.site(name), name, own[name].read(), study)
        except DataError as error:
            refused.append(error)
            continue
        if left_out:
            say(f"site '{name}': {left_out}")
    if refused:
        raise DataError(
            "; ".join(error.found for error in refused),
            expected="; ".join(dict.fromkeys(error.expected for error in refused)),
            remedy=" ".join(dict.fromkeys(error.remedy for error in refused)),
        )


def _with_what_is_left(error: BudgetSpent, folder: RunFolder, sites: Collection[str]) -> BudgetSpent:
    """The same, with what each site's own journal says: on one machine that is no secret, to a coordinator it is."""
    told = []
    for name in sorted(sites):
        refused = [e.facts for e in read_journal(SiteFolder.open(folder.site(name)).journal) if e.event == REFUSED]
        if refused:
            asked = refused[-1]
            told.append(f"site '{name}': {asked['left']} of the {asked['steps']} noised steps asked for at a time")
    if not told:
        return error
    found = f"{error.found}. What is left: {', '.join(told)}"
    return BudgetSpent(found, expected=error.expected, remedy=error.remedy)


def _run_local(rounds: Rounds, open_site: OpenSite, progress: Progress) -> Checkpoint:
    if rounds.study.federation.secure_aggregation:
        return run_secure_rounds(rounds, InProcessSites(rounds, open_site), read_peers(rounds.folder.peers), progress)
    return run_rounds(rounds, in_process_exchange(rounds, open_site), progress)


def in_process_exchange(rounds: Rounds, open_site: OpenSite) -> Exchange:
    """Ask the sites side by side, each opened once and kept; each trains on one thread.

    The deadline is each site's own: on one machine they wait for each other, which no hospital does.
    """
    opened: dict[str, SiteTrainer] = {}
    workers = 1 if choose_device().cuda else None

    def ask(name: str, request: RoundRequest) -> Outcome:
        started = time.monotonic()
        try:
            if name not in opened:
                opened[name] = open_site(rounds.folder.site(name))
            reply = opened[name].train_round(request)
        except StorageError:  # one disk holds all sites here: no round goes on without it
            with about(f"site '{name}'"):
                raise
        except Exception as error:
            opened.pop(name, None)
            return SiteFailure(name, sayable_reason(error))
        late = time.monotonic() - started > rounds.study.federation.deadline_s
        return SiteFailure(name, "no reply before the deadline") if late else reply

    def exchange(request: RoundRequest) -> Iterator[Outcome]:
        for _, outcome in side_by_side([partial(ask, name, request) for name in rounds.sites], workers):
            yield outcome

    return exchange
