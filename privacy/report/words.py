"""What the report says in words that need no statistics: verdict, what is missing, limits, terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ...common.counted import counted
from ...common.study import Study
from ..audit.extract import AttackRow, Cell, TprRow
from ..audit.judged_bound import allowed
from ..audit.small_cells import SMALL
from ..evidence import BINDING, BLIND, OF_COINS, OUTLIERS, REQUIRED_ATTACKS, WHITE_BOX, excused, required_controls
from ..finding import NOTHING_SUCCEEDED, beyond, finding
from ..multiplicity import claim_confidence
from ..power import power
from ..verdict import MIN_HOLDOUT
from .cells import Cells
from .content import ReportAudit
from .names import attack_name, attacker_holds, control_name

EMA_0070 = 0.09
"""Threshold for the risk of re-identification in EMA/90915/2016, on Policy 0070."""


@dataclass(frozen=True)
class Headline:
    """The verdict as the page opens with it.

    Attributes:
        word: The outcome, or ``NO AUDIT``.
        sign: A sign beside it, so that colour is not needed.
        sentence: What it means.
        more: What follows from it, and what does not.
    """

    word: str
    sign: str
    sentence: str
    more: str


_HEADLINES = {
    "PASS": Headline(
        "PASS",
        "✓",
        "No attack tested succeeded.",
        "The controls showed that these attacks find the leaks planted for them, and nothing where there is none. This "
        "is evidence and not proof: an attack that nobody has tried may still succeed.",
    ),
    "INCONCLUSIVE": Headline(
        "INCONCLUSIVE",
        "?",
        "The audit neither found a leak nor ruled one out.",
        "Treat the generator as if it could give patients away until an audit says more.",
    ),
    "INVALID": Headline(
        "INVALID",
        "!",
        "The audit proves nothing, in either direction.",
        "The two groups of patients differ, or seem to, for reasons that have nothing to do with the generator, so the "
        "comparison between them is not fair. Treat the generator as if it could give patients away.",
    ),
    "FAIL": Headline(
        "FAIL",
        "✗",
        "The audit found a leak.",
        "What this generator makes can give away whose scans it was trained on. It must not leave in this form.",
    ),
}

_NO_AUDIT = Headline(
    "NO AUDIT",
    "–",
    "No audit was run.",
    "Nothing is known about what this generator gives away of the patients it was trained on.",
)


def worth_beyond_public(synthetic: float, synthetic_low: float, public: float) -> str:
    """What the federation gave that nobody had: synthetic volumes against the public patients' own scans.

    Args:
        synthetic: Mean Dice of the segmenter that synthetic volumes trained.
        synthetic_low: Lower end of its interval.
        public: Mean Dice of the segmenter that the public patients' scans trained.
    """
    if synthetic <= public:
        return (
            "The public patients' own scans, which anyone has without the hospitals, did at least as well as the"
            " synthetic volumes: for this use the hospitals' training has given nothing that was not public."
        )
    if synthetic_low <= public:
        return (
            "The synthetic volumes did better than the public patients' own scans, which anyone has without the"
            " hospitals, by no more than other patients might have moved the figure."
        )
    return (
        "The synthetic volumes did better than the public patients' own scans, which anyone has without the hospitals."
    )


def headline(audit: ReportAudit | None) -> Headline:
    """What the page opens with; a PASS says no more of the attacks than their figures do."""
    if audit is None:
        return _NO_AUDIT
    found, told = _HEADLINES[audit.verdict], finding(audit.attacks, audit.release)
    if audit.verdict == "PASS":
        return replace(found, sentence=told)
    if audit.verdict == "INCONCLUSIVE" and told != NOTHING_SUCCEEDED:
        return replace(found, sentence=f"The audit did not rule a leak out, and it found signs of one. {told}")
    return found


def beyond_release(audit: ReportAudit) -> tuple[str, ...]:
    """Attacks that recognise members, but need more than this release gives away."""
    return tuple(
        f"Attack {attack.id} ({attack_name(attack.id)}) does recognise members: {_strength(attack)}. "
        f"It needs {attacker_holds(attack.threat_model)}, which a release of {audit.release} "
        "does not give away. Whoever holds that holds this risk."
        for attack in audit.attacks
        if attack in beyond(audit.attacks, audit.release)
    )


def not_asked(audit: ReportAudit) -> tuple[str, ...]:
    """Attacks that had nothing to ask, and why."""
    return tuple(
        f"Attack {name} ({attack_name(name)}) had nothing to ask: {why}." for name, why in audit.not_applicable.items()
    )


def _strength(attack: AttackRow) -> str:
    if attack.auc is None:
        return "its AUC is not told"
    least = attack.auc_ci[0] if attack.auc_ci else None
    return f"AUC {attack.auc:.2f}" + ("" if least is None else f", at least {least:.2f}")


def needed(audit: ReportAudit, cells: Cells) -> tuple[str, ...]:
    """What a next audit would need to say more; empty where the verdict is not INCONCLUSIVE."""
    return tuple(_needed(audit, cells)) if audit.verdict == "INCONCLUSIVE" else ()


def _needed(audit: ReportAudit, cells: Cells) -> Iterator[str]:
    policy = audit.thresholds()
    holdout = audit.counts.get("holdout")
    wanted = max(policy.min_holdout, MIN_HOLDOUT)
    if holdout == SMALL or (isinstance(holdout, int) and holdout < wanted):
        yield f"At least {wanted} holdout patients for the tier '{audit.tier}'; this audit had {cells.number(holdout)}."
    have = {control.id: control.ok for control in audit.controls}
    tried = {attack.id for attack in audit.attacks}
    for name in required_controls(audit.release, audit.claimed_epsilon, tried):
        if name not in have:
            yield f"The control '{control_name(name)}', which was not run."
        elif not have[name]:
            yield f"The control '{control_name(name)}' to hold; in this audit it did not."
    done = {attack.id for attack in audit.attacks}
    if audit.too_small:
        yield f"More patients: too few were unusual enough to score {_named(audit.too_small)}."
    told = set() if "blind" in have else {BLIND}  # the control is the baseline
    shown = {*done, *told, *audit.too_small, *excused(audit.not_applicable)}
    if absent := [name for name in REQUIRED_ATTACKS[audit.release] if name not in shown]:
        yield f"Attacks that were not run: {_named(absent)}."
    if WHITE_BOX in absent:
        yield (
            "A search of the weights: 'fedphantom audit run --kind weights --white-box' makes it on a generator that "
            "paints. It takes long, so it has to be asked for."
        )
    tau = policy.auc_upper_max
    binding = [attack for attack in audit.attacks if is_binding(attack, audit)]
    judged = [*binding, *(attack for attack in audit.attacks if attack.id == BLIND)]
    if tau is not None and any(a.auc_upper95 is not None and a.auc_upper95 > tau for a in judged):
        patients = _patients_for(binding, tau, policy.outlier_auc_upper_max)
        yield (
            f"More patients, so that the bounds that are judged come to lie below {tau:.2f}: for "
            f"{counted(len(binding), 'test')} of attacks that find nothing, roughly {patients} members and {patients}"
            " holdout patients give a chance of 80 %."
        )
    if any("Reduced audit" in reason for reason in audit.reasons):
        yield "The full set of control generators; this audit trained fewer, to save time."


def _named(attacks: Iterable[str]) -> str:
    return "; ".join(f"{name} ({attack_name(name)})" for name in attacks)


def _patients_for(binding: Iterable[AttackRow], tau: float, outlier_tau: float | None) -> int:
    """On each side; the blind baseline is held to the same limit, and the isolated quartile to its own."""
    whole = sum(not attack.id.endswith(OUTLIERS) and attack.id not in OF_COINS for attack in binding)
    n = MIN_HOLDOUT
    while n < 5000 and (power(n, n, 1 + whole, tau, outlier_tau=outlier_tau).joint_power or 0) < 0.8:
        n += 5
    return n


def is_binding(attack: AttackRow, audit: ReportAudit) -> bool:
    """Whether this attack decides about this kind of release."""
    return attack.threat_model in BINDING[audit.release]


def limit(attack: AttackRow, audit: ReportAudit) -> str:
    """How large this attack's AUC may be at its one-sided upper bound; the blind baseline is held to one too."""
    policy = audit.thresholds()
    return allowed(attack.id, attack.threat_model, audit.release, policy.auc_upper_max, policy.outlier_auc_upper_max)


def linkage(audit: ReportAudit) -> str:
    """The bound on copied members, and where it comes from: EMA's figure speaks of linkage and of nothing else here."""
    most = audit.thresholds().linkage_upper_max
    if most is None:
        return ""
    source = (
        " It is EMA policy 0070's 0.09 for the risk of re-identification,"
        if most == EMA_0070
        else " The site changed it from EMA policy 0070's 0.09 for the risk of re-identification,"
    )
    return (
        "Linkage: at most so many members may have a scan copied in the set, at the one-sided upper bound:"
        f" {most:.2f}.{source} used for linkage alone: no AUC is held against it."
        " Links short of a copy are not measured."
    )


def group(attack: AttackRow, cells: Cells) -> str:
    """On how many patients an attack was judged; empty where the audit does not say."""
    members, holdout = attack.n_member, attack.n_holdout
    if members is None or holdout is None:
        return ""
    told = f"on {_number(members, 'member', cells)} and {_number(holdout, 'holdout patient', cells)}"
    few = any(side == SMALL or (isinstance(side, int) and side < MIN_HOLDOUT) for side in (members, holdout))
    return told + (": too few for its figures to mean anything" if few else "")


def _number(number: Cell, what: str, cells: Cells) -> str:
    return f"{cells.number(number)} {what}" + ("" if cells.number(number) == "1" else "s")


def rounds_small_groups(audit: ReportAudit) -> bool:
    """Whether figures of fewer than twenty patients are told roughly on this page."""
    return any(SMALL in (attack.n_member, attack.n_holdout) for attack in audit.attacks)


def holds_with(audit: ReportAudit) -> str:
    """Confidence of the upper bounds that are held against the limits."""
    return f"{100 * claim_confidence(audit.audit_number or 1):.5g} %"


def count(audit: ReportAudit, name: str) -> int | None:
    """A whole number among the audit's counts."""
    value = audit.counts.get(name)
    return value if isinstance(value, int) else None


COUNTS = {
    "reference": "reference patients (whom the attacker knows: they set the attacks up)",
    "control": "control patients (for generators that never saw the members)",
    "member": "members",
    "holdout": "holdout patients",
    "training": "patients trained on, but scored by no attack",
    "synthetic": "synthetic volumes",
}
"""Names of the audit's counts that would else read oddly."""

NOT_PATIENTS = {"sites", "synthetic"}
"""Counts of something else."""


def no_false_alarm(attack: AttackRow) -> TprRow | None:
    """The true positive rate without a single false alarm, where the audit reports one."""
    rows = attack.tpr if isinstance(attack.tpr, tuple) else ()
    return next((row for row in rows if row.fpr == 0), None)


METRICS = {
    "fake_mean": "Mean brightness of a synthetic volume",
    "fake_std": "Contrast (standard deviation of brightness) of a synthetic volume",
}
"""Metrics of a round worth a curve."""

_COORDINATOR = (
    "The coordinator during training. Each round the generator's weights go to the study's coordinator, who could "
    "try to learn from them. That is a threat of its own, called F; it was tried only where the table of attacks lists "
    "it."
)
_COORDINATOR_OF_SUMS = (
    "Training with secure aggregation. Each round the study's coordinator, and every site, learns the sum of the "
    "sites' updates, and could try to learn from that. A single site's update it learns only if other sites help it. "
    "Secure aggregation promises nothing about what the sum, or the finished generator, tells of a patient."
)


def limits(study: Study) -> tuple[str, ...]:
    """What a page about a study's generator must not be read to promise."""
    coordinator = _COORDINATOR_OF_SUMS if study.federation.secure_aggregation else _COORDINATOR
    return (*_LIMITS[:2], coordinator, *_LIMITS[2:])


_LIMITS = (
    "Attacks that were not tried. New attacks are published every year.",
    "Other releases. The verdict speaks of this generator and of this kind of release, not of the next training run.",
    "Audits elsewhere. The sites' journals count how often these holdout patients were audited in their own folders. "
    "An audit in a copy of a folder, or in another run with the same patients, is not among them: whoever tried "
    "several and shows the best shows too much.",
    "The blind baseline's own uncertainty. That it could reach a higher AUC than the tier allows makes an audit "
    "inconclusive, and not invalid: so few patients cannot show that the two groups are alike, nor that they differ.",
    "Everything that could be drawn out of the weights. The search of the weights tries small steps from a patient's "
    "own label map, and on the generators it was tested with found members no better than its start.",
    "What is true of a whole hospital, such as how common a disease is there. The audit asks about single patients.",
    "Very unusual patients. They are easier to recognise than others, and the attacks on unusual patients cover only a "
    "few of them.",
    "Medical truth. A synthetic volume shows nobody: it is no basis for a diagnosis, and an illness that the "
    "training patients did not have is not in it.",
)

TERMS = (
    ("generator", "Generator", "The neural network that turns a label map into an MRI volume."),
    ("labelmap", "Label map", "A drawing of which voxel (3-D pixel) belongs to which structure."),
    ("synthetic", "Synthetic volume", "An MRI volume that the generator made; no such person was scanned."),
    ("round", "Round", "Each site trains on its own scans; the coordinator averages the sites' generators."),
    ("member", "Member", "A patient whose scans trained the generator."),
    (
        "holdout",
        "Holdout patient",
        "A patient of the same hospitals, set aside by a coin flip before training: a stranger.",
    ),
    (
        "auc",
        "AUC",
        "How often an attack ranks a member above a stranger: 0.5 is a coin flip, 1.0 is always.",
    ),
    (
        "interval",
        "95 % interval",
        "A range drawn so that it misses the true value in at most about 5 of 100 such audits; fewer patients make it "
        "wider.",
    ),
    (
        "roc",
        "ROC curve",
        "For every degree of caution of an attacker: the share of members named rightly against that of strangers "
        "named wrongly.",
    ),
    (
        "tpr0",
        "Named without false alarm",
        "The share of members an attack names before it names the first stranger wrongly. Chance names some too: its p "
        "says how often as many.",
    ),
    (
        "pvalue",
        "p",
        "How often mere chance would make an attack look at least this good if there were no leak: 0.04 is 4 times in "
        "100.",
    ),
    (
        "epsilon",
        "ε (epsilon)",
        "The measure of differential privacy; smaller is safer. The lower bound in the table is what an attack proved: "
        "no promise below it could be true.",
    ),
    (
        "dp",
        "Differential privacy",
        "A mathematical promise to each patient: whatever anybody can do with the generator, they could do almost as "
        "well had this patient stayed away.",
    ),
    (
        "delta",
        "δ (delta)",
        "The probability with which a promise of ε may be broken altogether; it has to be very small.",
    ),
    (
        "ledger",
        "Ledger",
        "A site's book of what its patients' privacy was spent on. Each line holds the hash of the one before it, so "
        "that none can be changed or taken out unseen.",
    ),
    (
        "holm",
        "Holm",
        "A correction for trying many attacks: who tries often enough finds something by chance.",
    ),
    (
        "step",
        "Step, epoch",
        "A step is one adjustment of the network; an epoch is as many as it takes to see every scan once.",
    ),
    ("seed", "Seed", "A number that fixes all chance in a training; several seeds show how much chance does."),
    (
        "procedural",
        "Procedural patient",
        "A stand-in computed from a public brain atlas; no person was scanned. Who is not known to be one is real.",
    ),
    ("segmentation", "Segmentation network", "A neural network that outlines structures in a scan."),
    ("dice", "Dice", "How well two outlines agree: 1 is identical, 0 is no overlap."),
    ("ema", "Moving average", "The released generator is an average over the rounds, the last ones weighing most."),
)
