"""``flower_rounds.py MEGABYTES ROUNDS [SITES [secure]]``: rounds of sites that do not train, over Flower processes.

Prints seconds a round, and the HTTP bytes between sites and SuperLink over those of the parameters. The first round is
left out of the seconds: in it the nodes start.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from counting_relay import HOST, CountingRelay
from still_site import StillTrainer, failing
from still_study import SECURE, still_generator, still_study

from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server import flower_engine
from fedphantom.server.simulation import simulate


@dataclass(frozen=True)
class FlowerRounds:
    """What a run's rounds took.

    Attributes:
        by_round: Seconds of each round.
        wire_over_parameters: Bytes on the wire over bytes of parameters.
    """

    by_round: tuple[float, ...]
    wire_over_parameters: float

    @property
    def seconds(self) -> float:
        """Median of all rounds but the first."""
        return median(self.by_round[1:])


def flower_rounds(
    megabytes: float, rounds: int, sites: int = 2, federation: str = "", fails_in: Sequence[int] = ()
) -> FlowerRounds:
    """Do the rounds.

    Args:
        megabytes: Size of the generator.
        rounds: How many.
        sites: How many.
        federation: What else the study's ``[federation]`` says.
        fails_in: Rounds in which the last site fails, and is left out.
    """
    generator = still_generator(megabytes)
    relays: dict[str, CountingRelay] = {}
    spawn = flower_engine._Federation._spawn

    def through_relays(federation: Any, name: str, *command: str) -> None:
        given = list(command)
        if "--superlink" in given:
            at = given.index("--superlink") + 1
            relays[name] = stack.enter_context(CountingRelay.to(int(given[at].rpartition(":")[2])))
            given[at] = f"{HOST}:{relays[name].port}"
        spawn(federation, name, *given)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(patch.object(flower_engine._Federation, "_spawn", through_relays))
        stack.enter_context(patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}))
        cohorts = {f"site-{n}": folder / f"cohort-{n}" for n in range(sites)}
        for cohort in cohorts.values():
            cohort.mkdir()
        for round_ in fails_in:
            (cohort / failing(round_)).touch()
        result = simulate(
            still_study(rounds, sites - 1 if fails_in else sites, federation),
            cohorts,
            folder / "run",
            engine="flower",
            prepare_site=create_site_folder,
            open_site=lambda root: Site(SiteFolder.open(root), StillTrainer.open),
            initial=lambda _: generator,
            progress=lambda _: None,
            client_app="still_site:app",
        )
    parameters = sum(array.nbytes for array in generator.values())
    passed = sum(relay.passed for relay in relays.values())
    return FlowerRounds(tuple(r.seconds for r in result.rounds), passed / (2 * parameters * sites * rounds))


if __name__ == "__main__":
    size, number, *more = sys.argv[1:]
    secure = SECURE if more[1:] == ["secure"] else ""
    found = flower_rounds(float(size), int(number), int(more[0]) if more else 2, secure)
    of_each = {f"round {n}": seconds for n, seconds in enumerate(found.by_round, start=1)}
    print(json.dumps({"seconds": found.seconds, "wire_over_parameters": found.wire_over_parameters, **of_each}))
