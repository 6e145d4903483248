"""What a cohort's owner states about it: its name, its licence, whom to cite. Read from the cohort, never guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..json_object import read_json_object
from ..labels.chain import states_licence
from .layouts.bids import DESCRIPTION

DECATHLON_DESCRIPTION = "dataset.json"

_LONGEST = 600
"""Characters; a licence's own words fit, a copied website does not."""


@dataclass(frozen=True)
class CohortTerms:
    """Each in the owner's words on one line; None where the cohort does not state it."""

    name: str | None = None
    licence: str | None = None
    citation: str | None = None


def stated_terms(root: Path) -> CohortTerms:
    """Read a cohort's description; a file that is missing or not JSON states nothing.

    ``dataset_description.json``: ``Name``, ``License``, and ``HowToAcknowledge`` or else ``ReferencesAndLinks`` and
    ``DatasetDOI``. ``dataset.json``: ``name``, ``licence`` (nnU-Net: ``license``), ``reference``. What the first
    does not state may stand in the second.

    Args:
        root: The cohort's folder; for a table the folder it lies in.

    Source: BIDS specification 1.10; Medical Segmentation Decathlon (Simpson et al. 2019, arXiv:1902.09063).
    """
    bids, decathlon = read_json_object(root / DESCRIPTION), read_json_object(root / DECATHLON_DESCRIPTION)
    cited = _text(bids.get("HowToAcknowledge")) or "; ".join(
        dict.fromkeys(_texts(bids.get("ReferencesAndLinks"), bids.get("DatasetDOI")))
    )
    licences = _texts(*(table.get(key) for table in (bids, decathlon) for key in ("License", "Licence")))
    licences = [*licences, *_texts(decathlon.get("licence"), decathlon.get("license"))]
    return CohortTerms(
        name=_text(bids.get("Name")) or _text(decathlon.get("name")),
        licence=next(filter(states_licence, licences), None),
        citation=_shortened(cited) or _text(decathlon.get("reference")),
    )


def _texts(*values: object) -> list[str]:
    """Every text among values and lists of values, in order."""

    def flat() -> Iterator[object]:
        for value in values:
            yield from value if isinstance(value, list) else [value]

    return [text for text in map(_text, flat()) if text]


def _text(value: object) -> str | None:
    return _shortened(value) if isinstance(value, str) else None


def _shortened(text: str) -> str | None:
    """On one line, without control characters, not endless; None where nothing is left."""
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return (line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…") or None
