"""What the law asks of a release, beside what this audit found of it: evidence for who decides, and no legal opinion.

The mapping is PRIVACY §5's: WP29 05/2014 (WP216), EDPB 28/2024, 45 CFR 164.514, EMA/90915/2016 with Health Canada.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...common.counted import counted
from ..audit.extract import AttackRow
from ..audit.judged_bound import judged_bound
from ..audit.small_cells import SMALL
from ..evidence import ATTRIBUTE, BLIND, OF_COINS, OF_SHADOWS, OUTLIERS, WHITE_BOX
from ..multiplicity import claim_confidence
from ..statistics import clopper_pearson
from .cells import Cells
from .content import ReleaseOutcome, ReportAudit
from .names import attack_name

_NO_AUDIT = "not run: there is no audit"


@dataclass(frozen=True)
class LegalRow:
    """One question of the law.

    Attributes:
        source: Who asks it.
        question: In plain words.
        rows: What on this page speaks to it.
        found: What stands there, part by part.
    """

    source: str
    question: str
    rows: str
    found: tuple[str, ...]


def legal_rows(audit: ReportAudit | None, release: ReleaseOutcome | None, cells: Cells) -> tuple[LegalRow, ...]:
    """The questions, in the order of PRIVACY §5; every figure is one of the audit's own."""
    copies = _copies(audit)
    return (
        LegalRow(
            "WP29 05/2014",
            "Singling out: can one person's record be picked out?",
            f"{_called(('A3', 'A7', 'A9'))}; searches for copies",
            (*_figures(audit, ("A3", "A7", "A9")), *copies),
        ),
        LegalRow(
            "WP29 05/2014",
            "Linkability: can records about one person be linked to each other?",
            f"{_called(('A1',))}; share of members copied",
            (*_figures(audit, ("A1",)), _copy_rate(audit, cells)),
        ),
        LegalRow(
            "WP29 05/2014",
            "Inference: can something about a person be deduced?",
            _called((ATTRIBUTE,)),
            tuple(_figures(audit, (ATTRIBUTE,))),
        ),
        LegalRow(
            "EDPB 28/2024",
            "How likely is it that a patient's data are extracted from the model directly?",
            f"{_called((WHITE_BOX,))}: of 20 steps from the patient's own label map, changing that and the coarse noise"
            " alone; whatever else can be drawn out of weights was not tried",
            tuple(_figures(audit, (WHITE_BOX,))),
        ),
        LegalRow(
            "EDPB 28/2024",
            "How likely is it that they are obtained by queries?",
            f"{_called(('A1', *OF_SHADOWS))}; searches for copies in what the generator painted",
            (*_figures(audit, ("A1", *OF_SHADOWS)), *copies),
        ),
        LegalRow(
            "EDPB 28/2024",
            "Is resistance to attacks documented?",
            "Attacks, controls and reasons; the audit's result file",
            _documented(audit),
        ),
        LegalRow(
            "EDPB 28/2024",
            "Weights and volumes are separate decisions: which is this?",
            "Why this verdict",
            _which(audit),
        ),
        LegalRow(
            "HIPAA, 45 CFR 164.514(b)(2)",
            "Safe Harbor: do the files hold one of its identifiers?",
            "Mechanical checks of the files: at packing, for dates, headers that are not empty, and identifiers known "
            "where it is packed; at each site's approval, for that site's own identifiers",
            (_checked(release),),
        ),
        LegalRow(
            "HIPAA, 45 CFR 164.514(b)(1)",
            "Expert Determination, by which synthetic data normally go: is the risk very small?",
            "The whole page, as evidence for the expert, who signs",
            ("not decided here: see ‘Decision and signature’",),
        ),
        LegalRow(
            "EMA policy 0070 and Health Canada",
            "Is the risk of re-identification at most 0.09? Asked of linkage alone, and of no AUC.",
            "Share of members copied; links short of a copy are not measured",
            (_copy_rate(audit, cells),),
        ),
    )


def _called(names: Iterable[str]) -> str:
    return ", ".join(f"{name} ({attack_name(name)})" for name in names)


def _figures(audit: ReportAudit | None, names: Iterable[str]) -> Iterator[str]:
    """Each attack on everybody and on unusual patients: volumes painted from own label maps are never released."""
    if audit is None:
        yield _NO_AUDIT
        return
    run = {attack.id: attack for attack in audit.attacks}
    for name in names:
        for test in (name,) if name in OF_COINS else (name, name + OUTLIERS):
            whom = " on unusual patients" if test.endswith(OUTLIERS) else ""
            if test in run:
                yield f"{name}{whom}: {_figure(run[test])}"
            elif test in audit.too_small:
                yield f"{name}{whom}: not scored, too few patients"
            elif name in audit.not_applicable:
                if not whom:
                    yield f"{name}: nothing to ask, {audit.not_applicable[name]}"
            elif not whom or name in run:
                yield f"{name}{whom}: not run"


def _figure(attack: AttackRow) -> str:
    if attack.auc is None:
        return "not told"
    bound = judged_bound(attack.auc_upper95)
    return f"AUC {attack.auc:.2f}" + (f", at most {bound}" if bound else "")


def _copies(audit: ReportAudit | None) -> tuple[str, ...]:
    if audit is None:
        return ()
    if audit.counts.get("synthetic") == 0:
        return ("copies: not run, no volume was painted",)
    if audit.confirmed_copies is None:
        return ("copies: not told",)
    told = [f"{counted(audit.confirmed_copies, 'synthetic volume')} found to repeat a patient's scan"]
    if audit.copied_labels is not None:
        told.append(f"{counted(audit.copied_labels.released, 'label map')} found to be a patient's own")
    return tuple(told)


def _copy_rate(audit: ReportAudit | None, cells: Cells) -> str:
    """Of members copied; the bound only where neither number is one that is not told."""
    if audit is None:
        return _NO_AUDIT
    if audit.counts.get("synthetic") == 0:
        return "share of members copied: not run, no volume was painted"
    copied, members = audit.copied_members, audit.counts.get("member")
    if copied is None:
        return "share of members copied: not told"
    if members == SMALL or cells.hides(members) or copied == SMALL or (copied and cells.hides(copied)):
        return "no member found copied" if copied == 0 else "members were found copied"
    if not isinstance(members, int) or not isinstance(copied, int) or members < 1:
        return "share of members copied: not told"
    confidence = claim_confidence(audit.audit_number or 1)
    upper = clopper_pearson(copied, members, 2 * confidence - 1)[1]
    most = audit.thresholds().linkage_upper_max
    limit = "" if most is None else f"; allowed in this audit: {most:.2f}"
    told = f"{copied} of {members} members found copied: a share of at most {upper:.3f}"
    return f"{told} ({100 * confidence:.5g} % confidence){limit}"


def _documented(audit: ReportAudit | None) -> tuple[str, ...]:
    if audit is None:
        return (_NO_AUDIT,)
    held = sum(control.ok is True for control in audit.controls)
    blind = "" if any(control.id == BLIND for control in audit.controls) else "; the blind baseline was not run"
    return (
        f"verdict {audit.verdict}",
        f"{counted(len(audit.attacks), 'test')} by attacks{blind}",
        f"{held} of {counted(len(audit.controls), 'control')} held",
    )


def _which(audit: ReportAudit | None) -> tuple[str, ...]:
    if audit is None:
        return (_NO_AUDIT,)
    other = "weights" if audit.release == "volumes" else "volumes"
    return (f"a release of {audit.release}: {audit.verdict}", f"of {other} this verdict says nothing")


def _checked(release: ReleaseOutcome | None) -> str:
    if release is None:
        return "not on this page: ‘fedphantom release pack’ and ‘release approve’ run them"
    if release.packed:
        return "nothing found, by what those checks look for: the release was packed"
    return "no release was packed: see its reasons"
