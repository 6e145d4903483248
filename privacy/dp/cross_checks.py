"""Other accountants' ε of the same steps, held against the official one: two programs, three methods, one bound.

PRV (Gopi et al. 2021, arXiv:2106.02848) computes the same quantity by other code and must not lie below the PLD; RDP
(Mironov 2017) is valid and loose. Both are Opacus', and bring torch along: they stand apart from :mod:`.accounting`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ...common.errors import VerificationFailed
from .accounting import Mechanism, epsilon

TOLERANCE: Final = 0.02
"""By how much the PRV's ε may lie below the PLD's: both are upper bounds, the PRV's within 0.01 of the truth."""
LARGEST_FOR_PRV: Final = 30.0
"""Above this ε the PRV accountant takes minutes or fails (opacus issue 601)."""


@dataclass(frozen=True)
class CrossChecks:
    """Three accountants on the same steps at the same δ.

    Attributes:
        pld: The official ε.
        prv: The PRV accountant's; None where it was not asked or did not answer.
        rdp: The Rényi accountant's: an upper bound.
        told: What was held against what, for a person.
    """

    pld: float
    prv: float | None
    rdp: float
    told: str


def cross_checks(mechanisms: Iterable[Mechanism], delta: float) -> CrossChecks:
    """Hold the official ε against Opacus' PRV and RDP accountants; seconds, as torch is loaded.

    Raises:
        ConfigError: ``delta`` is outside (0, 1).
        VerificationFailed: another accountant's ε is smaller than the official one allows: one of them is wrong, and
            nothing may be promised.
    """
    steps = tuple(mechanisms)
    pld = epsilon(steps, delta)
    if not steps:
        return CrossChecks(0.0, 0.0, 0.0, "no noised step, no cost")
    rdp = _rdp(steps, delta)
    prv, why_not = (None, f"ε is above {LARGEST_FOR_PRV:g}") if pld > LARGEST_FOR_PRV else _prv(steps, delta)
    found = f"PLD {pld:.3f}, RDP {rdp:.3f} (an upper bound)"
    told = f"{found}, PRV {prv:.3f}" if prv is not None else f"{found}; PRV not asked or without an answer: {why_not}"
    if prv is not None and prv < pld - TOLERANCE:
        raise _contradiction(f"PRV {prv:.3f} under PLD {pld:.3f}")
    if rdp < pld - TOLERANCE and math.isfinite(pld):
        raise _contradiction(f"RDP {rdp:.3f} under PLD {pld:.3f}")
    return CrossChecks(pld, prv, rdp, told)


def _contradiction(what: str) -> VerificationFailed:
    return VerificationFailed(
        f"accountants that contradict each other: {what}",
        expected=f"none below the official ε by more than {TOLERANCE:g}",
        remedy="Train nothing on this promise; report the study's q, σ, T and δ as a defect.",
    )


def _rdp(steps: tuple[Mechanism, ...], delta: float) -> float:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = _history(steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order lies at the end of its range: the bound is looser, not wrong
        return float(accountant.get_epsilon(delta))


def _prv(steps: tuple[Mechanism, ...], delta: float) -> tuple[float | None, str]:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = _history(steps)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = float(accountant.get_epsilon(delta))
    except Exception:  # whatever its numerics meet: it is a check and no more, and RDP stays
        return None, "it failed on these steps"
    return (found, "") if math.isfinite(found) else (None, "it gave no number")


def _history(steps: tuple[Mechanism, ...]) -> list[tuple[float, float, int]]:
    return [(step.noise_multiplier, step.sampling_rate, step.steps) for step in steps]
