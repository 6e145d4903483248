"""The Shin protocol's table: one block of rows a region, for a terminal of 100 columns and as Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...common.counted import counted
from .figures import Figure, spread
from .shin import share_in_words
from .shin_result import ArmResult, ShinResult

COLUMNS = ("trained on", "aug", "Dice [95 %]", "seeds", "points gained", "HD95 mm [95 %]", "seeds", "none")
WIDTH = 100

Row = tuple[str, ...]
"""One cell a column."""


def table_rows(result: ShinResult, region: str) -> list[Row]:
    """The arms in one region, then the sweep's shares that are no arm already: between none and all scans."""
    rows = [_row(arm.arm.training.replace(", then", " →"), arm, region) for arm in result.grid_arms]
    rows += [_row(f"sweep: {share_in_words(p.share)} × real", p.result, region) for p in result.sweep[1:-1]]
    return [(result.in_words(name), *cells) for name, *cells in rows]


def explanation(result: ShinResult) -> list[str]:
    """What the columns mean and how the segmenters were trained, a sentence or two each."""
    plan = result.plan
    tuned = next(r.arm for r in result.arms if r.arm.training.endswith("10 % real"))
    lines = [
        f"{result.tested}; {len(plan.segmenters)} segmenters, {result.seeds_in_words}; each"
        f" {counted(plan.full.steps, 'step')} of {counted(plan.full.batch, 'scan')},"
        f" fine-tuning the last {plan.tuning.steps} of them; 10 %"
        f" of the training patients: {tuned.patients}, drawn by seed.",
        "Intervals: bootstrap over patients, a patient's seeds averaged first; where all score the same, what so many"
        " patients rule out. seeds: standard deviation of the mean over"
        " training seeds. aug: with the usual augmentation. points gained: Dice × 100 above the arm of the same"
        " augmentation without synthetic scans, 'real' or that of as few patients, paired by patient.",
        f"none: segmentations that miss the structure or find it where there is none, of {result.patients} ×"
        f" {len(result.seeds)}; they score Dice 0 and HD95 {result.diagonal_mm:.1f} mm, the grid's diagonal.",
    ]
    if result.above_public:
        region = result.shown_regions[0]
        lines.append(
            f"Dice of '{region}' × 100 above the public patients' own scans, paired by patient: "
            + "; ".join(f"{arm} {_interval(f[region], '+.1f', 100)}" for arm, f in result.above_public.items())
            + "."
        )
    if result.sweep:
        real = result.sweep[0].result.arm.scans
        region = result.shown_regions[0]
        share = result.hurts_from(region)
        found = (
            "no share scored surely less than a smaller one"
            if share is None
            else f"less than with a smaller share from {share_in_words(share)} × real on"
        )
        lines.append(
            f"sweep: {real} real scans and growing numbers of synthetic ones, augmented, from none ('real') to"
            f" {share_in_words(result.sweep[-1].share)} × as many ('real+synthetic'). Dice of '{region}': {found},"
            " at 95 % for all pairs of shares together."
        )
    if result.absent:
        lines.append(result.absent)
    return [lines[0], *map(result.in_words, lines[1:]), result.notice]


def print_table(result: ShinResult) -> None:
    """To stdout; with usual figures 100 columns wide, never cut short."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True)
    for region in result.shown_regions:
        table.add_row(Text(region, style="bold"), "", result.having(region))
        for row in table_rows(result, region):
            table.add_row(*map(Text, row))
        table.add_row()
    console = Console(width=WIDTH)
    console.width = max(WIDTH, console.measure(table, options=console.options.update(max_width=1000)).maximum)
    console.print(table)
    console.width = WIDTH
    for line in explanation(result):
        console.print(Text(line))


def markdown(result: ShinResult) -> str:
    """The same table as Markdown."""
    lines = ["# Shin protocol", ""]
    for region in result.shown_regions:
        some = result.having(region)
        lines += [f"## {region} ({some})" if some else f"## {region}", ""]
        lines += [_line(COLUMNS), _line(("---",) * len(COLUMNS))]
        lines += [*map(_line, table_rows(result, region)), ""]
    return "\n\n".join(["\n".join(lines).rstrip(), *explanation(result)]) + "\n"


def _row(name: str, result: ArmResult, region: str) -> Row:
    found = result.regions[region]
    return (
        name,
        "yes" if result.arm.augmentation else "no",
        _interval(found.dice, ".3f"),
        _spread(found.dice_by_seed, ".3f"),
        _interval(found.dice_difference, "+.1f", 100) if found.dice_difference else "",
        _interval(found.hd95, ".1f"),
        _spread(found.hd95_by_seed, ".1f"),
        str(found.one_empty),
    )


def _interval(figure: Figure, form: str, unit: float = 1) -> str:
    mean, low, high = (_short(value * unit, form) for value in (figure.mean, figure.low, figure.high))
    low, high = low.removeprefix("+"), high.removeprefix("+")
    return f"{mean} [{low}, {high}]"


def _spread(means: tuple[float, ...], form: str) -> str:
    deviation = spread(means)
    return "" if deviation is None else f"±{_short(deviation, form)}"


def _short(value: float, form: str) -> str:
    text = f"{value:{form}}"
    return text.removeprefix("0") if form == ".3f" else text.replace("-", "−")


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
