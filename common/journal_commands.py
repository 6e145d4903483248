"""``fedphantom journal``: read and verify what a run or site wrote down."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .counted import counted
from .errors import about

if TYPE_CHECKING:
    from .journal import Fact

journal_app = typer.Typer(no_args_is_help=True)

_LONG = 16
"""Entries of a list above which a person is told their number; ``--json`` prints them."""

_Path = Annotated[Path, typer.Argument(metavar="JOURNAL", help="A journal.jsonl.", dir_okay=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@journal_app.callback()
def journal() -> None:
    """What happened, in order, in a file whose lines cannot be edited unnoticed."""


@journal_app.command()
def show(path: _Path, as_json: _Json = False) -> None:
    """Print every event, after the whole chain was verified; exit 5 if it is broken."""
    from .journal import read_journal, refuse_nothing_there

    with about("JOURNAL"):
        refuse_nothing_there(path)
        entries = [asdict(entry) for entry in read_journal(path)]
    lines = [f"{e['n']:>5}  {e['time']}  {e['event']:<17}  {facts_text(e['facts'])}".rstrip() for e in entries]
    typer.echo(json.dumps({"entries": entries}) if as_json else "\n".join(lines))


def facts_text(facts: Mapping[str, Fact]) -> str:
    """Facts for a person, on one line; of a hash its beginning.

    >>> facts_text({"verdict": "PASS", "release": "0123456789ab" + 52 * "0", "counts": {"A": 3}})
    'verdict PASS; release 0123456789ab…; counts {"A": 3}'
    >>> facts_text({"scans": 40 * ["0123456789ab" + 20 * "0"]})
    'scans 40 entries'
    """
    return "; ".join(f"{name} {_told(value)}" for name, value in facts.items())


def _told(value: Fact) -> str:
    if isinstance(value, list) and len(value) > _LONG:
        return counted(len(value), "entry", "entries")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", text)


@journal_app.command()
def verify(
    path: _Path,
    head: Annotated[
        str | None,
        typer.Option(help="A hash noted earlier, which the chain must pass through: only so do cut-off lines show."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check the chain from the first line to the last; exit 5 and name the line if it is broken."""
    from .journal import last_hash, refuse_nothing_there, verify_journal

    check_head(head)
    with about("JOURNAL"):
        refuse_nothing_there(path)
        number = verify_journal(path, head=head)
        head = last_hash(path)
    text = f"{counted(number, 'entry', 'entries')}, unbroken. Head: {head}"
    typer.echo(json.dumps({"ok": True, "entries": number, "head": head}) if as_json else text)


def check_head(head: str | None) -> None:
    """Refuse what cannot be a line's hash, as ``--head`` takes one. Raises BadParameter."""
    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise typer.BadParameter(
            f"a hash is 64 of the signs 0-9 and a-f, and {counted(len(head), 'sign')} are given; copy it whole",
            param_hint="--head",
        )
