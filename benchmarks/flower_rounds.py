"""``flower_rounds.py MEGABYTES ROUNDS [SITES]``: rounds of sites that do not train, over real Flower processes.

Prints seconds a round, and the HTTP bytes between sites and SuperLink over those of the parameters. The first round is
left out of the seconds: in it the nodes start.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from counting_relay import HOST, CountingRelay
from still_site import StillTrainer
from still_study import still_generator, still_study

from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server import flower_engine
from fedphantom.server.simulation import simulate

BUNDLE = Path(__file__).with_name("still_bundle")


def flower_rounds(megabytes: float, rounds: int, sites: int = 2) -> dict[str, float]:
    """Seconds a round (median of all but the first), and bytes on the wire over bytes of parameters."""
    generator = still_generator(megabytes)
    relays: dict[str, CountingRelay] = {}
    spawn = flower_engine._Federation._spawn

    def through_relays(federation: Any, name: str, program: str, *arguments: str) -> None:
        given = list(arguments)
        if "--superlink" in given:
            at = given.index("--superlink") + 1
            relays[name] = stack.enter_context(CountingRelay.to(int(given[at].rpartition(":")[2])))
            given[at] = f"{HOST}:{relays[name].port}"
        spawn(federation, name, program, *given)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(patch.object(flower_engine._Federation, "_spawn", through_relays))
        stack.enter_context(patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}))
        cohorts = {f"site-{n}": folder / f"cohort-{n}" for n in range(sites)}
        for cohort in cohorts.values():
            cohort.mkdir()
        result = simulate(
            still_study(rounds, sites),
            cohorts,
            folder / "run",
            engine="flower",
            prepare_site=create_site_folder,
            open_site=lambda root: Site(SiteFolder.open(root), StillTrainer.open),
            initial=lambda _: generator,
            progress=lambda _: None,
            bundle=BUNDLE,
        )
    parameters = sum(array.nbytes for array in generator.values())
    return {
        "seconds": median(record.seconds for record in result.rounds[1:]),
        "wire_over_parameters": sum(relay.passed for relay in relays.values()) / (2 * parameters * sites * rounds),
    }


if __name__ == "__main__":
    print(json.dumps(flower_rounds(float(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))))
