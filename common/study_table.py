"""What every table of a study is: frozen, and without a key that nobody reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0, le=1_000_000)]


class StudyTable(BaseModel):
    """A table of ``study.toml``."""

    # Infinity has no form in the canonical JSON that a weights file carries.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
