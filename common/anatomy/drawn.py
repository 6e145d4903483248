"""What a cohort's label maps hold in the words of a network's study: told by a table or by names, never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..cohort import Cohort
from ..errors import DataError
from ..labels.remapping import table_lines
from ..study import Study

_LONGEST_NAME = 40
"""Characters of a cohort's own name for a label that are told again."""


def known_values(cohort: Cohort, study: Study, table: Mapping[str, tuple[int, ...]]) -> frozenset[int]:
    """Values of the cohort's label maps whose meaning is known; the study's own mean nothing without their names.

    The value 4 is oedema in one study and enhancing tumour in another: a cohort that says neither would lose its
    tumours, or have them called something else, and look whole.

    Args:
        cohort: Whose label maps are laid over what the network infers.
        study: The network's.
        table: What the values mean; where it is empty, the cohort must name them, and as the study does.

    Raises:
        DataError: values without names, or with others than the study's.
    """
    if table:
        return frozenset(value for members in table.values() for value in members)
    if not study.network.overlay or all(scan.label is None for scan in cohort.scans):
        return frozenset(study.label_values)
    declared = {value: name for value, name in cohort.label_names.items() if value}
    if not declared:
        raise DataError(
            "label maps in a cohort that does not name their values: the study's own numbers may mean something else",
            expected="names of the values (dseg.tsv, dataset.json), or --remapping",
            remedy=_remedy(study),
        )
    names = {value: name for name, value in study.labels.items()}
    for value, name in sorted(declared.items()):
        if _plain(name) != _plain(names.get(value, "")):
            ours = f"means '{names[value]}'" if value in names else "means nothing"
            raise DataError(
                f"a cohort that names its label maps' value {value} '{name[:_LONGEST_NAME]}', which {ours} to the"
                " network's study",
                expected="the study's names for the same values, or --remapping",
                remedy=_remedy(study),
            )
    return frozenset({0, *declared})


def _remedy(study: Study) -> str:
    own = {"background": (0,)} | {name: (study.labels[name],) for name in study.network.overlay}
    return (
        "Write a line for each label, every value of the files once, and give the file with --remapping; were they the"
        f" study's own, it would hold {table_lines(own)}. docs/remappings/brats.toml is one for BraTS."
    )


def _plain(name: str) -> str:
    """A name without regard to capitals and to what joins its words."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
