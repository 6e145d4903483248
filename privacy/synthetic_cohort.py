"""The synthetic cohort that is audited and released: where it lies, who painted it, on which label maps."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from ..common.errors import DataError
from ..common.labels.chain import CHAIN_KEY, LabelChain
from .synthetic_digest import VOLUME_ENDING

SYNTHETIC = "synthetic"
"""Its folder, in or beside a run's or a site's folder, where no other is named."""


def synthetic_of(run: Path) -> Path | None:
    """The cohort that lies where one is looked for when none is named; None where there is none."""
    return next((place for place in (run / SYNTHETIC, run.parent / SYNTHETIC) if place.is_dir()), None)


def painters(cohort: Path) -> set[str]:
    """SHA-256 of the generators that painted the volumes, as their sidecars say; '' for a sidecar that does not."""
    found = set()
    for volume in cohort.rglob(f"*{VOLUME_ENDING}"):
        beside = volume.with_name(volume.name.removesuffix(VOLUME_ENDING) + ".json")
        try:
            made_by = json.loads(beside.read_bytes()).get("GeneratorSha256")
        except (OSError, ValueError, AttributeError, RecursionError):
            made_by = None
        found.add(made_by if isinstance(made_by, str) else "")
    return found


def label_chains(cohort: Path) -> list[LabelChain]:
    """The chain of every scan's label map.

    Raises:
        DataError: a label map whose sidecar holds no readable chain.
    """
    try:
        sidecars = [json.loads(path.read_bytes()) for path in sorted(cohort.rglob("*_dseg.json"))]
        return [LabelChain.model_validate(sidecar[CHAIN_KEY]) for sidecar in sidecars]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        raise DataError(
            "a synthetic label map whose sidecar holds no readable chain",
            expected="the cohort as 'fedphantom generate' left it",
            remedy="Generate it anew.",
        ) from None
