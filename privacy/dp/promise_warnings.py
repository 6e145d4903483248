"""What a study's promise asks of patients, and which of its choices were measured, or are known, to be bad ones."""

from __future__ import annotations

from typing import Final

from ...common.promise import HEAD_CLIP
from ...common.study import Study
from .longest_means import longest_means
from .statement import WHAT

LONG_FOR_A_HEAD: Final = 0.1
"""A clip norm above this lets far more noise than signal into gradients of a generator's last layer."""


def asked_of_patients(study: Study) -> str:
    """What is noised, in words; empty where nothing is promised."""
    promise = study.privacy.promise
    return WHAT[promise.noised] if promise else ""


def promise_warnings(study: Study) -> tuple[str, ...]:
    """Sentences for whoever is about to spend a budget; none where nothing is promised."""
    promise = study.privacy.promise
    if promise is None:
        return ()
    found, longest = [], longest_means(len(study.channels))
    if promise.noised == "means" and promise.clip_norm > longest:
        found.append(
            f"[privacy.promise] clip_norm = {promise.clip_norm:g}: no patient's means are longer than {longest:.3g}, so"
            " that it clips nothing, and noise grows with it. 1 is usual."
        )
    if promise.noised == "generator-head" and promise.clip_norm > LONG_FOR_A_HEAD:
        found.append(
            f"[privacy.promise] clip_norm = {promise.clip_norm:g}: gradients of the generator's last layer were .02 to"
            " .08 long after a long public start, and noise grows with the clip norm, not with them."
            f" {HEAD_CLIP:g} is usual."
        )
    if promise.fakes == "public-label-maps":
        found.append(
            '[privacy.promise] fakes = "public-label-maps": the discriminator may learn to tell label maps apart'
            " instead of images (docs/experiments.md)."
        )
    if not study.federation.approval_keys and not study.federation.alone:
        found.append(
            "no [federation] approval_keys: an average of several sites is never released without each officer's, so"
            " that the patients' budget would be spent for nothing that may leave."
        )
    return tuple(found)
