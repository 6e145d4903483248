"""Trains the audit's generators: reference and negative control through the very loop that trained the released one.

The positive control learns by heart instead, in a short loop of its own: it shows that the attacks find a leak.

They see private patients without differential privacy: they are gone after the audit (PRIVACY §4), and lie on the
site's own disk until then alone (:mod:`.kept_networks`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.errors import TrainingError
from ...common.gan.generation import paint_each, painted_at_once
from ...common.gan.losses import l1
from ...common.gan.networks import Generator, make_generator
from ...common.gan.training import draw_batch, places_of_step, train_from_scratch
from ...common.gan.training_state import TrainingState, new_state
from ...common.parallel import in_order
from ...common.randomness import derived_seed
from ...common.study import Study
from ..attacks.interface import Images, Labels, Networks, Reconstruct, foreground
from .critics import critic
from .kept_networks import KeptNetworks
from .weight_search import weight_search


class TrainOn(Protocol):
    """Trains one kind of control generator on some rows of the prepared scans."""

    def __call__(
        self,
        scans: PreparedScans,
        rows: NDArray[np.intp],
        study: Study,
        device: Device,
        *,
        steps: int,
        seed: int,
        kept: KeptNetworks | None = None,
    ) -> Networks:
        """Train from nothing, or take what was kept; the same arguments give the same generator."""
        ...


MEMORISING_RATE = 1e-2
"""Peak of the positive control's learning rate."""


def painter(network: Generator, study: Study, device: Device) -> Reconstruct:
    """A generator as the attacks see it: class indices and a noise seed to images.

    On a CPU every core paints, each a few volumes at a time: how many there are changes nothing of what is painted. One
    that paints slab after slab has volumes so large that one at a time is memory enough.
    """
    network.eval()  # here, since several threads must not switch it
    one_by_one = device.cuda or network.local

    def reconstruct(labels: Labels, noise_seed: int) -> Images:
        seeds = [derived_seed(noise_seed, "volume", i) for i in range(len(labels))]
        if one_by_one:
            return paint_each(network, labels, study, seeds, device)
        together = painted_at_once(network, labels.shape[1:])
        parts = [slice(start, start + together) for start in range(0, len(labels), together)]
        tasks = [partial(paint_each, network, labels[part], study, seeds[part], device) for part in parts]
        return np.concatenate(list(in_order(tasks)))

    return reconstruct


def train_control_generator(
    scans: PreparedScans,
    rows: NDArray[np.intp],
    study: Study,
    device: Device,
    *,
    steps: int,
    seed: int,
    kept: KeptNetworks | None = None,
) -> Networks:
    """Train the study's networks from scratch on these scans alone.

    Args:
        scans: All prepared scans.
        rows: Which of them.
        study: Networks and objective, as for the released generator.
        device: Where to train.
        steps: Generator steps.
        seed: Of weights and draws.
        kept: What an audit that was broken off left; None keeps nothing.

    Raises:
        TrainingError: NaN or collapse.
    """

    def trained() -> TrainingState:
        return train_from_scratch(scans.only(rows), study, device, steps=steps, seed=seed)

    def parts(state: TrainingState) -> dict[str, nn.Module]:
        return {"generator": state.generator, "discriminator": state.discriminator}

    what = ("control", rows, steps, seed)
    state = kept.of(what, lambda: new_state(study, seed, device), trained, parts) if kept else trained()
    return Networks(
        painter(state.generator, study, device),
        critic(state.discriminator, study, device),
        weight_search(state.generator, study, device),
    )


def train_memoriser(
    scans: PreparedScans,
    rows: NDArray[np.intp],
    study: Study,
    device: Device,
    *,
    steps: int,
    seed: int,
    kept: KeptNetworks | None = None,
) -> Networks:
    """Train the study's generator to learn these scans by heart: L1 to the paired scan where A1 judges, nothing else.

    The positive control needs a leak that is beyond doubt; the adversarial objective works against one, and so does
    the empty space around a head, which is most of a volume (docs/experiments.md, "A positive control that is beyond
    doubt": A1 AUC .80 by the GAN's own objective, .88 by L1 everywhere, 1.00 by L1 where A1 judges). Draws of scans and
    noise are those of ``gan.training``. Its loop is not used: no discriminator takes part here, each scan has a mask,
    and the rate rises before it falls, so that page would hold an objective, a mask and a schedule as arguments that
    nobody trains a released generator with.

    Args:
        scans: All prepared scans.
        rows: Which of them.
        study: The network's size; the learning rate here is higher than a study's.
        device: Where to train.
        steps: Generator steps.
        seed: Of weights and draws.
        kept: What an audit that was broken off left; None keeps nothing.

    Raises:
        TrainingError: NaN.
    """

    def fresh() -> Generator:
        network = make_generator(study, seed)
        device.place(network)
        return network

    def trained() -> Generator:
        return _learnt_by_heart(fresh(), scans.only(rows), study, device, steps, seed)

    what = ("memoriser", rows, steps, seed)
    network = kept.of(what, fresh, trained, lambda one: {"generator": one}) if kept else trained()
    return Networks(painter(network, study, device), search=weight_search(network, study, device))


def _learnt_by_heart(
    network: Generator, chosen: PreparedScans, study: Study, device: Device, steps: int, seed: int
) -> Generator:
    alone = [slice(row, row + 1) for row in range(len(chosen))]
    judged = np.concatenate([foreground(chosen.volumes[one], chosen.classes[one]) for one in alone])
    optimiser = torch.optim.Adam(network.parameters(), MEMORISING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, MEMORISING_RATE, total_steps=steps)
    for step in range(steps):
        batch = draw_batch(chosen, study, device, step=step, seed=seed)
        places = places_of_step(chosen, study, step, seed)
        seen = np.stack([judged[row][None, *box] for row, box in places]).astype(np.float32)
        weight = device.tensor(torch.from_numpy(seen))
        with device.autocast():
            fake = network(batch.given, batch.noise)
        loss = l1(fake * weight, batch.real * weight) / weight.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        schedule.step()
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss is not finite at step {step + 1}",
                expected="a finite loss",
                remedy="Run 'fedphantom cohort check'; scans that cannot be learnt by heart cannot be audited.",
            )
    return network
