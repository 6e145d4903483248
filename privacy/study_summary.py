"""A study in plain words, for people who decide whether to take part."""

from __future__ import annotations

from typing import Any

from ..common.counted import counted
from ..common.study import Study
from .dp.meaning import meaning
from .dp.statement import asked_for

NO_DP = (
    "dp: none. This study makes NO differential-privacy promise: nothing bounds what the generator "
    "can reveal of a patient. What leaves is judged by the audit alone."
)


def study_text(study: Study) -> str:
    """What is trained, on which grid, for how long, what leaves, and under which privacy promise."""
    training, federation = study.training, study.federation
    shape = " × ".join(map(str, study.grid.shape))
    spacing = " × ".join(f"{mm:g}" for mm in study.grid.spacing_mm)
    structures = ", ".join(name for name, value in study.labels.items() if value)
    terms = federation.secure_aggregation
    shared = {
        "weights": "each round: the generator's weights, a declared weight, and figures on synthetic scans."
        if terms is None
        else f"each round: a declared weight, and its update of the generator, scaled back to a norm of {terms.clip:g}"
        f" and hidden under masks. The coordinator sees the sum over {terms.threshold} or more sites; if it lies,"
        " one over fewer, and a single site's update only with other sites' help. The sum, and the generator that it"
        " leads to, are as open as ever.",
        "ensemble": "once: the weights of the generator it trained alone, a declared weight, and figures on synthetic "
        "scans.",
        "volumes": "once: figures on synthetic scans, and no weights at all. Synthetic volumes leave only in a release "
        "that the site itself packs and signs.",
    }
    kept = "" if federation.weights_leave else "weights of any network, "
    patch = training.patch
    seen = f"patch of {' × '.join(map(str, patch.shape))} voxels" if patch else "scan"
    if patch and training.batch > 1:
        seen = seen.replace("patch", "patches")
    half = "Weights travel in half precision. " if federation.transport == "float16" else ""
    spent = "With them the ε spent so far. " if study.privacy.promise else ""
    made, use = _paints(study, structures) if study.network.maps == "labels-to-images" else _infers(study)
    rows = {
        "study": f"{study.name} ({study.digest()[:16]})",
        "trained": f"a '{study.network.preset}' generator: {made}",
        "grid": f"{shape} voxels of {spacing} mm",
        **({"begins with": _beginning(study)} if study.from_public_start else {}),
        "rounds": f"{training.rounds} of {counted(training.local_steps, 'step')} at each site,"
        f" {f'{training.batch} {seen}' if patch else counted(training.batch, seen)} a step;"
        f" at least {counted(federation.quorum, 'site')} a round",
        "label maps": use,
        "averaged": _averaging(study),
        "leaves a site": f"{shared[federation.sharing]} {half}{spent}"
        f"Never: {kept}scans, label maps, the discriminator, patient counts, figures on real scans",
        "approved by": _approval(study),
        "privacy": _privacy(study),
    }
    width = max(map(len, rows))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def _beginning(study: Study) -> str:
    """Where networks begin that are not freshly initialised."""
    named = f" ({study.training.start[:16]})" if study.training.start else ", which it does not name yet"
    return f"a public start{named}: both networks, trained on public scans alone"


def _privacy(study: Study) -> str:
    promised = asked_for(study)
    if promised is None:
        return NO_DP
    promise = study.privacy.promise
    several = promise is not None and promise.sites_overlap
    overlap = (
        " A patient may be at several sites (sites_overlap): for such a one, ε and δ are the sums over those sites,"
        f" at K sites ε = {promised.epsilon:g}·K and δ = {promised.delta:g}·K at most."
        if several
        else ""
    )
    return (
        f"{meaning(promised.epsilon, promised.delta, 'what one site gave' if several else 'the generator')}{overlap}"
        f" That is patient-level differential privacy at every site, at most: {promised.sentence()}. The generator sees"
        " public label maps and what these noised steps say, nothing else of a patient. Each site counts what its"
        " patients have spent in the ledger that it names, over all studies that used that one, and stops when their"
        " budget is spent there"
    )


def _paints(study: Study, structures: str) -> tuple[str, str]:
    public = study.public_labels
    low, high = public.lesion.radius_mm
    tumours = f"{public.lesion_probability:.0%} of them with a tumour of {low:g} to {high:g} mm radius"
    origin = f"the atlas, {tumours}" if public.source == "atlas" else "a public cohort"
    return (
        f"label map ({structures}) to {', '.join(study.channels)}",
        f"synthetic scans are painted on public ones: {public.name}, {origin}; licence: {public.licence}",
    )


def _infers(study: Study) -> tuple[str, str]:
    inferred = ", ".join(name for name, value in study.labels.items() if value and value in study.inferred_labels)
    overlay = f"; the hospital's {', '.join(study.network.overlay)} on top" if study.network.overlay else ""
    material = "scans marked public alone" if study.privacy.trained_on == "public" else "private scans"
    return (
        f"{', '.join(study.channels)}, or those of them that a scan has, to anatomy ({inferred})",
        f"inferred ones are private to their site{overlay}. The network is trained on {material}",
    )


def _approval(study: Study) -> str:
    keys = study.federation.approval_keys
    if study.federation.alone:
        return "each site its own release, by its own policy"
    if not keys:
        return (
            "nobody: the study names no site's key, and an average of several sites is never released without one for"
            " each; 'study new --approval-key' takes them"
        )
    return (
        f"every one of {counted(len(keys), 'site')}; their officers' keys: {', '.join(key[:12] + '…' for key in keys)}"
    )


def study_facts(study: Study) -> dict[str, Any]:
    """The same for machines: every key of the study with its default filled in, and its digest."""
    return {"digest": study.digest(), "study": study.model_dump(mode="json")}


def _averaging(study: Study) -> str:
    federation = study.federation
    if federation.sharing == "volumes":
        return "nothing: every site trains alone, and its generator stays in its own folder"
    if federation.sharing == "ensemble":
        divided = ", and label maps are divided among them" if study.network.maps == "labels-to-images" else ""
        return f"nothing: every site's generator stays its own{divided}"
    declared = ", ".join(f"{site} {weight:g}" for site, weight in sorted(federation.declared_weights.items()))
    parts = [f"by declared weights: {declared}" if declared else "every site's generator alike"]
    if federation.proximal_weight:
        parts.append(f"sites held to the round's generator (FedProx, {federation.proximal_weight:g})")
    if federation.secure_aggregation:
        threshold = federation.secure_aggregation.threshold
        parts.append(f"summed by secure aggregation, {counted(threshold, 'site')} or more, and more than half of all")
    if federation.server_momentum:
        parts.append(f"server momentum {federation.server_momentum:g}")
    if federation.norm_bound is not None:
        parts.append(f"an update longer than {federation.norm_bound:g} is scaled back to that")
    if federation.trimmed_mean is not None:
        parts.append(f"the lowest and the highest {federation.trimmed_mean:.0%} of each value left out")
    return "; ".join(parts)
