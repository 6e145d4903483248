"""What a PASS may say about the attacks: never more than their figures do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .evidence import BINDING, ReleaseKind

_NEEDS = {
    "S": "the synthetic volumes",
    "G": "the patients' own label maps, which no release holds, and the generator",
    "W": "the generator's weights",
    "I": "both networks of a site, of which no release holds the discriminator",
    "F": "every round's weights, which the coordinator alone sees",
}


WORDING = 5
"""Number of the sentences that a release holds, here and in its README; raise it whenever one of them changes.

A release is checked word for word, and by the words of the program that packed it: of others it is said so.
"""
NOTHING_SUCCEEDED = "No attack tested succeeded."


class Tried(Protocol):
    """An attack's figures, wherever they were read from."""

    @property
    def id(self) -> str:
        """As PRIVACY §3.2 numbers attacks."""

    @property
    def threat_model(self) -> str:
        """What the attacker holds."""

    @property
    def auc(self) -> float | None:
        """Members ranked above strangers."""

    @property
    def auc_ci(self) -> tuple[float | None, float | None] | None:
        """Two-sided 95 %."""

    @property
    def rejects(self) -> bool | None:
        """Whether "no leak" is rejected after Holm over all audits of the holdout; None where nobody says."""

    @property
    def rejects_alone(self) -> bool | None:
        """Whether it is rejected after Holm over this audit's attacks alone; None where nobody says."""


def succeeded(attack: Tried) -> bool:
    """Whether an attack tells members from strangers; by its interval where nobody says whether it rejects.

    That earlier audits of the holdout found nothing does not silence one that found something. The blind baseline is no
    attack: it never sees the model.
    """
    if attack.threat_model == "none":
        return False
    if (attack.rejects, attack.rejects_alone) != (None, None):
        return bool(attack.rejects or attack.rejects_alone)
    return attack.auc_ci is not None and attack.auc_ci[0] is not None and attack.auc_ci[0] > 0.5


def unjudged(attacks: Sequence[Tried], release: ReleaseKind) -> tuple[Tried, ...]:
    """Attacks on what is released that succeeded; beside a PASS, the tier did not judge them."""
    return tuple(attack for attack in attacks if succeeded(attack) and attack.threat_model in BINDING[release])


def beyond(attacks: Sequence[Tried], release: ReleaseKind) -> tuple[Tried, ...]:
    """Attacks that succeeded, but need more than is released."""
    return tuple(attack for attack in attacks if succeeded(attack) and attack.threat_model not in BINDING[release])


def finding(attacks: Sequence[Tried], release: ReleaseKind) -> str:
    """What a PASS may say of its attacks, in one or two sentences."""
    hits, more = unjudged(attacks, release), beyond(attacks, release)
    if not hits and not more:
        return NOTHING_SUCCEEDED
    one = len(more) == 1
    needs = "; ".join(dict.fromkeys(_NEEDS.get(attack.threat_model, attack.threat_model) for attack in more))
    if hits:
        told = f"Not judged at this tier: {_named(hits)} {'rejects' if len(hits) == 1 else 'reject'} 'no leak'."
        return told + (f" So {'does' if one else 'do'} {_named(more)}, for which one needs {needs}." if more else "")
    return (
        f"No attack that binds for a {release} release succeeded; {_named(more)} did:"
        f" {'it needs' if one else 'they need'} {needs}."
        " That nothing of it shows in what is released rests on the attacks tested alone."
    )


def _named(attacks: Sequence[Tried]) -> str:
    return ", ".join(attack.id if attack.auc is None else f"{attack.id} (AUC {attack.auc:.2f})" for attack in attacks)
