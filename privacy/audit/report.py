"""``audit run`` from paths, and its result as text for a terminal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...common.cohorts.check import check_cohort
from ...common.cohorts.layouts import read_cohort
from ...common.counted import counted
from ...common.errors import DataError
from ...common.keys import load_private_key
from ...common.output_place import refuse_used
from ..evidence import BINDING, BLIND, ReleaseKind
from ..multiplicity import claim_confidence
from ..policy import TIERS, ReleasePolicy, Tier, read_thresholds
from ..power import Power
from ..power_words import NO_SIZES, chance_of_a_pass, power_points
from ..report.plain import plainly
from ..synthetic_cohort import synthetic_of
from .course import duration
from .judged_bound import allowed, judged_bound
from .kept_findings import FINDINGS
from .kept_networks import CONTROLS
from .run import RESULT, SHADOWS, AuditSizes, Progress, audit_run_folder, verify_audit
from .signature import signature_text, signed_by

UNSIGNED = (
    "Nobody signs this audit: without --key no compliance officer can approve a release beyond the study by it, and"
    " another audit would count as one more look at this holdout."
)
"""Said before an audit by a tier whose releases leave the study."""


def audit_run_command(
    run: Path,
    policy: Path | None,
    out: Path | None,
    synthetic: Path | None,
    public: Path | None,
    kind: ReleaseKind,
    generator: Path | None,
    named_by: Path | None,
    sizes: AuditSizes,
    device: str,
    progress: Progress,
    say: Callable[[str], None],
    keys: Sequence[Path] = (),
) -> dict[str, Any]:
    """As :func:`~fedphantom.privacy.audit.run.audit_run_folder`, from the command line's paths.

    ``say`` is given, before the first training, what an audit of this size can show, and how long what was asked for
    beyond the ordinary will take; where an audit that was broken off goes on, what of it was found finished; that it is
    a further look at a holdout; and where nobody signs it though its tier asks for that, or none whom the study names.
    ``keys`` are files.

    Raises:
        DataError: ``run`` is no folder.
        FedPhantomError: as :func:`~fedphantom.privacy.audit.run.audit_run_folder`, or a file that cannot be used.
    """
    signing = [load_private_key(path) for path in keys]
    if not run.is_dir():
        raise DataError(
            "no run folder at the path given",
            expected="what 'fedphantom simulate' left, or a site's folder",
            remedy="Give the folder, not a file in it.",
        )
    folder = out or run / "audit"
    refuse_used(folder, RESULT, {"cache", CONTROLS, FINDINGS, SHADOWS})
    thresholds = read_thresholds(policy)
    made = synthetic or synthetic_of(run)
    if not keys and thresholds.tier != "internal":
        say(UNSIGNED)
    return audit_run_folder(
        run,
        made if made and made.is_dir() else None,
        check_cohort(read_cohort(public).public()).usable if public else None,
        folder,
        sizes,
        thresholds,
        kind,
        generator_file=generator,
        named_by_file=named_by,
        keys=signing,
        device=device,
        progress=progress,
        announce=lambda power: say(
            power_text(power, thresholds.tier, thresholds.min_holdout) + _beyond_reach(kind, sizes)
        ),
        estimate=lambda attack, seconds: say(f"{attack} will take about {duration(seconds)} by a first step."),
        begins=lambda number, finished: _say_number(number, finished, say),
        warn=say,
    )


def verified_text(result: Path, run: Path, generator: Path | None) -> str:
    """What ``audit verify`` found, in two sentences; raises as :func:`~fedphantom.privacy.audit.run.verify_audit`.

    Raises:
        SignatureInvalid: a signature of this result that does not hold.
    """
    content = verify_audit(result, run, generator)
    found = f"This audit (verdict {content['verdict']}) speaks of the generator in this run"
    if content.get("combined_from"):
        return f"{found}: the sites' officers signed what it combines."
    file = result / RESULT if result.is_dir() else result
    signatures = signed_by(hashlib.sha256(file.read_bytes()).hexdigest(), file.parent)
    return f"{found}, its sites' scans and this program.\n{signature_text(signatures)}"


def _say_number(number: int, finished: Sequence[str] | None, say: Callable[[str], None]) -> None:
    if finished is not None:
        say(going_on_text(number, finished))
    elif number > 1:
        say(further_text(number))


def further_text(number: int) -> str:
    """What a look at a holdout costs that was looked at before."""
    sure = f"{100 * claim_confidence(number):.4g} %"
    return (
        f"Audit {number} of this holdout, a further one: it counts for good, and its claims have to hold at {sure}."
        " One that is broken off goes on, and one that is finished is shown by 'fedphantom audit show'."
    )


def going_on_text(number: int, finished: Iterable[str]) -> str:
    """Which audit goes on, and what of it was found finished: by network its attacks, of a search its volumes."""
    of: dict[str, list[str]] = {}
    for name in finished:
        network, _, what = name.partition(": ")
        of.setdefault(network, []).append(what)
    lines = [f"Going on with audit {number} of this holdout, which was broken off; it counts once."]
    lines += [f"  - found finished, {network}" + f": {', '.join(parts)}" * any(parts) for network, parts in of.items()]
    return "\n".join([*lines, *(["  - no attack was found finished"] if not of else [])])


def _beyond_reach(kind: ReleaseKind, sizes: AuditSizes) -> str:
    if kind == "volumes" or sizes.white_box:
        return ""
    return "\nA PASS of weights is out of reach without a search of them: --white-box makes one."


def power_text(power: Power, tier: Tier, min_holdout: int) -> str:
    """What an audit of this size can show, to be read before it runs and beside its result (PRIVACY §3.4)."""
    points = ";\n".join(f"  - {point}" for point in power_points(power))
    heading = f"{power.n_member} members against {power.n_holdout} holdout patients. What this many can show:"
    chance = chance_of_a_pass(power, tier, min_holdout)
    return f"{heading}\n{points}." + (f"\n{chance}" if chance else "")


def combined_power_text(power: Power | None, policy: ReleasePolicy, audits: int) -> str:
    """What several sites' audits of these sizes can show together, to be read before they are combined."""
    heading = (
        f"{counted(audits, 'audit')} to be combined; patients of a site that may not tell its number count as none.\n"
    )
    if power is None:
        return heading + NO_SIZES
    return heading + power_text(power, policy.tier, policy.min_holdout)


def stored_text(content: Mapping[str, Any]) -> str:
    """As :func:`audit_text`, of a file that anybody may have written.

    Raises:
        DataError: a part of it that no audit leaves so.
    """
    try:
        return audit_text(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise DataError(
            "an audit result that cannot be shown",
            expected="the result file as 'fedphantom audit run' left it",
            remedy="Give that file, or run the audit again.",
        ) from None


def audit_text(result: Mapping[str, Any]) -> str:
    """Verdict, reasons, attacks and controls for a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=StringIO(), width=110)
    console.print(f"Verdict: {result['verdict']} (tier {result.get('tier', '?')})", highlight=False)
    for reason in result.get("reasons", []):
        console.print(f"  - {plainly(reason)}", highlight=False, markup=False)
    for line in _power_lines(result):
        console.print(line, highlight=False, markup=False)
    confidence = f"{100 * claim_confidence(result.get('audit_number') or 1):.5g} %"
    judged = f"bound judged ({confidence}, one-sided)"
    attacks = Table(
        "attack", "threat model", "AUC [95 % interval]", judged, "allowed", "TPR at 0 FP", "ε at least", "p"
    )
    for a in result["attacks"]:
        low, high = a["auc_ci"] or (None, None)
        auc = f"{_figure(a['auc'], 3)} [{_figure(low, 3)}, {_figure(high, 3)}]"
        epsilon, p = _figure(a["eps_lower_bound"], 2), _figure(a["p_value"], 3)
        bound = judged_bound(a.get("auc_upper95")) or "-"
        named = _no_false_alarm(a)
        attacks.add_row(a["id"], str(a["threat_model"]), auc, bound, _allowed(a, result), named, epsilon, p)
    sites = Table(
        "attack", "site", "members", "holdout", "AUC [95 % interval]", title="By site: shown, decides nothing"
    )
    for f in result.get("by_site", []):
        low, high = f["auc_ci"]
        auc = f"{_figure(f['auc'], 3)} [{_figure(low, 3)}, {_figure(high, 3)}]"
        sites.add_row(f["attack"], f["site"], str(f["n_member"]), str(f["n_holdout"]), auc)
    controls = Table("control", "required", "got", "holds")
    for c in result["controls"]:
        controls.add_row(c["id"], c["required"], c["got"], "yes" if c["ok"] else "NO")
    console.print(attacks)
    if result.get("audit_number", 1) > 1:
        console.print(f"The bound of {BLIND} is at 95 % in every audit.", highlight=False)
    means = result.get("epsilon_means")
    if means:
        console.print(
            f"ε: {means['kind']}; δ = {means['delta']:.2g}, unit {means['unit']}, adjacency: {means['adjacency']}.",
            highlight=False,
        )
    if sites.row_count:
        console.print(sites)
    console.print(controls)
    for name, why in result.get("not_applicable", {}).items():
        console.print(f"Nothing to ask for {name}: {why}.", highlight=False)
    if result.get("too_small"):
        few = ", ".join(result["too_small"])
        console.print(f"Note: not scored, since too few patients are that isolated: {few}.", highlight=False)
    if sites_together := result.get("combined_from"):
        counts = result["counts"]
        console.print(
            f"Combined from the signed audits of {counted(len(sites_together), 'site')}:"
            f" {counts.get('member', '<20')} members against {counts.get('holdout', '<20')} holdout patients in all.",
            highlight=False,
        )
    stand_in = result.get("reference_stands_in")
    if stand_in:
        console.print(f"Note: {stand_in}.", highlight=False)
    console.print(_turn(result), highlight=False)
    assert isinstance(console.file, StringIO)  # noqa: S101  # made so above
    return console.file.getvalue().rstrip()


def _power_lines(result: Mapping[str, Any]) -> Sequence[str]:
    """What its size could show; nothing where the result does not say."""
    if "power" not in result:
        return ()
    if result["power"] is None:
        return (NO_SIZES,)
    try:
        power = TypeAdapter(Power).validate_python(result["power"])
        tier = TypeAdapter[Tier](Tier).validate_python(result["tier"])
        least = TypeAdapter(int).validate_python(_thresholds(result)["min_holdout"])
    except (ValidationError, KeyError, TypeError):
        raise DataError(
            "an audit result whose 'power' cannot be shown",
            expected="the result file of 'fedphantom audit run' or 'audit combine'",
            remedy="Give that file, or run the audit again.",
        ) from None
    return power_text(power, tier, least).split("\n")


def _allowed(attack: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What the attack's bound is held against; a dash where the result does not say for which release."""
    if result.get("release") not in BINDING:
        return "-"
    policy = _thresholds(result)
    whole, isolated = policy["auc_upper_max"], policy["outlier_auc_upper_max"]
    return allowed(attack["id"], attack["threat_model"], result["release"], whole, isolated)


def _thresholds(result: Mapping[str, Any]) -> dict[str, Any]:
    """Those that it says it was judged by, and its tier's where it says nothing."""
    return asdict(TIERS[result["tier"]]) | (result.get("policy") or {})


def _turn(result: Mapping[str, Any]) -> str:
    """Which audit of the holdout this was, and what that does to its figures."""
    number = result.get("audit_number", 1)
    if number == 1:
        return "Audit 1 of this holdout."
    return (
        f"Audit {number} of this holdout: a find has to stand among the p-values of all {number}, and 'no leak above τ'"
        f" is held against an upper bound at {100 * claim_confidence(number):.5g} %."
    )


def _no_false_alarm(attack: Mapping[str, Any]) -> str:
    """The share of members named without naming one holdout patient."""
    rows = [row["tpr"] for row in attack["tpr"] or () if row["fpr"] == 0]
    return _figure(rows[0] if rows else None, 2)


def _figure(value: float | None, digits: int) -> str:
    """A release's audit does not tell every figure of a small group."""
    return "-" if value is None else f"{value:.{digits}f}"
