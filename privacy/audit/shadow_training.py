"""Trains shadow generators on random halves of the audited patients, and keeps of each only how well it paints whom.

They see private patients without differential privacy: like the other control generators they live in memory and are
gone once measured. What is kept between two calls, so that an audit broken off after hours goes on, is each shadow's
errors, in the audit's own folder at the site; the audit deletes them when it ends.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...common.atomic import write_atomic
from ...common.parallel import side_by_side
from ...common.randomness import numpy_generator
from ..attacks.interface import Reconstruct
from ..attacks.own_map import own_map_errors
from ..attacks.shadows import Errors, Shadows
from ..statistics import Floats
from .controls import TrainGenerator
from .course import seconds_for_trainings

FEWEST = 4
"""Shadows at least: two with each patient and two without, or there is no spread."""

_FEW = 8
"""Scans painted to see how long all of them take."""


@dataclass(frozen=True)
class ShadowPlan:
    """Which shadows; a function of the study, so that a later call finds them again.

    Attributes:
        number: Even; each patient is in exactly half.
        seed: Of the halves, the weights and the noise; the same in every audit of the study.
        steps: That each trains.
        folder: Where errors are kept until the audit ends.
        key: Names what they depend on beside this: generator, cohort, code of the study.
    """

    number: int
    seed: int
    steps: int
    folder: Path
    key: str


def halves(patients: tuple[str, ...], number: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Patients whom each shadow sees: a random half and the other half, as often as asked, whoever holds which coin.

    So each patient is seen by exactly half of the shadows (Carlini et al. 2022, arXiv 2112.03570).
    """
    out: list[tuple[str, ...]] = []
    for pair in range(number // 2):
        drawn = numpy_generator(seed, "halves", pair).permutation(sorted(patients)).tolist()
        middle = len(drawn) // 2
        out += [tuple(sorted(drawn[:middle])), tuple(sorted(drawn[middle:]))]
    return tuple(out)


def train_shadows(
    plan: ShadowPlan,
    measure: Errors,
    scan_index: NDArray[np.intp],
    train: TrainGenerator,
    at_once: int | None,
    told: Callable[[], None],
) -> Shadows:
    """Train those that are missing, and read the errors of the others.

    Args:
        plan: Which.
        measure: How errors are measured; its scans are halved by patient.
        scan_index: Index in the audit's material of each audited scan.
        train: Trains a generator as the one under audit was trained.
        at_once: Trained side by side; one a core where None.
        told: Called as each is done.

    Raises:
        TrainingError: a training came to nothing; those before it are kept.
        StorageError: the disk is full.
    """
    scans = measure.scans
    seen = halves(tuple(set(scans.patients)), plan.number, plan.seed)
    saw = np.array([[patient in set(half) for patient in scans.patients] for half in seen], dtype=bool)
    files = [plan.folder / f"{_digest(plan, measure)}-{number:03d}.npy" for number in range(plan.number)]
    errors = [_kept(file, len(scans) + len(measure.reference)) for file in files]

    def trained(number: int) -> Floats:
        made = train(scan_index[saw[number]], plan.steps, plan.seed + number)
        found = measure.of(made.generator)
        content = io.BytesIO()
        np.save(content, found, allow_pickle=False)
        write_atomic(files[number], content.getvalue(), mode=0o600)
        return found

    missing = [number for number, found in enumerate(errors) if found is None]
    for _ in range(plan.number - len(missing)):
        told()
    for index, found in side_by_side([partial(trained, number) for number in missing], at_once):
        errors[missing[index]] = found
        told()
    return Shadows(measure, np.stack([found for found in errors if found is not None]), saw)


def seconds_for_shadows(
    plan: ShadowPlan, measure: Errors, scan_index: NDArray[np.intp], train: TrainGenerator, at_once: int | None
) -> float:
    """Seconds that those not kept yet will take, trained and measured, by two steps of a training thrown away."""
    files = [plan.folder / f"{_digest(plan, measure)}-{number:03d}.npy" for number in range(plan.number)]
    missing = sum(_kept(file, len(measure.scans) + len(measure.reference)) is None for file in files)
    if not missing:
        return 0.0
    half = scan_index[: max(1, len(scan_index) // 2)]
    training = seconds_for_trainings([plan.steps] * missing, partial(train, half, seed=plan.seed), at_once)
    return training + missing * seconds_to_measure(measure, train(half, 1, plan.seed).generator)


def seconds_to_measure(measure: Errors, generator: Reconstruct) -> float:
    """Seconds that one generator's errors will take, by one draw on a few scans."""
    few = measure.scans.take(np.arange(min(_FEW, len(measure.scans))))
    begun = time.perf_counter()
    own_map_errors(generator, few, measure.judged[: len(few)], 1, measure.seed)
    each = (time.perf_counter() - begun) / len(few)
    return each * measure.draws * (len(measure.scans) + len(measure.reference))


def _digest(plan: ShadowPlan, measure: Errors) -> str:
    """Of all that a shadow's errors depend on."""
    out = hashlib.sha256(f"{plan.number} {plan.seed} {plan.steps} {plan.key} {measure.draws} {measure.seed}".encode())
    for scans in (measure.scans, measure.reference):
        for array in (scans.images, scans.labels):
            out.update(np.ascontiguousarray(array).tobytes())
        out.update("\0".join(scans.patients).encode())
    return out.hexdigest()[:32]


def _kept(file: Path, length: int) -> Floats | None:
    """Errors that an earlier call measured; None where there are none, or damaged ones."""
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = found.dtype == np.float64 and found.shape == (length,) and np.isfinite(found).all()
    return found if whole else None
