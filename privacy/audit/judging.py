"""An attack's scores judged: figures, intervals, and whether Holm rejects (PRIVACY §3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...common.randomness import numpy_generator
from ..attacks.coin_guesses import right_guesses
from ..attacks.interface import AttackScores
from ..evidence import OF_COINS, OUTLIERS, AttackResult
from ..intervals import auc_interval, epsilon_by_halves, permutation_p_value
from ..multiplicity import PValues, claim_confidence, finest_permutations, rejecting
from ..one_run import one_run_epsilon, one_run_p_value
from ..statistics import Floats, no_false_alarm_p_value, null_standard_error, tpr_at_fpr

FALSE_POSITIVE_RATES = (0.0, 0.001, 0.01, 0.1)

SMALLEST_SUBGROUP = 5
"""Fewest members, and fewest holdout patients, of a subgroup whose attack is scored: below, an AUC says nothing."""


def with_outliers(whole: Iterable[AttackScores], outliers: Sequence[str]) -> tuple[list[AttackScores], tuple[str, ...]]:
    """Attacks on everybody, then on the most isolated quartile, and those of the latter that are too small.

    Args:
        whole: On everybody.
        outliers: Patients of the quartile.

    Returns:
        What is to be judged, and the identifiers of the attacks on the quartile that are not.
    """
    everybody = list(whole)
    isolated = [
        replace(attack.of(outliers), id=attack.id + OUTLIERS) for attack in everybody if attack.id not in OF_COINS
    ]
    too_small = tuple(attack.id for attack in isolated if attack.smaller_side() < SMALLEST_SUBGROUP)
    return [*everybody, *(attack for attack in isolated if attack.id not in too_small)], too_small


@dataclass(frozen=True)
class SiteFigure:
    """One attack at one site: shown, and deciding nothing; the pooled figures compare within sites already.

    Attributes:
        attack: Its identifier.
        site: The site's name: it stays with the result, and leaves in no extract of it.
        auc: Of the site's patients alone.
        auc_ci: Two-sided 95 %.
        n_member: The site's members.
        n_holdout: The site's holdout patients.
    """

    attack: str
    site: str
    auc: float
    auc_ci: tuple[float, float]
    n_member: int
    n_holdout: int


def at_each_site(whole: Iterable[AttackScores], seed: int) -> tuple[SiteFigure, ...]:
    """Each attack at each site that has enough of both sides."""
    out = []
    for attack in whole:
        for site in sorted(set(attack.sites)):
            there = attack.of([p for p, s in zip(attack.patients, attack.sites, strict=True) if s == site])
            if there.smaller_side() >= SMALLEST_SUBGROUP:
                scores = there.scores()
                found = auc_interval(scores, numpy_generator(seed, "at a site", attack.id, site))
                figure = SiteFigure(attack.id, site, found.auc, found.ci, scores.n_member, scores.n_holdout)
                out.append(figure)
    return tuple(out)


def judge(attack: AttackScores, seed: int, delta: float, audit_number: int = 1) -> AttackResult:
    """An attack's figures in audit k of a holdout, before Holm says whether it rejects.

    Each attack draws by its own name: how many others ran before it changes nothing of what it finds.
    """
    rng = numpy_generator(seed, "judging", attack.id)
    scores = attack.scores()
    interval = auc_interval(scores, rng, claim=claim_confidence(audit_number))
    halves = epsilon_by_halves(scores, rng, delta)
    p_value = permutation_p_value(scores, rng, finest=finest_permutations(audit_number))
    epsilon = halves.epsilon
    if attack.guesses:
        right, coins = right_guesses(attack), len(attack.patients)
        p_value = one_run_p_value(right, attack.guesses, coins)
        epsilon = one_run_epsilon(right, attack.guesses, coins, delta)
    return AttackResult(
        id=attack.id,
        threat_model=attack.threat_model,
        auc=interval.auc,
        auc_ci=interval.ci,
        lower95=interval.lower95,
        upper95=interval.upper95,
        p_value=p_value,
        rejects=False,
        rejects_alone=False,
        tpr=tuple(tpr_at_fpr(scores, rate) for rate in FALSE_POSITIVE_RATES),
        advantage=halves.advantage,
        eps_lower_bound=epsilon,
        n_member=scores.n_member,
        n_holdout=scores.n_holdout,
        no_false_alarm_p_value=None if attack.id.endswith(OUTLIERS) else no_false_alarm_p_value(scores),
    )


def with_rejections(judged: Sequence[AttackResult], earlier: Sequence[PValues | None]) -> list[AttackResult]:
    """The same figures, and whether Holm rejects: over all audits of the holdout, and over this one alone."""
    flags = rejecting(judged, earlier)
    return [replace(attack, rejects=flags[attack.id][0], rejects_alone=flags[attack.id][1]) for attack in judged]


def judge_blind(attack: AttackScores, null: Floats, seed: int, delta: float) -> AttackResult:
    """B0's figures, its intervals widened by as much as its null spreads wider than Mann-Whitney's formula says."""
    plain = judge(attack, seed, delta)
    factor = max(1.0, float(null.std()) / null_standard_error(attack.scores()))

    def widened(bound: float) -> float:
        return min(1.0, max(0.0, plain.auc + factor * (bound - plain.auc)))

    return replace(
        plain,
        auc_ci=(widened(plain.auc_ci[0]), widened(plain.auc_ci[1])),
        lower95=widened(plain.lower95),
        upper95=widened(plain.upper95),
        p_value=float((1 + (null >= plain.auc).sum()) / (1 + len(null))),
        no_false_alarm_p_value=None,
    )
