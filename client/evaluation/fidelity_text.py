"""The fidelity measures as text, each beside its yardstick."""

from __future__ import annotations

from ...common.counted import counted
from .carriers import absent_in_words, how_many_have_it
from .fidelity import Fidelity
from .figures import Figure

_NONE = "–"


def print_fidelity(fidelity: Fidelity) -> None:
    """To stdout."""
    print(
        f"{fidelity.whom.test_patients(fidelity.test_patients)}, {fidelity.synthetic_scans} synthetic scans; segmenter"
        f" of {fidelity.whom.training_patients(fidelity.training_patients)}, {counted(fidelity.plan.steps, 'step')}"
    )
    print("Labels found again: Dice against the label map, mean [95 %]")
    shown = {region: found for region, found in fidelity.refound.items() if region not in fidelity.repeated}
    wide = max(map(len, shown), default=0)
    for region, found in shown.items():
        of_made = _figure_and_who(found.synthetic, fidelity.synthetic_carriers[region], fidelity.synthetic_scans)
        of_real = _figure_and_who(found.real, fidelity.carriers[region], fidelity.test_patients)
        print(f"  {region:<{wide}}  synthetic {of_made}  real {of_real}")
    for absent in (
        absent_in_words(fidelity.carriers),
        absent_in_words(fidelity.synthetic_carriers, "synthetic scan"),
    ):
        if absent:
            print(f"  {absent}")
    print("Intensities by tissue: Wasserstein distance on [-1, 1] to half of the real patients")
    wide = max(len(f"{d.label}, {d.channel}") for d in fidelity.intensities)
    for d in fidelity.intensities:
        name = f"{d.label}, {d.channel}"
        print(f"  {name:<{wide}}  synthetic {_number(d.synthetic)}  other half {_number(d.real)}")
    if any(d.synthetic is None or d.real is None for d in fidelity.intensities):
        print(f"  {_NONE}: of the scans that are compared, one side has no voxel of the label")
    made, real = fidelity.synthetic_pairs, fidelity.real_pairs
    print(
        f"Likeness within {counted(made.scans, 'scan')}: mean MS-SSIM of their pairs,"
        f" {counted(fidelity.scales, 'scale')}; 1: all the same"
    )
    print(f"  synthetic {made.mean:.3f} [{made.low:.3f}, {made.high:.3f}]")
    print(f"  real      {real.mean:.3f} [{real.low:.3f}, {real.high:.3f}]")
    features = fidelity.features
    print("Segmenter's features: squared MMD, real against synthetic")
    print(f"  {features.mmd2:.4f}; below {features.null95:.4f} in 95 % of shuffles; p = {features.p_value:.4f}")
    print(fidelity.whom.notice)


def _figure(figure: Figure) -> str:
    return f"{figure.mean:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _figure_and_who(figure: Figure, having: int, of: int) -> str:
    """A scan without the structure, in which none is found, counts 1: so it says how many have it."""
    some = how_many_have_it(having, of)
    return f"{_figure(figure)} ({some})" if some else _figure(figure)


def _number(value: float | None) -> str:
    return f"{_NONE:>5}" if value is None else f"{value:.3f}"
