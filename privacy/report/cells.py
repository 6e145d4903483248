"""Small groups of real patients: what a shareable page says instead of their number (PRIVACY §3.1, cells of 20)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..audit.extract import Cell
from ..audit.small_cells import SMALL
from ..evidence import SMALLEST_CELL

_FEW = f"fewer than {SMALLEST_CELL}"
_GROUP = re.compile(r"\b(?:only )?(?:[0-9]|1[0-9])(?= (?!public\b)(?:\w+ )?(?:members?|patients?)\b)", re.IGNORECASE)
_COPIED = re.compile(r"Of (\d+) members (\d+) were found copied: the rate could be .+?; to be shown: (.+)")


@dataclass(frozen=True)
class Cells:
    """How a rendition tells numbers of patients.

    Attributes:
        hide_small: Whether groups of 0 to 19 are not told.
    """

    hide_small: bool

    def hides(self, number: object) -> bool:
        """Whether a group of this size, or a figure about it, is not told; what is no number is hidden already."""
        return self.hide_small and isinstance(number, int) and number < SMALLEST_CELL

    def number(self, number: Cell) -> str:
        """A number of patients."""
        return _FEW if number == SMALL or (isinstance(number, int) and self.hides(number)) else str(number)

    def sentence(self, sentence: str) -> str:
        """A sentence of an audit, every number of patients in it that is not told replaced.

        The rate of copies goes with its numbers: from the end of its interval they can be computed back. Public
        patients are nobody's secret, and keep their number.
        """
        copied = _COPIED.fullmatch(sentence)
        if copied and any(self.hides(int(number)) for number in copied.groups()[:2] if number != "0"):
            return f"Members may have been copied at a higher rate than is allowed; to be shown: {copied[3]}"
        if not self.hide_small:
            return sentence
        told = _GROUP.sub(_FEW, sentence)
        return told[0].upper() + told[1:] if sentence[:1].isupper() else told
