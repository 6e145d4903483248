"""One segmenter's scores on the test patients, and the file in which they wait for the others.

A file holds a figure of each patient: it is readable by its owner alone, and never leaves the site.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ...common.atomic import write_atomic
from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.segmentation import dice, hausdorff95, one_is_empty, segment
from ...common.study import Study
from .figures import Floats, per_patient


@dataclass(frozen=True)
class Scores:
    """By region, one value a test patient (the mean over the patient's scans), patients sorted.

    Attributes:
        dice: 0 to 1.
        hd95: In mm; :func:`~fedphantom.common.segmentation.hausdorff95` says what an empty structure scores.
        one_empty: Share of the patient's scans whose structure was missed altogether, or found where there is none.
    """

    dice: Mapping[str, Floats]
    hd95: Mapping[str, Floats]
    one_empty: Mapping[str, Floats]


def region_members(study: Study) -> dict[str, tuple[int, ...]]:
    """Region name to class indices: each label, each composite region, and all foreground."""
    index = {value: i for i, value in enumerate(study.label_values)}
    named = {name: tuple(index[v] for v in values) for name, values in study.evaluation_regions.items()}
    return named | {"foreground": tuple(range(1, len(study.labels)))}


def repeated_regions(study: Study) -> dict[str, str]:
    """Regions that are the same structure as an earlier one, with that one's name: a table shows each once."""
    first: dict[tuple[int, ...], str] = {}
    named = {name: first.setdefault(tuple(sorted(m)), name) for name, m in region_members(study).items()}
    return {name: earlier for name, earlier in named.items() if name != earlier}


def score(network: nn.Module, test: PreparedScans, study: Study, device: Device) -> Scores:
    """Segment the test patients' scans and compare each with its label map."""
    found = segment(network, test.volumes, device, study.training.patch)
    truth, spacing = np.asarray(test.classes), study.grid.spacing_mm
    regions = region_members(study)
    distances = {m: hausdorff95(found, truth, m, spacing) for m in set(regions.values())}  # slow: each structure once
    return Scores(
        {name: per_patient(dice(found, truth, m), test.patients) for name, m in regions.items()},
        {name: per_patient(distances[m], test.patients) for name, m in regions.items()},
        {name: per_patient(one_is_empty(found, truth, m), test.patients) for name, m in regions.items()},
    )


def over_seeds(scores: list[Scores]) -> Scores:
    """Each patient's mean over segmenters that differ in their seed alone."""
    mean = {
        kind: {region: np.mean([getattr(one, kind)[region] for one in scores], axis=0) for region in scores[0].dice}
        for kind in ("dice", "hd95", "one_empty")
    }
    return Scores(**mean)


def keep_scores(path: Path, key: str, scores: Scores, settings: Mapping[str, int]) -> None:
    """Write what :func:`kept_scores` reads, and beside it the settings that a person chose."""
    content = {kind: {region: list(v) for region, v in values.items()} for kind, values in asdict(scores).items()}
    write_atomic(path, json.dumps({"key": key, **settings, **content}).encode(), mode=0o600)


def kept_scores(path: Path, key: str) -> Scores | None:
    """The scores that were kept under this key; None where there are none, others, or the file is damaged."""
    try:
        content = json.loads(path.read_text())
        return (
            Scores(**{kind: _by_region(content[kind]) for kind in ("dice", "hd95", "one_empty")})
            if (content["key"] == key)
            else None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def kept_key(path: Path) -> str | None:
    """The key under which scores are kept there; None where there are none, or the file is damaged."""
    try:
        key = json.loads(path.read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) and kept_scores(path, key) else None


def _by_region(table: Mapping[str, list[float]]) -> dict[str, Floats]:
    return {region: np.asarray(values, dtype=np.float64) for region, values in table.items()}
