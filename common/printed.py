"""How a command prints what it made: a sentence or two for a terminal, or one JSON object."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar, Protocol

import typer


class Printable(Protocol):
    """A dataclass that can say itself in words; its fields are what ``--json`` prints."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def text(self) -> str:
        """For a terminal."""
        ...


def print_made(made: Printable, *, as_json: bool) -> None:
    """Print it to standard output."""
    typer.echo(json.dumps(dataclasses.asdict(made)) if as_json else made.text())
