"""Remapping tables: which values of a cohort's label maps mean which label of a study, in TOML.

    background = [0]
    white = [2, 41, 77]    # FreeSurfer's Left- and Right-Cerebral-White-Matter, WM-hypointensities

A value that a table does not name is refused by its number, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..toml_text import parse_toml

Remapping = dict[str, tuple[int, ...]]
"""Label name to the values that mean it in a cohort's files."""

_LARGEST = 2**31 - 1
_NAMED = 10
"""Unknown values that a message names."""


def remapping_problem(table: Mapping[str, tuple[int, ...]], labels: Mapping[str, int]) -> str | None:
    """What is wrong with a table for these labels (name to value), as one phrase; None if it can be used."""
    foreign = sorted(table.keys() - labels.keys())
    if foreign:
        return f"remapping: '{foreign[0]}' is not one of the labels {', '.join(labels)}"
    values = [value for members in table.values() for value in members]
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        return f"remapping: the value {twice[0]} is given twice"
    if not all(0 <= value <= _LARGEST for value in values) or 0 not in table.get("background", ()):
        return "remapping: needs whole numbers from 0, with 0 under background"
    return None


def read_remapping(path: Path, labels: Mapping[str, int]) -> Remapping:
    """Read a table of its own file.

    Args:
        path: TOML, label name to a list of values.
        labels: The study's label names and values.

    Raises:
        ConfigError: no readable file, not TOML, or a table that these labels cannot use.
    """
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if content is None or not all(_is_value_list(members) for members in content.values()):
        problem: str | None = "remapping: no TOML file of label names with lists of values"
    else:
        problem = remapping_problem({name: tuple(members) for name, members in content.items()}, labels)
    if problem or content is None:
        own = table_lines({name: (value,) for name, value in labels.items()})
        raise ConfigError(
            problem or "",
            expected="a line for each label, every value of the files once, 0 under background",
            remedy=f"Mend the file; were the values the study's own, it would hold {own}.",
        )
    return {name: tuple(members) for name, members in content.items()}


def table_lines(table: Mapping[str, tuple[int, ...]]) -> str:
    """A table's lines as a message shows them.

    >>> table_lines({"background": (0,), "oedema": (2, 4)})
    "'background = [0]', 'oedema = [2, 4]'"
    """
    return ", ".join(f"'{name} = {list(values)}'" for name, values in table.items())


def remap(stored: NDArray[Any], table: Mapping[str, tuple[int, ...]], labels: Mapping[str, int]) -> NDArray[np.uint8]:
    """A label map as stored, any shape, to the study's label values.

    Args:
        stored: Whole numbers, integer or float.
        table: From :class:`Remapping`; where it is empty, the values are the study's own.
        labels: The study's label names and values.

    Raises:
        DataError: a value that the table does not name; the message names it.
    """
    meaning = {value: labels[name] for name, members in table.items() for value in members}
    meaning = meaning or {value: value for value in labels.values()}
    found, position = np.unique(stored, return_inverse=True)
    unknown = [f"{value:g}" for value in found.tolist() if value not in meaning]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise DataError(
            f"a label map with values outside the study's labels: {', '.join(unknown[:_NAMED])}{more}",
            expected=f"values among {', '.join(map(str, sorted(meaning)))}",
            remedy="Name them in the remapping table, or find the scan with 'fedphantom cohort check --study'.",
        )
    new = np.array([meaning[value] for value in found.tolist()], dtype=np.uint8)
    return new[position].reshape(stored.shape)


def _is_value_list(members: object) -> bool:
    return isinstance(members, list) and all(type(value) is int for value in members)
