"""The coordinator's commands, ready for ``cli.py`` to mount; nothing heavy is imported here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from .rounds import Progress
    from .simulation import Engine, MakeInitial, OpenSite, PrepareSite


def run_simulation(
    study: Path,
    site: Sequence[str],
    out: Path,
    engine: Engine,
    *,
    prepare_site: PrepareSite,
    open_site: OpenSite,
    initial: MakeInitial,
    progress: Progress,
) -> dict[str, object]:
    """``fedphantom simulate STUDY.toml --site NAME=COHORT ... --out DIR [--engine local|flower]``.

    Args:
        study: The study file.
        site: ``NAME=COHORT``, one for each site.
        out: The run's folder.
        engine: ``local`` or ``flower``.
        prepare_site: As :func:`fedphantom.server.simulation.simulate`.
        open_site: As there.
        initial: As there.
        progress: As there.

    Returns:
        What ``--json`` prints: the run's ``summary.json``, with the generator's path.

    Raises:
        ConfigError: no readable study, or a ``--site`` that is not ``NAME=COHORT``.
        FedPhantomError: as :func:`fedphantom.server.simulation.simulate`.
    """
    from .simulation import simulate

    try:
        text = study.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"no readable study file '{study.name}'",
            expected="a UTF-8 TOML file",
            remedy="Make one with 'fedphantom study new STUDY.toml'.",
        ) from None
    result = simulate(
        text,
        parse_sites(site),
        out,
        engine=engine,
        prepare_site=prepare_site,
        open_site=open_site,
        initial=initial,
        progress=progress,
    )
    summary: dict[str, object] = json.loads(result.folder.summary.read_text(encoding="utf-8"))
    return summary | {"generator": str(result.generator)}


def parse_sites(options: Sequence[str]) -> dict[str, Path]:
    """``NAME=COHORT`` options to a mapping.

    Raises:
        ConfigError: another form, a name twice, or no such cohort.
    """
    sites: dict[str, Path] = {}
    for option in options:
        name, sign, cohort = option.partition("=")
        if not sign or not name or not cohort or name in sites:
            raise ConfigError(
                "a --site that is not NAME=COHORT, or a name given twice",
                expected="--site NAME=COHORT, each name once",
                remedy="For example: --site site-a=cohorts/a --site site-b=cohorts/b.",
            )
        if not Path(cohort).exists():
            raise ConfigError(
                f"no cohort for site '{name}' at the path given",
                expected="a folder or table of patients",
                remedy="Mend the path; 'fedphantom cohort check' reads it.",
            )
        sites[name] = Path(cohort)
    return sites
