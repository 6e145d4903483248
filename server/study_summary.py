"""A study in plain words, for people who decide whether to take part."""

from __future__ import annotations

from typing import Any

from ..common.study import Study

NO_DP = (
    "dp: none. This study makes NO differential-privacy promise: nothing bounds what the generator "
    "can reveal of a patient. What leaves is judged by the audit alone."
)


def study_text(study: Study) -> str:
    """What is trained, on which grid, for how long, what leaves, and under which privacy promise."""
    training, federation, public = study.training, study.federation, study.public_labels
    shape = " × ".join(map(str, study.grid.shape))
    spacing = " × ".join(f"{mm:g}" for mm in study.grid.spacing_mm)
    structures = ", ".join(name for name, value in study.labels.items() if value)
    origin = "the atlas" if public.source == "atlas" else "a public cohort"
    patch = training.patch
    seen = f"patches of {' × '.join(map(str, patch.shape))} voxels" if patch else "scans"
    rows = {
        "study": f"{study.name} ({study.digest()[:16]})",
        "trained": f"a '{study.network.preset}' generator: label map ({structures}) to {', '.join(study.channels)}",
        "grid": f"{shape} voxels of {spacing} mm",
        "rounds": f"{training.rounds} of {training.local_steps} steps at each site, {training.batch} {seen} a step;"
        f" at least {federation.quorum} sites a round",
        "label maps": f"synthetic scans are painted on public ones: {public.name}, {origin}; licence: {public.licence}",
        "leaves a site": "each round: the generator's weights, a declared weight, and figures on synthetic scans. "
        "Never: scans, label maps, the discriminator, patient counts, figures on real scans",
        "privacy": NO_DP,
    }
    width = max(map(len, rows))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def study_facts(study: Study) -> dict[str, Any]:
    """The same for machines: every key of the study with its default filled in, and its digest."""
    return {"digest": study.digest(), "study": study.model_dump(mode="json")}
