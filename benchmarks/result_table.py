"""A benchmark's result as a Markdown table, for whoever reads and does not parse it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from measure import Row


def markdown(result: dict[str, Any]) -> str:
    """The table of a ``results/<hardware>.json``, with the hardware and the versions that it was measured on."""
    facts = result["hardware"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    cuda = f", CUDA {facts['cuda']}" if "cuda" in facts else ""
    lines = [
        f"# Benchmarks on {facts['processor'] if facts['device'] == 'cpu' else facts['device']}",
        "",
        f"Measured {result['measured']} by `make bench`.",
        "",
        f"- Hardware: {facts['device']}; {facts['processor']}, {facts['cores']} cores, {facts['threads']} threads,"
        f" {facts['memory_gib']} GiB; {facts['system']}",
        f"- Versions: Python {facts['python']}{cuda}, {versions}",
        "",
        "| name | value | unit | baseline | target | | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    names = [field.name for field in fields(Row)]
    for row in result["rows"]:
        # A row of an earlier version says less.
        known = Row(**{name: row[name] for name in names if name in row})
        lines.append(_line(known, row.get("measured", result["measured"])))
    return "\n".join(lines) + "\n"


def figure(value: float | None) -> str:
    """As tables show it."""
    return "" if value is None else f"{value:.4g}"


def _line(row: Row, measured: str) -> str:
    figures = [figure(value) for value in (row.value, row.baseline, row.target)]
    return f"| `{row.name}` | {figures[0]} | {row.unit} | {figures[1]} | {figures[2]} | {row.verdict} | {measured} |"
