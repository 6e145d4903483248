"""What an audit of a certain size can show, in sentences: on a terminal before, on the page after (PRIVACY §3.4)."""

from __future__ import annotations

from .policy import Tier
from .power import Power
from .verdict import MIN_HOLDOUT

NO_SIZES = (
    "No site tells how many members and holdout patients it compared: each has fewer than twenty on a side. A PASS is"
    " out of reach. A leak can still be found."
)
"""Of a combination of such audits."""


def power_points(power: Power) -> tuple[str, str, str]:
    """What this many patients can show: the smallest leak found, the largest ε proved, and what none rules out."""
    return (
        f"a leak with an AUC from {power.smallest_auc:.2f} is found by one attack four times in five",
        f"a perfect attack would prove ε ≥ {power.max_epsilon:.1f}, no more",
        f"no false alarm among them still allows a false positive rate of up to {power.fpr_bound:.1%}",
    )


def chance_of_a_pass(power: Power, tier: Tier, min_holdout: int) -> str:
    """How likely a generator that leaks nothing was to pass; empty where the tier judges no AUC.

    Args:
        power: Of this audit.
        tier: By which it is judged.
        min_holdout: Fewest holdout patients that the tier, or what a site made of it, asks for.
    """
    wanted = max(MIN_HOLDOUT, min_holdout)
    if power.n_holdout < wanted:
        return f"A PASS is out of reach: the {tier} tier asks for {wanted} holdout patients. A leak can still be found."
    if power.joint_power is None:
        return ""
    if power.joint_power == 0:  # some site tells too little
        return f"A PASS is out of reach of audits of these sizes in the {tier} tier. A leak can still be found."
    chance = f"about {power.joint_power:.0%}" if power.joint_power >= 0.005 else "under 1%"
    return (
        f"A generator that leaks nothing passes with a probability of {chance} in the {tier} tier, its"
        " attacks taken as independent."
    )
