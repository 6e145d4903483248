"""What an audit found, attack by attack and control by control; the verdict is a function of this alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from ..common.run_result import NamedBy
from .statistics import TprAtFpr

ThreatModel = Literal["S", "G", "W", "I", "F", "none"]
"""PRIVACY §3.1: synthetic set, generator as black box, its weights, insider, federation server; none: no model."""

ReleaseKind = Literal["volumes", "weights"]

BINDING: dict[ReleaseKind, tuple[ThreatModel, ...]] = {"volumes": ("S",), "weights": ("S", "G", "W")}
"""Threat models that gate each kind of release (PRIVACY §3.1, "What binds")."""

FEWEST_AVERAGED = 5
"""Real patients behind a mean that leaves their site: one over fewer is nearly a figure of one of them."""

SMALLEST_CELL = 20
"""Fewest patients whose number may leave a site (PRIVACY §3.1)."""

BATTERY = 8
"""Number of an audit's attacks, searches and controls as a whole; raise it with every change of them. An audit by
another battery is no evidence about these: its result file is refused."""
BLIND = "B0"
OUTLIERS = "/outliers"
"""Suffix of an attack's identifier where it was judged on the most isolated quartile of patients."""

OWN = "/own"
"""Suffix of an attack on a set of volumes where the set was painted from the patients' own label maps: that takes the
generator, and shows what a release of such volumes would betray (PRIVACY §1.2, §3.2)."""

WHITE_BOX = "A3-WB"
"""A3 by whoever holds the weights and searches all that they can paint. It takes long, so an audit is asked for it."""

LIRA, RMIA = "A2-LiRA", "A2-RMIA"
OF_SHADOWS = (LIRA, RMIA)
"""A2, by shadow generators. They take long to train, so an audit is asked for them, and no release needs them."""

ATTRIBUTE = "A10"
"""What a set tells of a patient beyond the images: asked for in every audit whose label maps show a difference."""

TRAJECTORY = "A8"
"""What the coordinator saw round by round: run where the sites kept it, told to each site, and gating no release."""

ATTACKS: dict[str, ThreatModel] = {
    "A1": "G",
    LIRA: "G",
    RMIA: "G",
    "A3": "S",
    "A3" + OWN: "G",
    WHITE_BOX: "W",
    "A4": "S",
    "A4" + OWN: "G",
    "A5": "S",
    "A5" + OWN: "G",
    "A6": "I",
    "A7": "S",
    TRAJECTORY: "F",
    ATTRIBUTE: "S",
    "A9": "S",
    "A9" + OWN: "G",
}
"""Attacks of an audit, numbered as in PRIVACY §3.2, and what each asks the attacker to hold."""
INSIDER = ("A6",)
"""Those that ask for a discriminator, which no release holds: run where one is at hand, and gating nothing."""
OF_COINS = ("A9", "A9" + OWN)
"""Those that put together the scores of the others of their threat model, to guess all coins at once."""
TESTS = (*ATTACKS, *(name + OUTLIERS for name in ATTACKS if name not in OF_COINS))
"""Every test of "no leak" in a whole audit: each attack on everybody, and all but guesses of all coins on the most
isolated quartile."""
_OUTSIDE = (*(name for name in TESTS if name.removesuffix(OUTLIERS) not in (*INSIDER, *OF_SHADOWS, TRAJECTORY)), BLIND)
REQUIRED_ATTACKS: dict[ReleaseKind, tuple[str, ...]] = {
    "volumes": tuple(name for name in _OUTSIDE if name.removesuffix(OUTLIERS) != WHITE_BOX),
    "weights": _OUTSIDE,
}
"""Without which nothing passes: weights are searched before they leave, volumes have none."""
COPIES_FOUND = "positive-copies"
"""The control of the searches for copies, whose silence says that nothing released repeats a patient."""
_CONTROLS = ("positive-model", "positive-set", COPIES_FOUND, "negative", "blind")
REQUIRED_CONTROLS: dict[ReleaseKind, tuple[str, ...]] = {
    "volumes": _CONTROLS,
    "weights": (*_CONTROLS, "positive-white-box"),
}
CANARY = "canary"
"""The control of a formal promise; asked of every audit of a generator that has one."""
SHADOWED = "positive-shadows"
"""The control of attacks by shadow generators; asked of every audit in which they gate the release."""


def required_controls(
    release: ReleaseKind, claimed_epsilon: float | None, run: Collection[str] = ()
) -> tuple[str, ...]:
    """Controls without which nothing passes, where these attacks were run."""
    shadows = any(name in run and ATTACKS[name] in BINDING[release] for name in OF_SHADOWS)
    return (
        *REQUIRED_CONTROLS[release],
        *(() if claimed_epsilon is None else (CANARY,)),
        *((SHADOWED,) if shadows else ()),
    )


FINDS_MEMORISER, FINDS_PLANTED, FINDS_INSIDE = "A1", "A3", "A6"
"""The attacks that a positive control asks to find a generator that learnt by heart, copies in the set, and a
discriminator that did. What is found by heart in a generator is found in its weights too, by ``WHITE_BOX``, and by
either attack of ``OF_SHADOWS``."""


def excused(not_applicable: Iterable[str]) -> set[str]:
    """What a release need not show where these attacks had nothing to ask: to be said of :data:`ATTRIBUTE` alone."""
    return {name + part for name in not_applicable if name == ATTRIBUTE for part in ("", OUTLIERS)}


@dataclass(frozen=True)
class AttackResult:
    """One attack's figures.

    Attributes:
        id: As PRIVACY §3.2 numbers attacks, with ``/own`` where the set was painted from own label maps, and
            ``/outliers`` for the isolated quartile.
        threat_model: What the attacker holds.
        auc: Stratified by site.
        auc_ci: Two-sided 95 %.
        lower95: One-sided 95 % lower bound of the AUC.
        upper95: One-sided upper bound of the AUC (U95): at 95 % in the first audit of a holdout, at 1 - 0.05 / k in
            audit k (``multiplicity``). B0's is at 95 % always: it judges the split, which no audit changes.
        p_value: One-sided, of the AUC: by permutations, and exact where coins are guessed. B0's two-sided one is read
            from ``auc_ci``.
        rejects: Whether Holm over the tests of every audit of this holdout rejects "no leak", by ``p_value`` or by
            ``no_false_alarm_p_value``.
        rejects_alone: Whether Holm over this audit's tests alone does. True wherever ``rejects`` is.
        tpr: At several false positive rates, 0 first; empty where they were not handed on.
        advantage: TPR - FPR at a threshold chosen on other patients.
        eps_lower_bound: ε refuted at 95 %, at that threshold, or by the number of coins guessed right.
        n_member: Members scored.
        n_holdout: Holdout patients scored.
        no_false_alarm_p_value: Exact p-value of as many members above every holdout patient; None where that is not
            tested: of the isolated quartile, and of B0.
    """

    id: str
    threat_model: ThreatModel
    auc: float
    auc_ci: tuple[float, float]
    lower95: float
    upper95: float
    p_value: float
    rejects: bool
    rejects_alone: bool
    tpr: tuple[TprAtFpr, ...]
    advantage: float
    eps_lower_bound: float
    n_member: int
    n_holdout: int
    no_false_alarm_p_value: float | None


@dataclass(frozen=True)
class ControlResult:
    """One control.

    Attributes:
        id: One of :func:`required_controls`, or ``positive-insider``.
        required: In words.
        got: In words and figures.
        ok: Whether ``got`` meets ``required``.
    """

    id: str
    required: str
    got: str
    ok: bool


@dataclass(frozen=True)
class CopiedLabels:
    """Released label maps that are a patient's own.

    Attributes:
        released: How many of them.
        member: Of these, how many are an audited member's.
        holdout: And how many a holdout patient's: no training brought those there.
    """

    released: int
    member: int = 0
    holdout: int = 0


@dataclass(frozen=True)
class AuditEvidence:
    """Everything the verdict depends on.

    Attributes:
        release: What is to be released.
        attacks: One result an attack and subgroup.
        controls: One result a control that could be run; a missing one is absent.
        n_member: Audited members.
        n_holdout: Holdout patients.
        negative_seeds: Generators trained for the negative control.
        target_steps: Steps that each site trained the generator under audit.
        control_steps: Steps of the reference generator and of the negative controls.
        confirmed_copies: Synthetic volumes that repeat a real patient's scan.
        copied_members: Audited members whose scan is repeated.
        copied_labels: Released label maps that are a patient's own.
        claimed_epsilon: The study's formal promise; None where there is none (``dp: none``).
        canary_excess: Whether a canary run showed more than was claimed.
        audit_number: This is audit k of this holdout.
        too_small: Attacks on a subgroup that was too small to score.
        not_applicable: Attacks that had nothing to ask.
        generator_named_by: Whose journal says that these patients' training made the generator; None where nobody's
            could be asked, as in a site's own folder with a generator that it received.
    """

    release: ReleaseKind
    attacks: tuple[AttackResult, ...]
    controls: tuple[ControlResult, ...]
    n_member: int
    n_holdout: int
    negative_seeds: int
    target_steps: int
    control_steps: int
    confirmed_copies: int
    copied_members: int = 0
    copied_labels: CopiedLabels = CopiedLabels(0)
    claimed_epsilon: float | None = None
    canary_excess: bool = False
    audit_number: int = 1
    too_small: tuple[str, ...] = ()
    not_applicable: tuple[str, ...] = ()
    generator_named_by: NamedBy | None = None
