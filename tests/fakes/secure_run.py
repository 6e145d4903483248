"""A study of linear sites with secure aggregation, and a coordinator's way to them that tests can bend."""

from __future__ import annotations

from pathlib import Path

from linear_site import LinearTrainer, cohorts_of, linear_generator, study_text

from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.masking.messages import Wanted
from fedphantom.common.masking.peers import read_peers
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server.aggregation import SiteFailure
from fedphantom.server.checkpoints import Checkpoint
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder
from fedphantom.server.secure_exchange import Answer, run_secure_rounds
from fedphantom.server.secure_simulation import InProcessSites, introduce

CLIP, BITS = 20.0, 24
STEP = CLIP / 2**BITS


def secure_text(threshold: int = 3, rounds: int = 3, federation: str = "", **options: float) -> str:
    terms = f"secure_aggregation = {{ threshold = {threshold}, clip = {CLIP}, bits = {BITS} }}"
    return study_text(rounds=rounds, federation=f"{terms}\n{federation}", **options)  # type: ignore[arg-type]


def cohorts_in(root: Path, sites: str = "abcd") -> dict[str, Path]:
    return cohorts_of(root, [f"site-{letter}" for letter in sites])


def open_linear(root: Path) -> Site:
    return Site(SiteFolder.open(root), LinearTrainer.open)


def prepared_run(out: Path, cohorts: dict[str, Path], text: str) -> RunFolder:
    """A claimed run folder, its sites' folders, and their keys made known to each other."""
    folder = RunFolder(out)
    study = folder.claim(text, tuple(cohorts))
    for name, cohort in cohorts.items():
        create_site_folder(folder.site(name), name, cohort, text, ParameterSpec.of(linear_generator(study)))
    if not folder.peers.exists():
        introduce(folder, tuple(cohorts))
    return folder


class BentSites(InProcessSites):
    """Sites in this process, with a coordinator or a network between that does what a test overrides."""

    def __init__(self, rounds: Rounds) -> None:
        super().__init__(rounds, open_linear)
        self.heard: list[Answer] = []

    def asked(self, site: str, wanted: Wanted) -> Wanted:
        return wanted

    def answered(self, site: str, wanted: Wanted, answer: Answer) -> Answer | None:
        """The answer as it arrives; None where it is lost."""
        return answer

    def _ask(self, site: str, wanted: Wanted) -> Answer:
        wanted = self.asked(site, wanted)
        answer = super()._ask(site, wanted)
        self.heard.append(answer)
        return self.answered(site, wanted, answer) or SiteFailure(site, "no reply")


def run_bent(
    out: Path, cohorts: dict[str, Path], text: str, sites: type[BentSites] = BentSites
) -> tuple[Checkpoint, BentSites]:
    """Begin a run, or go on with it."""
    folder = prepared_run(out, cohorts, text)
    study = folder.claimed()[0]
    rounds = Rounds.open(study, folder, tuple(cohorts), linear_generator(study))
    exchange = sites(rounds)
    return run_secure_rounds(rounds, exchange, read_peers(folder.peers), lambda _: None), exchange
