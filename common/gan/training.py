"""The training loop, on one page. The discriminator's step is an argument.

Axes as in ``gan.networks``. Every draw is named by (seed, step): a resumed training repeats, bit for bit on
the CPU, what an unbroken one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..cohorts.disk_rows import Rows
from ..device import Device
from ..errors import PolicyRefused, TrainingError
from ..randomness import numpy_generator, torch_generator
from ..study import Study
from .image_variation import varied
from .losses import cross_entropy_and_dice, fake_loss, feature_matching, l1, real_loss
from .networks import Generator, draw_noise, made_classes, one_hot
from .patches import WHOLE, Box, draw_box
from .public_maps import PublicMaps
from .training_state import TrainingState, new_state

COLLAPSE_WINDOW = 50  # steps in a row of a constant output before it is called a collapse
CHECK_EVERY = 10


class Pairs(Protocol):
    """Prepared scans: volumes (n, C, X, Y, Z) in [-1, 1] and class indices (n, X, Y, Z).

    Where nothing is paired, public label maps: C is 0.
    """

    @property
    def volumes(self) -> Rows[np.float32]:
        """Shape (n, C, X, Y, Z)."""
        ...

    @property
    def classes(self) -> Rows[np.uint8]:
        """Shape (n, X, Y, Z)."""
        ...


@dataclass(frozen=True)
class Batch:
    """One step's input on the device: given (B, G, X, Y, Z), noise (B, N, X, Y, Z), and the real (B, M, X, Y, Z)."""

    given: Tensor
    noise: Tensor
    real: Tensor


@dataclass(frozen=True)
class StepLosses:
    """Losses of one step. Those on real data (``reconstruction``, ``discriminator``) never leave the site."""

    step: int
    adversarial: float
    reconstruction: float
    discriminator: float


DiscriminatorStep = Callable[[TrainingState, Batch, Tensor], Tensor]
"""(state, batch, detached fake) → loss. Updates the discriminator once."""


GeneratorLoss = Callable[[TrainingState, Batch, Tensor, Study], tuple[Tensor, Tensor, Tensor]]
"""(state, batch, fake, study) → the generator's whole loss, its adversarial term, its reconstruction."""


def plain_discriminator_step(state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
    """Least-squares discriminator update without privacy (``dp: none``)."""
    with state.device.autocast():
        both, _ = state.discriminator(torch.cat([batch.given, batch.given]), torch.cat([batch.real, fake]))
        on_real, on_fake = both.chunk(2)
        loss = (real_loss(on_real) + fake_loss(on_fake)) / 2
    state.discriminator_optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    state.discriminator_optimiser.step()
    return loss.detach()


def generator_loss(state: TrainingState, batch: Batch, fake: Tensor, study: Study) -> tuple[Tensor, Tensor, Tensor]:
    """The generator's whole loss, its adversarial term and its reconstruction; the latter 0 where nothing is paired."""
    logits, fake_features = state.discriminator(batch.given, fake)
    adversarial = real_loss(logits)
    if study.training.objective == "adversarial":
        return adversarial, adversarial, torch.zeros(())
    distance, weight = supervision(study)
    with torch.no_grad():
        _, real_features = state.discriminator(batch.given, batch.real)
    reconstruction, matching = distance(fake, batch.real), feature_matching(fake_features, real_features)
    loss = adversarial + weight * reconstruction + study.training.feature_matching_weight * matching
    return loss, adversarial, reconstruction


def train(
    state: TrainingState,
    pairs: Pairs,
    study: Study,
    *,
    until_step: int,
    total_steps: int,
    seed: int,
    discriminator_step: DiscriminatorStep = plain_discriminator_step,
    loss_of_generator: GeneratorLoss = generator_loss,
    penalty: Callable[[Generator], Tensor] | None = None,
) -> Iterator[StepLosses]:
    """Advance the state to ``until_step``, yielding after every step; stop whenever you like.

    Args:
        state: Advanced in place.
        pairs: What to train on.
        study: Objective and learning rates.
        until_step: Where to stop for now, a federation round's end for example.
        total_steps: Of the whole training, over all rounds: the learning rates fall towards its end.
        seed: Of every draw.
        discriminator_step: Updates the discriminator once.
        loss_of_generator: What the generator learns from; :func:`generator_loss` by default.
        penalty: Of the generator's parameters, added to its loss.

    Raises:
        TrainingError: a loss is NaN or infinite, or the generator has collapsed to a constant; the step is named.
        PolicyRefused: the study makes a promise, and the pairs are not public label maps.
    """
    options = study.training
    if study.privacy.promise and not isinstance(pairs, PublicMaps):
        raise PolicyRefused(
            "a generator under a formal promise was about to be trained on scans or their label maps",
            expected="public label maps, and patients through noised steps alone",
            remedy="Nothing was trained. Report this: it is a defect of the program.",
        )
    while state.step < until_step:
        batch = draw_batch(pairs, study, state.device, step=state.step, seed=seed)
        share = learning_rate_share(state.step, total_steps)
        state.generator_optimiser.param_groups[0]["lr"] = share * options.generator_lr
        state.discriminator_optimiser.param_groups[0]["lr"] = share * options.discriminator_lr

        # Generate.
        with state.device.autocast():
            fake = state.generator(batch.given, batch.noise)

        # Update the discriminator.
        loss_d = discriminator_step(state, batch, fake.detach())

        # Update the generator.
        state.discriminator.requires_grad_(False)
        with state.device.autocast():
            loss_g, adversarial, reconstruction = loss_of_generator(state, batch, fake, study)
        if penalty:
            loss_g = loss_g + penalty(state.generator)
        state.generator_optimiser.zero_grad(set_to_none=True)
        loss_g.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        state.generator_optimiser.step()
        state.discriminator.requires_grad_(True)
        state.step += 1

        # Stop at the first sign of failure, and say where.
        losses = StepLosses(state.step, adversarial.item(), reconstruction.item(), loss_d.item())
        if not all(map(math.isfinite, (losses.adversarial, losses.reconstruction, losses.discriminator))):
            raise TrainingError(
                f"a loss is not finite at step {state.step}",
                expected="finite losses",
                remedy="Run 'fedphantom cohort check' on the cohort, then lower training.generator_lr.",
            )
        if state.step % CHECK_EVERY == 0 and _shows_structure(batch.given):
            constant = bool(fake.detach().float().std() < 1e-4)
            state.constant_steps = state.constant_steps + CHECK_EVERY if constant else 0
            if state.constant_steps >= COLLAPSE_WINDOW:
                raise TrainingError(
                    f"the generator has collapsed to a constant volume at step {state.step}",
                    expected="volumes that vary",
                    remedy="Lower training.generator_lr, or raise training.l1_weight (label_weight).",
                )
        yield losses


def _shows_structure(given: Tensor) -> bool:
    """Whether a batch (B, G, X, Y, Z) is more than one label: patches of nothing but air may well be one grey."""
    return bool((given != given[:1, :, :1, :1, :1]).any())


def train_from_scratch(
    pairs: Pairs,
    study: Study,
    device: Device,
    *,
    steps: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingState:
    """Train the study's networks on these scans alone, in one go and in memory; both networks after ``steps``.

    For generators that are nobody's release: the audit's controls, and what public scans alone would give. They see
    paired scans, whatever the study's objective.

    Raises:
        TrainingError: NaN or collapse.
    """
    state, study = new_state(study, seed, device), study.paired()
    for losses in train(state, pairs, study, until_step=steps, total_steps=steps, seed=seed):
        if progress:
            progress(losses.step, steps)
    return state


def learning_rate_share(step: int, total_steps: int) -> float:
    """Share of the full learning rate: 1 for the first half of the training, then linearly towards 0.

    As Isola et al. 2017 (arXiv 1611.07004) and Zhu et al. 2017 (arXiv 1703.10593) train. A function of the step alone,
    so that a resumed training repeats an unbroken one; beyond the end it stays at that of the last step.
    """
    return min(1.0, 2 * max(1, total_steps - step) / total_steps)


def supervision(study: Study) -> tuple[Callable[[Tensor, Tensor], Tensor], float]:
    """How far what was made is from the paired real one, and that term's weight."""
    if study.network.maps == "labels-to-images":
        return l1, study.training.l1_weight
    return cross_entropy_and_dice, study.training.label_weight


def draw_batch(pairs: Pairs, study: Study, device: Device, *, step: int, seed: int) -> Batch:
    """What step number ``step`` of a training with this seed sees, on the device."""
    if study.network.maps == "images-to-labels":
        return _batch_of_images(pairs, study, device, step, seed)
    places = places_of_step(pairs, study, step, seed)
    given, real = cut(pairs, places, study, device)
    x, y, z = given.shape[2:]
    noise = draw_noise(len(places), (x, y, z), torch_generator(seed, "step", step))
    return Batch(given, device.tensor(noise), real)


def cut(pairs: Pairs, places: Sequence[tuple[int, Box]], study: Study, device: Device) -> tuple[Tensor, Tensor]:
    """One-hot label maps (B, L, X, Y, Z) and volumes (B, C, X, Y, Z) of these rows and boxes, on the device."""
    real = torch.from_numpy(np.stack([pairs.volumes[i][:, *box] for i, box in places]).astype(np.float32, copy=False))
    classes = torch.from_numpy(np.stack([pairs.classes[i][box] for i, box in places]))
    return device.tensor(one_hot(device.tensor(classes), len(study.labels))), device.tensor(real)


def _batch_of_images(pairs: Pairs, study: Study, device: Device, step: int, seed: int) -> Batch:
    """Varied as whole scans, since a scanner's bias and a scan's percentiles are the head's; then cut to patches."""
    rows, patch, made = (
        scans_of_step(len(pairs.classes), study.training.batch, step, seed),
        study.training.patch,
        made_classes(study),
    )
    real = torch.from_numpy(np.stack([pairs.volumes[row][:] for row in rows]).astype(np.float32, copy=False))
    whole = torch.from_numpy(np.stack([pairs.classes[row][:] for row in rows]))
    images, classes = varied(real, whole, study, torch_generator(seed, "step", step))
    if patch:
        boxes = [
            draw_box(one.numpy(), patch, made, numpy_generator(seed, "patch", step, place))
            for place, one in enumerate(classes)
        ]
        images = torch.stack([image[:, *box] for image, box in zip(images, boxes, strict=True)])
        classes = torch.stack([one[box] for one, box in zip(classes, boxes, strict=True)])
    truth = device.tensor(one_hot(device.tensor(classes), made))
    return Batch(device.tensor(images), truth[:, :0], truth)


def places_of_step(pairs: Pairs, study: Study, step: int, seed: int) -> list[tuple[int, Box]]:
    """Row and box of every example that step number ``step`` sees: whole scans, or patches of them."""
    rows, patch = scans_of_step(len(pairs.classes), study.training.batch, step, seed), study.training.patch
    if patch is None:
        return [(row, WHOLE) for row in rows]
    random = [numpy_generator(seed, "patch", step, place) for place in range(len(rows))]
    return [
        (row, draw_box(pairs.classes[row], patch, len(study.labels), draws))
        for row, draws in zip(rows, random, strict=True)
    ]


def scans_of_step(scans: int, batch: int, step: int, seed: int) -> list[int]:
    """Which scans step number ``step`` sees: shuffled epochs laid end to end, computable for any step alone."""
    positions = range(step * batch, (step + 1) * batch)
    orders = {e: numpy_generator(seed, "epoch", e).permutation(scans) for e in {p // scans for p in positions}}
    return [int(orders[p // scans][p % scans]) for p in positions]
