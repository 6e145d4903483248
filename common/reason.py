"""Why somebody ends what cannot be begun again: a sentence, since whoever reads it later has nothing else."""

from __future__ import annotations

SENTENCE = "a sentence of 10 to 500 characters on one line"


def is_sentence(text: str) -> bool:
    """Whether a reason is :data:`SENTENCE`: two words or more, and nothing that no terminal prints."""
    return len(text.split()) >= 2 and 10 <= len(text.strip()) <= len(text) <= 500 and text.isprintable()
