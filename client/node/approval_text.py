"""What a site engineer reads before approving: the study, what leaves each round, who takes part, what changed."""

from __future__ import annotations

from ...common.counted import counted
from ...common.masking.threshold import helpers_borne
from ...common.site_folder import SiteFolder, site_material
from ...common.study import Study
from ...privacy.study_summary import study_text
from ..budget_outlook import site_outlook
from ..secure_reply import PUBLIC_METRICS
from ..site_setup import LEDGER_WITHIN, NAME_ANOTHER, read_egress_rule
from .approval import Proposal, propose


def proposal_of(folder: SiteFolder) -> Proposal:
    """What stands to be approved; the cohort is looked through and prepared, for its limits are about it.

    Raises:
        FedPhantomError: as :func:`propose` and :func:`site_material`.
    """
    patients = len(site_material(folder, folder.study()).coins.training_patients())
    return propose(folder, patients=patients, reply_bytes=read_egress_rule(folder).max_bytes)


def proposal_text(folder: SiteFolder, proposal: Proposal) -> str:
    """The proposal in plain words; its last line is what :func:`approve` wants repeated."""
    rule, study, membership = read_egress_rule(folder), proposal.study, proposal.membership
    rounds, steps = study.training.rounds, study.training.local_steps
    others = [name for name in sorted(membership.fingerprints) if name != folder.name]
    weights = (
        f"{counted(len(rule.generator.shapes), 'array')}, {rule.generator.values:,} numbers of the generator"
        if rule.generator.shapes
        else "no weights"
    )
    terms, metrics, masked = study.federation.secure_aggregation, rule.metrics, ""
    if terms:
        fewest = max(proposal.limits.sites, terms.threshold)
        metrics = tuple(name for name in rule.metrics if name in PUBLIC_METRICS)
        sites = len(membership.fingerprints)
        fewest_sites, all_sites = counted(fewest, "site"), counted(sites, "site")
        masked = (
            f" as whole numbers under masks, which come off the sum of {fewest_sites} or more alone, while no more than"
            f" {helpers_borne(sites, terms.threshold)} of the {all_sites} help the coordinator"
        )
    rows = [
        study_text(study),
        *ledger_rows(folder, study),
        "",
        f"Each of {counted(rounds, 'round')} the coordinator sees of '{folder.name}': {weights}{masked}"
        f" ({rule.max_bytes / 1e6:.2f} MB at most), the declared weight {rule.weight:g}, and"
        f" {', '.join(metrics)}. Where a round fails it sees one fixed sentence. It also"
        " sees when this site answers, and how fast.",
        f"This machine trains {counted(steps, 'step')} a round and runs what is installed here alone: FedPhantom"
        f" {proposal.seen.version}, code {proposal.seen.code[:16]}. Whatever else the coordinator sends with the run"
        " than this study's name and digest is refused.",
        "",
        "Sites that take part; read each fingerprint to its owner:",
        *(
            f"  {name:<{max(map(len, membership.fingerprints))}}  {membership.fingerprints[name]}"
            + ("  (this site)" if name == folder.name else "")
            for name in [folder.name, *others]
            if name in membership.fingerprints
        ),
        "",
        *_changes(proposal.changes),
        "To approve exactly this, repeat its words:",
        f"  fedphantom site approve {folder.root} --seen {proposal.seen.word()}",
    ]
    return "\n".join(rows)


def ledger_rows(folder: SiteFolder, study: Study) -> tuple[str, ...]:
    """Where what the study's patients spend is written down, and whether they have enough left for it; nothing where
    nothing is promised.

    Raises:
        VerificationFailed, PolicyRefused, DataError: as :func:`.budget_outlook`.
    """
    if study.privacy.promise is None:
        return ()
    left = site_outlook(folder, study)
    goes_on = "Where it is spent, the study goes on without this site."
    return (
        "",
        f"{LEDGER_WITHIN}. {NAME_ANOTHER}" if folder.ledger_within else f"Privacy ledger: {folder.ledger}",
        f"Privacy budget of this site's patients: {left}. {goes_on if left.short else ''}".rstrip(),
    )


def _changes(changes: tuple[str, ...] | None) -> tuple[str, ...]:
    if changes is None:
        return ()
    if not changes:
        return ("Nothing has changed since it was approved last.", "")
    return ("Since it was approved last:", *(f"  - {change}" for change in changes), "")
