"""Why a release is withdrawn, in words that everyone may read: a sentence that can name nobody, or the signer's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ...common.errors import DataError
from ...common.reason import SENTENCE, is_sentence

Because = Literal["consent-withdrawn", "error-found", "patient-recognisable", "permission-ended", "superseded"]
"""Reasons that can name nobody."""
REASONS: Final[Mapping[Because, str]] = {
    "consent-withdrawn": "Consent on which the release rested was withdrawn.",
    "error-found": "An error was found in what was released, or in how it was made.",
    "patient-recognisable": "It was found that the release can give a patient away.",
    "permission-ended": "A licence, an agreement or an approval on which the release rested does not permit it.",
    "superseded": "Another release stands in its place.",
}
"""What the notice says, by its reason's name."""


@dataclass(frozen=True)
class FreeReason:
    """A sentence of the signer's own.

    Attributes:
        text: It is public. Nothing here recognises a person's name in it.
        names_nobody: Whether the signer says that it names no person.
    """

    text: str
    names_nobody: bool

    def checked(self) -> str:
        """The sentence. Raises DataError for one that is none, or that nobody answers for."""
        text = self.text
        if not is_sentence(text):
            raise DataError(
                "a reason that says too little, or too much",
                expected=f"{SENTENCE}, which whoever has the release will read",
                remedy="Say in a sentence why it is withdrawn; name no patient.",
            )
        if not self.names_nobody:
            raise DataError(
                "a reason in words of your own, which everyone may read and in which no person's name is recognised",
                expected="one of the reasons of --because, or --names-nobody beside --reason",
                remedy="Take one of those; or read the sentence again, and add --names-nobody if it names no patient,"
                " relative or member of staff, nor tells who one is.",
            )
        return text
