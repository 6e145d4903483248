"""What an earlier evaluation left in a folder: gone on with by the same settings, and never overwritten by others.

A call that asks for more, further seeds or arms, loses nothing and goes on. One that asks for less, or for something
else, would put its result in the place of the other's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from ...common.counted import counted
from ...common.errors import OutputTaken
from ...common.json_object import read_json_object
from .segmenters import Examination, Segmenter

_REMEDY = "Name another folder, or give the same settings again."


def refuse_other_settings(
    kept: Iterable[Path], result: Path, *, steps: int, seeds: Collection[int], seed_in_name: bool
) -> None:
    """Find, before a cohort is read, that a folder's segmenters and result are of the settings asked for.

    Args:
        kept: Files of finished segmenters.
        result: The protocol's result; may be missing.
        steps: Asked for, of every segmenter.
        seeds: Asked for.
        seed_in_name: Whether a file's name tells its segmenter's seed: then one of another seed is not overwritten.

    Raises:
        OutputTaken: some are of other steps or seeds.
    """
    segmenters, told = [read_json_object(file) for file in sorted(kept)], read_json_object(result).get("segmenter")
    of_result = told if isinstance(told, dict) else {}
    for settings in (*segmenters, of_result):
        if settings.get("steps", steps) != steps:
            asked = counted(steps, "step")
            _refuse(f"segmenters of {counted(settings['steps'], 'step')}", f"segmenters of the {asked} asked for")
    told_seeds = of_result.get("seeds", [of_result.get("seed")])
    earlier = {*told_seeds, *(() if seed_in_name else (settings.get("seed") for settings in segmenters))}
    if others := sorted(earlier - {None, *seeds}):
        asked = ", ".join(map(str, seeds))
        _refuse(f"what seed {others[0]} gave", f"a result of none but the seeds asked for, {asked}")


def refuse_others(segmenters: Iterable[Segmenter], examination: Examination, result: Path, arms: Iterable[str]) -> None:
    """Find, before anything is trained, that no finished segmenter and no arm of a result would be lost.

    Args:
        segmenters: That are to be trained.
        examination: Where they are kept, and on whom they are scored.
        result: An earlier result; may be missing.
        arms: Names of the arms that the new one will hold.

    Raises:
        OutputTaken: one was trained or scored on other scans, or the result holds other arms.
    """
    if any(examination.keeps_another(segmenter) for segmenter in segmenters):
        _refuse("segmenters of other scans or another version", "segmenters of the scans given")
    told = read_json_object(result).get("arms")
    names = {str(arm.get("name")) for arm in told if isinstance(arm, dict)} if isinstance(told, list) else set()
    if left := sorted(names - set(arms)):
        _refuse(f"a result with the arm '{left[0]}', which this call leaves out", "every arm of that result")


def _refuse(found: str, expected: str) -> None:
    raise OutputTaken(f"--out holds {found}", expected=expected, remedy=_REMEDY)
