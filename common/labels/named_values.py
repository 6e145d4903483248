"""What the values of a cohort's label maps mean: told by the cohort's own names, never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..cohort import Cohort
from ..errors import DataError

_LONGEST_NAME = 40
"""Characters of a cohort's own name for a label that are told again."""


def named_values(cohort: Cohort, labels: Mapping[str, int], whose: str, table: str, remedy: str) -> frozenset[int]:
    """Values that the cohort names, and 0; a study's own numbers mean nothing without their names.

    The value 4 is oedema in one study and enhancing tumour in another: a cohort that says neither would lose its
    tumours, or have them called something else, and look whole.

    Args:
        cohort: With label maps.
        labels: Name to value, of the study that reads them.
        whose: What that study is called in a sentence.
        table: How values are told where names do not.
        remedy: What to do where they are needed.

    Raises:
        DataError: values without names, or with others than the study's.
    """
    declared = {value: name for value, name in cohort.label_names.items() if value}
    if not declared:
        raise DataError(
            "label maps in a cohort that does not name their values: the study's own numbers may mean something else",
            expected=f"names of the values (dseg.tsv, dataset.json), or {table}",
            remedy=remedy,
        )
    names = {value: name for name, value in labels.items()}
    for value, name in sorted(declared.items()):
        if _plain(name) != _plain(names.get(value, "")):
            ours = f"means '{names[value]}'" if value in names else "means nothing"
            raise DataError(
                f"a cohort that names its label maps' value {value} '{name[:_LONGEST_NAME]}', which {ours} to {whose}",
                expected=f"the study's names for the same values, or {table}",
                remedy=remedy,
            )
    return frozenset({0, *declared})


def _plain(name: str) -> str:
    """A name without regard to capitals and to what joins its words."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
