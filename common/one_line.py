"""Text on one line, every character of which a reader sees: what a person wrote, and others read or print.

A line break or terminal sequence could make a second statement of one, and a change of direction (U+202E) another.
"""

from __future__ import annotations

from typing import Final

from pydantic import AfterValidator


def _seen(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a character that nobody sees, or a line break")
    return text


ONE_LINE: Final = AfterValidator(_seen)
"""Of a text field, after its length."""
