"""What every table of a study is: frozen, and without a key that nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, lt=1)]
LabelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,31}$")]
"""What a label may be called: in a study, in a recipe, in a release."""
Positive = Annotated[int, Field(gt=0, le=1_000_000)]


class StudyTable(BaseModel):
    """A table of ``study.toml``."""

    # Infinity has no form in the canonical JSON that a weights file carries. Strict: text is no number; a whole
    # number is one wherever a fraction may stand.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_as_tuples(cls, table: object) -> object:
        """TOML and JSON have lists where a frozen table has tuples."""
        return _without_lists(table)


def _without_lists(content: object) -> object:
    match content:
        case Mapping():
            return {key: _without_lists(value) for key, value in content.items()}
        case list() | tuple():
            return tuple(_without_lists(value) for value in content)
        case _:
            return content


def without_nothing(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without the keys that hold nothing: TOML has no word for it, and a key left out changes no digest."""
    return {name: value for name, value in table.items() if value is not None}
