"""``python linear_run.py OUT COHORTS ENGINE SITE...``: a simulation over linear sites, for tests that kill it.

The study is ``study.toml`` in COHORTS, or the linear sites' own where there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from linear_site import LinearTrainer, linear_generator, study_text

from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server.checkpoints import RoundRecord
from fedphantom.server.simulation import CheckSite, SimulationResult, simulate


def linear_simulation(
    out: Path,
    cohorts: dict[str, Path],
    engine: Literal["local", "flower"] = "local",
    text: str | None = None,
    progress: Callable[[RoundRecord], None] = lambda _: None,
    check_site: CheckSite | None = None,
    begin: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> SimulationResult:
    return simulate(
        text or study_text(),
        cohorts,
        out,
        engine=engine,
        prepare_site=create_site_folder,
        open_site=lambda folder: Site(SiteFolder.open(folder), LinearTrainer.open),
        initial=linear_generator,
        progress=progress,
        check_site=check_site,
        begin=begin,
        say=say,
        client_app="linear_app:app",
    )


def contents(run: Path) -> list[bytes]:
    """Of one generator, of an ensemble's, and of each site's own."""
    places = ("generator.safetensors", "generators/*", "sites/*/generator.safetensors")
    return [path.read_bytes() for place in places for path in sorted(run.glob(place))]


if __name__ == "__main__":
    out, cohorts, engine, *sites = sys.argv[1:]
    study = Path(cohorts) / "study.toml"
    linear_simulation(
        Path(out),
        {site: Path(cohorts) / site for site in sites},
        "flower" if engine == "flower" else "local",
        study.read_text() if study.exists() else None,
        progress=lambda record: print("round", record.round, flush=True),
    )
