"""The synthetic cohort that is audited and released: where it lies, who painted it, on which label maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ..common.counted import counted
from ..common.errors import DataError, PolicyRefused
from ..common.json_object import read_json_object
from ..common.labels.chain import CHAIN_KEY, LabelChain
from ..common.labels.stated_origin import GENERATOR_KEY
from .evidence import SMALLEST_CELL
from .synthetic_digest import VOLUME_ENDING

SYNTHETIC = "synthetic"
"""Its folder, in or beside a run's or a site's folder, where no other is named."""

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError)


def synthetic_of(run: Path) -> Path | None:
    """The cohort that lies where one is looked for when none is named; None where there is none."""
    return next((place for place in (run / SYNTHETIC, run.parent / SYNTHETIC) if place.is_dir()), None)


def painters(cohort: Path) -> set[str]:
    """SHA-256 of the generators that painted the volumes, as their sidecars say; '' for a sidecar that does not."""
    found = set()
    for volume in cohort.rglob(f"*{VOLUME_ENDING}"):
        beside = volume.with_name(volume.name.removesuffix(VOLUME_ENDING) + ".json")
        made_by = read_json_object(beside).get(GENERATOR_KEY)
        found.add(made_by if isinstance(made_by, str) else "")
    return found


def label_chains(cohort: Path) -> list[LabelChain]:
    """The chain of every scan's label map.

    Raises:
        DataError: a label map whose sidecar holds no readable chain.
    """
    try:
        return [_chain(path) for path in sorted(cohort.rglob("*_dseg.json"))]
    except _UNREADABLE:
        raise DataError(
            "a synthetic label map whose sidecar holds no readable chain",
            expected="the cohort as 'fedphantom generate' left it",
            remedy="Generate it anew.",
        ) from None


def refuse_private_label_maps(volumes: Mapping[str, Mapping[str, Path]]) -> None:
    """Find that no scan was painted on a private label map: no such volume is ever released (DESIGN §4.5).

    Args:
        volumes: As :func:`~fedphantom.privacy.synthetic_files.synthetic_volumes` finds them.

    Raises:
        PolicyRefused: one was, as its sidecars say; one that says nothing counts as private.
    """
    private = sum(not all(map(_is_public, scan.values())) for scan in volumes.values())
    if private:
        # Each may be a patient's: their number is told as patients' are.
        told = str(private) if private >= SMALLEST_CELL else f"fewer than {SMALLEST_CELL}"
        raise PolicyRefused(
            f"a synthetic cohort in which {told} of {counted(len(volumes), 'scan')} were painted on private label maps",
            expected="scans painted on public label maps alone: others are never released, whatever an audit says, and"
            " what it found in them would stand against this generator for good",
            remedy="No audit was begun. Paint public label maps ('fedphantom generate --sample N') and name those.",
        )


def _is_public(volume: Path) -> bool:
    try:
        return _chain(volume.with_name(volume.name.removesuffix(VOLUME_ENDING) + ".json")).is_public
    except _UNREADABLE:
        return False


def _chain(sidecar: Path) -> LabelChain:
    return LabelChain.model_validate(json.loads(sidecar.read_bytes())[CHAIN_KEY])
