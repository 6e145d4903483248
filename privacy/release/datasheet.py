"""The datasheet of a released cohort: the questions of Gebru et al., answered by what the release knows and no more.

Whoever needs another answer, above all on whose behalf the data were made, has to ask the signers: a release names no
site and no person.

Source: Gebru et al., "Datasheets for Datasets", Communications of the ACM 64(12), 2021, arXiv:1803.09010.
"""

from __future__ import annotations

from ...common.counted import counted
from ..cohort_facts import CohortFacts, outside_bids
from ..dp.statement import NONE
from ..statement import ReleasePredicate, unlicensed
from .readme import MEANT_FOR, NOT_FOR_SHARING, cited, how_made

_MEASURED = {
    "arms": "training segmentation networks, alone and beside real scans",
    "shin": "training segmentation networks in the Shin protocol",
    "fidelity": "likeness to scans of patients",
}


def render_datasheet(predicate: ReleasePredicate) -> str:
    """Markdown text of ``cohort/README.md``.

    Raises:
        ValueError: a release without a cohort.
    """
    facts = predicate.cohort
    if facts is None:
        raise ValueError("weights have no datasheet")
    return f"""# Datasheet: synthetic MRI volumes with label maps

The headings and questions are those of *Datasheets for Datasets* (Gebru et al. 2021). The answers were written by
`fedphantom release pack` from what the release holds. Where it holds no answer, that is said.

## Motivation

- **For what purpose was the data set created?** Not stated for this one. FedPhantom makes such data sets to stand in
  for scans of patients, which stay at their hospitals.
- **Who created it, on behalf of which entity, funded by whom?** Not stated: a release names no site and no person.
  {"One site" if predicate.one_site else "Several sites"} trained the generator (sharing: {predicate.sharing}).

## Composition

- **What do the instances represent?** Synthetic scans, painted by a generator from label maps. How near one
  may come to a patient's scan is what the audit asked.
- **How many are there?** {_size(facts)}
- **What data does each consist of?** {_instance(facts)}
- **Is there a label for each?** A label map, from which the images were painted: their origin, and nobody's reading of
  them. Its values: {_labels(facts)}.
- **Is it a sample of a larger set?** As many as were asked for; a generator paints any number.
- **Is anything missing, or are there recommended splits?** Age, sex, scanner, diagnosis and splits: there are none.
- **Are there errors or noise?** Not assessed here. An image may fail to show what its label map says.
- **Does it hold data that might be confidential, or relate to people?** The generator was trained on patients' scans
  and may give something of them away. {_known(predicate)}
- **Could a face be shown?** {_skull(facts)}

## Collection process

- **How was the data acquired?** It was not: label maps were drawn from public sources, images painted from them by the
  generator {predicate.generator_sha256}.
- **Whose scans trained the generator, over which time, with whose consent or review?** Not stated in a release; the
  sites hold it. How many patients there were is not told either.

## Preprocessing, cleaning, labelling

- **What was done?** The generator learnt scans brought to this grid and scaled one by one, so intensities mean nothing
  beyond order within a volume. Voxels at its background are written as 0.
- **How were the label maps made?** From these sources:

{chr(10).join(dict.fromkeys(map(cited, predicate.label_sources)))}
{how_made(predicate.label_making)}
- **Can an instance be made again?** With the generator, yes: the JSON file beside every volume holds its recipe.
  `LabelChain` names the source by its SHA-256 and lists every step with its seed and what was drawn, edit recipes in
  full; `NoiseSeed` is the seed of the generator's noise. `fedphantom release pack` makes every scan again by its recipe
  before it packs. The generator itself is not in this release.
- **Was raw data saved?** Real scans stay at the sites.

## Uses

- **What has it been used for?** {_uses(predicate)}
- **For what should it not be used?** Not for diagnosis, and not for how often, how large or where anything occurs in
  patients: anatomy and lesions come from public label maps, the sampler and the recipes, not from the sites' patients.
- **Could its composition harm someone?** What the generator saw too rarely, it paints badly; {_rare(predicate)}

## Distribution

- **To whom?** {_readers(predicate)}
- **Under which licence?** The sources of the label maps state the licences above
  {_licence(predicate)}. For the volumes themselves the release states none.
- **In which form?** BIDS, in this folder. {_bids(facts)}

## Maintenance

- **Who maintains it, how can they be reached?** Not stated; whoever holds the packer's key signed it.
- **Will it be updated?** It never changes: `fedphantom release verify` finds every changed byte. It can be withdrawn
  by a signed notice, for which `--notices` looks.
- **Packed:** {predicate.created} by {predicate.software}, for {MEANT_FOR[predicate.tier]}.
  Study {predicate.study_digest}.
"""


def _known(predicate: ReleasePredicate) -> str:
    promise = (
        "none\n  (`dp: none`)." if predicate.dp == NONE else f"differential privacy,\n  {predicate.dp.sentence()}."
    )
    return (
        f"Audit verdict: {predicate.audit.verdict}; formal guarantee: {promise} The release's `README.md` and"
        " `audit.json` say what was tested."
    )


def _size(facts: CohortFacts) -> str:
    return (
        f"{counted(facts.scans, 'scan')}, each with {counted(len(facts.channels), 'image')}"
        f" ({', '.join(facts.channels)}) and a label map: {facts.images + facts.scans} volumes."
    )


def _instance(facts: CohortFacts) -> str:
    shape = " × ".join(map(str, facts.shape))
    spacing = " × ".join(f"{mm:.4g}" for mm in facts.spacing_mm)
    return f"Volumes of {shape} voxels of {spacing} mm, all on one grid (NIfTI-1)."


def _labels(facts: CohortFacts) -> str:
    return ", ".join(f"{name} ({value})" for value, name in facts.labels)


def _skull(facts: CohortFacts) -> str:
    return (
        f"Of {counted(facts.images, 'image')}, {facts.skull_stripped} were found skull-stripped (`SkullStripped` in"
        " their JSON files);\n  of the others that could not be shown."
    )


def _uses(predicate: ReleasePredicate) -> str:
    if predicate.evaluation is None:
        return "Nothing that the release tells of: its use was not measured."
    return (
        f"Measured in the release's `evaluation.json`:"
        f" {'; '.join(_MEASURED[protocol] for protocol in predicate.evaluation.protocols)}."
    )


def _rare(predicate: ReleasePredicate) -> str:
    if predicate.label_carriers_min is None:
        return "how many patients\n  carry each structure was not counted."
    fewest = predicate.label_carriers_min
    return f"each structure\n  is carried by {fewest} of the training patients or more, or by nobody."


def _readers(predicate: ReleasePredicate) -> str:
    meant = f"It is meant for {MEANT_FOR[predicate.tier]}."
    return meant if predicate.audit_permits_sharing else f"{meant} {NOT_FOR_SHARING.capitalize()}."


def _licence(predicate: ReleasePredicate) -> str:
    names = unlicensed(predicate.label_sources)
    return f"(none is stated for: {', '.join(names)})" if names else "(each states one)"


def _bids(facts: CohortFacts) -> str:
    outside = outside_bids(facts.channels)
    if not outside:
        return "Every file has a name that BIDS knows."
    return f"BIDS has no name for {', '.join(outside)}: `.bidsignore` lists those images, and validators skip them."
