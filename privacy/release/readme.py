"""The page inside a release that says in plain words what it is and what it is not."""

from __future__ import annotations

from collections.abc import Iterable

from ...common.counted import counted
from ...common.labels.chain import LabelSource
from ..approving_site import ApprovingSite, Override
from ..dp.statement import NONE
from ..finding import NOTHING_SUCCEEDED
from ..label_making import LabelMaking
from ..statement import ReleasePredicate, unlicensed

NOT_FOR_SHARING = "not approved for sharing outside"
"""Marks every release whose audit is not a PASS for a tier beyond internal."""

_KINDS = {
    "volumes": "synthetic MRI volumes with their label maps, in `cohort/` (BIDS). No network weights are in it",
    "weights": "a generator of synthetic MRI volumes, `generator.safetensors`",
}
_MEASURED = {
    "arms": "what the volumes are worth for training segmenters",
    "shin": "what they are worth in the Shin protocol",
    "fidelity": "how near they come to scans of patients",
}
MEANT_FOR = {
    "internal": "use inside the study",
    "controlled": "controlled access: named researchers under an agreement",
    "public": "publication",
}
"""Whom each tier is meant for."""


def render_readme(predicate: ReleasePredicate) -> str:
    """Markdown text of the release's ``README.md``."""
    sources = "\n".join(dict.fromkeys(map(cited, predicate.label_sources)))
    return f"""# FedPhantom release

{_headline(predicate)}

This folder holds {_KINDS[predicate.kind]}. Nothing in it is a scan of a patient: images and label
maps were made by a generator, from public label maps.

## What is known about privacy

- Audit verdict: **{predicate.audit.verdict}**, judged by the thresholds for *{predicate.audit.tier}*.
  {_verdict(predicate)}
- Formal guarantee: {_promise(predicate)}
- The generator was trained on patients' scans. That attacks failed, where they did, is evidence and not proof.
- `audit.json` holds the attacks and controls with their figures.
- Rare structures: {_rare(predicate)}
{told_overrides(predicate.audit.overrides)}
## Whose approval it needs

{_approval(predicate)}
{_evaluation(predicate)}
## Where the label maps come from

{sources}
{_no_licence(predicate)}{how_made(predicate.label_making)}
{_recipes(predicate)}

## Checking this folder

    fedphantom release verify FOLDER --key PUBLIC.pem --notices NOTICES

Public keys come from their holders, not from this folder, and so do notices of withdrawal. Every file but
the approvals is named, with its SHA-256, in the signed `manifest.dsse.json`; one changed byte, one file
more or one file less, and the check fails.

Study {predicate.study_digest}{", whose text is `study.json`" if predicate.kind == "volumes" else ""}
Generator {predicate.generator_sha256}
Packed {predicate.created} by {predicate.software}, for {MEANT_FOR[predicate.tier]}.
"""


def _rare(predicate: ReleasePredicate) -> str:
    fewest = predicate.label_carriers_min
    if fewest is None:
        return "it was not counted how many of the patients carry each structure."
    return f"none is carried by fewer than {fewest} of the training patients, unless by nobody."


def _recipes(predicate: ReleasePredicate) -> str:
    if predicate.kind == "weights":
        return (
            "Beside every volume that it paints, a JSON file says that it is synthetic, and how its label map was made."
        )
    return (
        "Beside every volume a JSON file says that it is synthetic and holds its recipe: the source by its SHA-256,"
        "\nevery step with its seed and what was drawn, edit recipes in full, and the seed of the generator's noise."
        "\n`cohort/README.md` is the data set's datasheet."
    )


def _headline(predicate: ReleasePredicate) -> str:
    if not predicate.audit_permits_sharing:
        only = f"**{NOT_FOR_SHARING.capitalize()}.** This release is meant for {MEANT_FOR['internal']}."
        return f"{only}\n{_behind(predicate)}" if predicate.one_site else only
    return f"Meant for {MEANT_FOR[predicate.tier]}. {_behind(predicate)}"


def _behind(predicate: ReleasePredicate) -> str:
    if predicate.one_site:
        return (
            "One site alone trained the generator, on its own patients, and stands behind"
            f" this release\n(sharing: {predicate.sharing})."
        )
    return "A generator trained by several sites needs the signed approval of\neach of them."


def _promise(predicate: ReleasePredicate) -> str:
    if predicate.dp == NONE:
        return "**none** (`dp: none`). No differential-privacy promise is made."
    return (
        f"**patient-level differential privacy** of the generator. {predicate.dp.sentence()}.\n"
        "  It holds for the generator and for all that it paints, not for the figures of the audit, and covers this\n"
        "  study alone: other studies of the same patients add up. Its noise comes\n"
        "  from generators seeded by the operating system, which are no CSPRNGs themselves; it is not hardened\n"
        "  against timing."
    )


def _approval(predicate: ReleasePredicate) -> str:
    if not predicate.approving_sites:
        return (
            "None was asked for: it was packed without a site's policy, for use inside the study. No compliance officer"
            "\nhas approved it."
        )
    sites = "\n".join(map(_site, predicate.approving_sites))
    return f"""It is **not approved** until each of these has signed this very release. Approvals lie in `approvals/`,
a small file each, and `fedphantom release verify` says which are missing; it takes every signer's public key.

{sites}"""


def _site(site: ApprovingSite) -> str:
    keys = "; ".join(f"{one.role} `{one.key[:16]}…` until {one.expires}" for one in site.signers)
    needed = "its compliance officer and a second person" if site.second_person else "its compliance officer"
    changed = told_overrides(site.overrides, "  ")
    return f"- A site by {needed}, by its policy `{site.policy_sha256[:16]}…` (tier {site.tier}): {keys}.{changed}"


def told_overrides(overrides: Iterable[Override], indent: str = "") -> str:
    """Thresholds other than the tier's, each with its reason; nothing where there is none."""
    return "".join(
        f"\n{indent}- Changed threshold: `{one.threshold}` = {one.value}. {one.reason} ({one.by}, {one.on})"
        for one in overrides
    )


def how_made(making: LabelMaking) -> str:
    """How the released label maps were made; nothing where none is released."""
    if not making.scans:
        return ""
    rows = [f"- {_scans(row.scans)}: sampled from {row.source}, not edited" for row in making.sampled]
    rows += [
        f"- {_scans(row.scans)}: edited by the recipe `{row.recipe}` ({' '.join(row.citation.split())})"
        for row in making.edited
    ]
    more = "\nA scan in which several recipes had a part is counted under each.\n" if making.overlaps else ""
    listed = "\n".join(rows)
    return f"\nHow the label maps of the {_scans(making.scans)} were made, by the recorded chains:\n\n{listed}\n{more}"


def _scans(number: int) -> str:
    return counted(number, "scan")


def cited(source: LabelSource) -> str:
    """A source with its licence, and whom to cite."""
    citation = f" Please cite: {source.citation}" if source.citation else ""
    return f"- {source.name} (licence: {source.licence}).{citation}"


def _evaluation(predicate: ReleasePredicate) -> str:
    claim = predicate.evaluation
    if claim is None:
        return ""
    measured = " and ".join(_MEASURED[protocol] for protocol in claim.protocols)
    kind = "procedural" if claim.procedural else "real"
    return f"""
## What is known about usefulness

`evaluation.json` says {measured}, in means over at least
{claim.test_patients} {kind} patients who were kept for test.
"""


def _no_licence(predicate: ReleasePredicate) -> str:
    names = unlicensed(predicate.label_sources)
    if not names:
        return ""
    return (
        f"\n**No licence is stated for: {', '.join(names)}.** Whoever passes on anything made from these label"
        "\nmaps needs their owner's permission.\n"
    )


def _verdict(predicate: ReleasePredicate) -> str:
    match predicate.audit.verdict:
        case "PASS":
            return predicate.audit.finding
        case "INCONCLUSIVE":
            if predicate.audit.finding != NOTHING_SUCCEEDED:  # never said to have found nothing where an attack did
                return f"The audit could not rule a leak out, and it found signs of one. {predicate.audit.finding}"
            return (
                "The audit could neither find a leak nor rule one out: too few patients, or a control missing or weak."
            )
        case other:
            raise ValueError(f"a release with verdict {other} cannot be described")
