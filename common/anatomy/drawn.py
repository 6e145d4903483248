"""What a cohort's label maps hold in the words of a network's study: told by a table or by names, never guessed."""

from __future__ import annotations

from collections.abc import Mapping

from ..cohort import Cohort
from ..labels.named_values import named_values
from ..labels.remapping import table_lines
from ..study import Study


def known_values(cohort: Cohort, study: Study, table: Mapping[str, tuple[int, ...]]) -> frozenset[int]:
    """Values of the cohort's label maps whose meaning is known; the study's own mean nothing without their names.

    Args:
        cohort: Whose label maps are laid over what the network infers.
        study: The network's.
        table: What the values mean; where it is empty, the cohort must name them, and as the study does.

    Raises:
        DataError: as :func:`.named_values`.
    """
    if table:
        return frozenset(value for members in table.values() for value in members)
    if not study.network.overlay or all(scan.label is None for scan in cohort.scans):
        return frozenset(study.label_values)
    return named_values(cohort, study.labels, "the network's study", "--remapping", _remedy(study))


def _remedy(study: Study) -> str:
    own = {"background": (0,)} | {name: (study.labels[name],) for name in study.network.overlay}
    return (
        "Write a line for each label, every value of the files once, and give the file with --remapping; were they the"
        f" study's own, it would hold {table_lines(own)}. docs/remappings/brats.toml is one for BraTS."
    )
