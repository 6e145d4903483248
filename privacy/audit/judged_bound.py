"""An attack's bound that is judged, and what it is held against, as a page or a terminal tells them."""

from __future__ import annotations

import math

from ..evidence import BINDING, BLIND, OUTLIERS, ReleaseKind


def judged_bound(upper95: float | None) -> str:
    """The one-sided upper bound of an AUC, rounded upwards; empty where it is not told.

    No interval's end is it: that is two-sided.
    """
    return "" if upper95 is None else f"{math.ceil(round(1000 * upper95, 6)) / 1000:.3f}"


def allowed(
    identifier: str,
    threat_model: str,
    release: ReleaseKind,
    auc_upper_max: float | None,
    outlier_auc_upper_max: float | None,
) -> str:
    """How large that bound may be; an attack that does not bind has no limit, and the blind baseline has one.

    Args:
        identifier: The attack's.
        threat_model: What its attacker holds.
        release: What is to be released.
        auc_upper_max: τ on everybody; None where the tier sets none.
        outlier_auc_upper_max: τ of the most isolated quartile, likewise.
    """
    if threat_model not in BINDING[release] and identifier != BLIND:
        return "not judged"
    most = outlier_auc_upper_max if identifier.endswith(OUTLIERS) else auc_upper_max
    return "no limit in this tier" if most is None else f"{most:.3f}".removesuffix("0")
