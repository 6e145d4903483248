"""``make bench``: measure, print a table, and keep it as ``results/<hardware>.json`` and ``.md``.

``run.py PART...`` measures these parts alone; rows of others stay as they were, each with its day. ``--device cuda``
leaves the CPU out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from audit_rows import audit_rows, copy_search_rows, report_rows
from dp_rows import dp_rows
from federation_rows import aggregation_rows, flower_rows, secure_rows, tutorial_rows
from generation_rows import full_size_rows, generation_rows
from help_rows import help_rows
from material import make_material
from measure import Row, hardware, hardware_name
from result_table import figure, markdown
from rich.console import Console
from rich.table import Table
from round_rows import round_rows
from training_rows import memory_rows, training_rows

from fedphantom.common.device import Device, choose_device

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Benchmark every device there is, the GPU first, or the one named."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("parts", nargs="*", metavar="PART")
    parse.add_argument("--device", choices=["cuda", "cpu"])
    given = parse.parse_args()
    wanted: list[str] = given.parts
    everything = (["cuda"] if torch.cuda.is_available() else []) + ["cpu"]
    for name in [given.device] if given.device else everything:
        device = choose_device(name)
        facts = hardware(device.torch)
        file = RESULTS / f"{hardware_name(device.torch)}.json"
        if not wanted:
            file.unlink(missing_ok=True)
        rows: list[Row] = []
        for part in measure(device, wanted):
            rows += part
            keep(part, facts, file)
        show(rows, facts, file)


def keep(rows: Sequence[Row], facts: dict[str, object], file: Path) -> None:
    """Write rows beside those that were there, over those of the same name."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    RESULTS.mkdir(exist_ok=True)
    measured = {row.name: {**asdict(row), "value": round(row.value, 5), "measured": today} for row in rows}
    before = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    kept = {row["name"]: row for row in before}
    result = {"hardware": facts, "measured": today, "rows": list({**kept, **measured}.values())}
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(result), encoding="utf-8")


def measure(device: Device, wanted: Sequence[str] = ()) -> Iterator[list[Row]]:
    """The rows of one part after another on one device, or of the wanted parts."""
    with tempfile.TemporaryDirectory() as folder:
        material = make_material(Path(folder))
        parts: dict[str, Callable[[], list[Row]]] = {
            "full-size generation": lambda: full_size_rows(device),
            "differential privacy": lambda: dp_rows(device),
            "training": lambda: training_rows(material, device),
            "generation": lambda: generation_rows(material, device),
            "memory": lambda: memory_rows(Path(folder), device),
        }
        # Sites choose their device themselves, the GPU where there is one.
        if device.torch == choose_device().torch:
            parts["rounds"] = lambda: round_rows(material)
        if not device.cuda:
            parts |= {"audit": audit_rows, "copy search": copy_search_rows, "report": report_rows}
            parts |= {"many sites": aggregation_rows, "rounds over Flower": flower_rows}
            parts |= {"secure rounds over Flower": secure_rows, "tutorial": tutorial_rows}
        parts["help"] = help_rows
        if unknown := sorted(set(wanted) - set(parts)):
            sys.exit(f"no such part: {', '.join(unknown)}; there are: {', '.join(parts)}")
        for name, part in parts.items():
            if wanted and name not in wanted:
                continue
            print(f"{name} on {device.torch} ...", file=sys.stderr, flush=True)
            started = time.perf_counter()
            rows = part()
            print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            yield rows


def show(rows: list[Row], facts: dict[str, object], file: Path) -> None:
    """Print the table."""
    versions = facts["versions"]
    title = f"{facts['device']} · {facts['processor']} · {facts['cores']} cores, {facts['threads']} threads\n{versions}"
    table = Table(title=title, caption=f"kept in {file.relative_to(RESULTS.parent.parent)} and .md")
    for column in ("name", "value", "unit", "baseline", "target", ""):
        table.add_column(column)
    for row in rows:
        figures = [figure(value) for value in (row.value, row.baseline, row.target)]
        table.add_row(row.name, figures[0], row.unit, *figures[1:], row.verdict)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
