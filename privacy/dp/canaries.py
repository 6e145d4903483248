"""Canaries: is the noise that was promised the noise that is there? (PRIVACY §4)

A run of its own, of made-up patients and canaries only: nobody's scan is in it, and it spends no budget. It takes all
the study's noised steps with the study's q, σ, C and networks, by the code that takes them at a site, on small volumes.
Each canary is in on the toss of a coin; the coins are guessed from what the steps released, and the run is thrown away.
Once σ is 0: then the guesses must come out right, or the test could find nothing, and no canary may move a sum further
than C. Once σ is as promised: then they must not prove more than ε, nor may what was released vary less than the noise.

A network's canaries are gradients, each in a direction of its own and ten times as long as may pass: no scan could
be as loud. The coins of one training bound ε (PRIVACY §3.3, one run); of several, where a last layer has too few
directions for all. Means are asked for once: their canary is one scan, as far from the public ones as counts, in many
runs with a coin each. Where the discriminator learns, the generator stands still, for it is post-processing. How a
patient's scan becomes one gradient, no coin of this sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.gan.label_means import PublicMeans, public_means
from ...common.gan.training import draw_batch
from ...common.gan.training_state import TrainingState, new_state
from ...common.labels.schematic import schematic_classes
from ...common.promise import DISCRIMINATING
from ...common.study import Study
from ..one_run import one_run_epsilon
from ..statistics import epsilon_lower_bound
from .accounting import epsilon
from .discriminator import PrivateDiscriminatorStep, gradient_of_fakes
from .drawn_sum import DrawnSum
from .generator import PrivateGeneratorStep
from .means import noised_vector
from .noised import noised_parameters, numbers_noised
from .patients import PrivatePatients
from .plan import noised_plan
from .provenance import disclosed
from .randomness import SecretRandom
from .step import NoisedSum, clipped

WITHOUT_NOISE = 1.5
"""What must be proved without noise."""
CANARIES = 64
"""In or out; 50 are asked. The smallest discriminator has 97 numbers to hide them in; at most two in three are used,
since noise is heard on the others."""
_LOUDNESS = 10.0  # of a canary's gradient over the clip norm
_PATIENTS = 2  # made up; more would only be louder where canaries are listened for
_AXIS = 16  # voxels of their volumes: the networks have the same parameters on any grid
_MOST_RUNS, _FEWEST_RUNS, _MOST_STEPS = 500, 100, 1000


@dataclass(frozen=True)
class CanaryRun:
    """What the canaries proved.

    Attributes:
        coins: Tossed, for each of both questions.
        bare: Lower bound of ε without noise, 95 % confidence.
        promised: With the noise of the study, all its steps.
        epsilon: What the accountant says of them.
        noise: Standard deviation of what was released where no canary is, over the promised one.
        draws: Numbers that this was measured on.
        reach: Without noise, how far one canary moved a sum at most, in clip norms, beside what patients may give.
    """

    coins: int
    bare: float
    promised: float
    epsilon: float
    noise: float
    draws: int
    reach: float

    @property
    def excess(self) -> bool:
        """Whether more was proved than was promised, or noise or clipping is less: the implementation is wrong.

        So few coins prove no ε above 3 or so: beyond that it is noise and clipping themselves that tell. Noise falls so
        short by chance less than once in a million audits.
        """
        quiet = self.noise < min(0.9, 1 - 6 / math.sqrt(2 * self.draws))
        return self.promised > self.epsilon or quiet or self.unclipped

    @property
    def unclipped(self) -> bool:
        """Whether a canary moved a sum further than any patient may; rounding is no reason."""
        return self.reach > 1.001


def run_canaries(study: Study, device: Device) -> CanaryRun:
    """Toss coins and guess them.

    Args:
        study: One that makes a promise.
        device: Where its networks are.
    """
    promise, plan = study.privacy.promise, noised_plan(study)
    assert promise is not None  # noqa: S101  # asked by callers that know
    small, sigma = _small(study), plan.noise_multiplier
    run = _means if promise.noised == "means" else _training
    bare, noised = (run(small, plan.sampling_rate, noise, plan.most_steps, device) for noise in (0.0, sigma))
    return CanaryRun(
        coins=noised.coins,
        bare=bare.proved,
        promised=noised.proved,
        epsilon=epsilon([plan.whole()], promise.delta),
        noise=noised.deviation / (sigma * promise.clip_norm),
        draws=noised.draws,
        reach=bare.reach,
    )


class _Heard:
    """What noised sums tell whoever listens for canaries.

    Args:
        directions: In which canaries move a sum, (P, m), orthonormal.

    Attributes:
        along: How far they were moved along each, in all; (m,).
        furthest: How far along any one sum lay, either way, beside what patients may give.
        draws: Numbers heard where no canary is.
        squares: Their sum of squares.
    """

    def __init__(self, directions: Tensor) -> None:
        self._directions, self._last = directions, torch.zeros_like(directions[:, 0])
        self.along, self.furthest, self.draws = torch.zeros_like(directions[0]), 0.0, 0
        self.squares = 0.0

    def hear(self, released: Tensor, of_patients: Tensor | None = None) -> None:
        """One noised sum, (P,), and what patients may have given to it, likewise, if any could."""
        released = released.to(self._directions.dtype)
        beside = released if of_patients is None else released - of_patients.to(released)
        self.furthest = max(self.furthest, (self._directions.T @ beside).abs().max().item())
        along = self._directions.T @ released
        rest = released - self._directions @ along
        # Against the sum before it: what patients give hardly changes from step to step, and noise repeated is none.
        changed = (rest - self._last).square().sum().item()
        self.squares += changed / 2 if self.draws else changed
        self._last, self.along = rest, self.along + along
        self.draws += len(self._directions) - self._directions.shape[1]


@dataclass(frozen=True)
class _Guessed:
    """Of one question: coins, lower bound of ε, what was heard, how far a canary moved a sum at most (in C)."""

    coins: int
    proved: float
    heard: Sequence[_Heard]
    reach: float

    @property
    def draws(self) -> int:
        """Numbers heard where no canary is."""
        return sum(one.draws for one in self.heard)

    @property
    def deviation(self) -> float:
        """Their standard deviation."""
        return math.sqrt(sum(one.squares for one in self.heard) / self.draws)


def _training(study: Study, rate: float, noise: float, steps: int, device: Device) -> _Guessed:
    """As many trainings as it takes for all canaries to have a direction of their own."""
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked by callers that know
    at_once = min(CANARIES, 2 * numbers_noised(study) // 3)
    heard, right, coins = list[_Heard](), 0, 0
    while coins < CANARIES:
        tossed, one = _one_training(study, rate, noise, steps, at_once, device)
        said = one.along.cpu().numpy() > steps * rate * promise.clip_norm / 2
        heard, right, coins = [*heard, one], right + int((said == tossed).sum()), coins + len(tossed)
    proved = one_run_epsilon(right, coins, coins, promise.delta)
    return _Guessed(coins, proved, heard, max(one.furthest for one in heard) / promise.clip_norm)


class _OverheardSum(DrawnSum):
    """A :class:`.DrawnSum` that keeps what the made-up patients may give: without noise the rest is the canaries'.

    Attributes:
        of_patients: Of the last step, (P,), each no longer than C.
    """

    of_patients: Tensor

    def mean(self, gradient_of: Callable[[int], Sequence[Tensor]], size: int) -> Tensor:
        """As of any study."""
        given: list[Tensor] = []

        def overheard(patient: int) -> Sequence[Tensor]:
            parts = gradient_of(patient)
            given.append(disclosed(clipped(parts, self._how.clip_norm)))
            return parts

        mean = super().mean(overheard, size)
        self.of_patients = sum(given, torch.zeros_like(mean))
        return mean


def _one_training(
    study: Study, rate: float, noise: float, steps: int, canaries: int, device: Device
) -> tuple[NDArray[np.bool_], _Heard]:
    """One training of the network that patients move, so many canaries beside them: their coins, and what was heard."""
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked by callers that know
    random, state = SecretRandom(device.torch), new_state(study, study.seed, device)
    discriminating = promise.noised in DISCRIMINATING
    network = state.discriminator if discriminating else state.generator
    names = noised_parameters(network, promise.noised)
    noised = [dict(network.named_parameters())[name] for name in names]
    size = sum(parameter.numel() for parameter in noised)
    directions = torch.linalg.qr(random.normal(size * canaries).view(size, canaries))[0]
    coins = random.numpy.random(canaries) < 0.5
    loud = tuple(_LOUDNESS * promise.clip_norm * directions[:, i] for i in np.flatnonzero(coins))
    patients, public = PrivatePatients(_made_up(study, _PATIENTS), study, device), _made_up(study, 1)
    how, heard = NoisedSum(promise.clip_norm, noise, rate * (_PATIENTS + canaries)), _Heard(directions)
    sums = _OverheardSum(_PATIENTS, rate, how, random, steps, loud)
    if not discriminating:
        loose = NoisedSum(promise.clip_norm, 0.0, 1.0)
        # What all made-up patients give is nearly the same at every step, and whoever guesses knows it.
        alone = DrawnSum(_PATIENTS, 1.0, loose, random, 1)
        known = _gradients(PrivateGeneratorStep(patients, alone, names, random), state)
        generating = PrivateGeneratorStep(patients, sums, names, random)
        for _ in range(steps):
            released = _gradients(generating, state) * how.expected_batch
            heard.hear(released - rate * known, sums.of_patients.to(released) - rate * known)
        return coins, heard

    step = PrivateDiscriminatorStep(patients, sums, names, promise.discriminator_steps, random, promise.fakes)
    for number in range(steps // promise.discriminator_steps):
        batch = draw_batch(public, study, device, step=number, seed=study.seed)
        with torch.no_grad(), device.autocast():
            fake = state.generator(batch.given, batch.noise)

        def listen(*_: object, given: Tensor = batch.given, fake: Tensor = fake) -> None:
            released = torch.cat([parameter.grad.reshape(-1) for parameter in noised if parameter.grad is not None])
            if promise.fakes == "public-label-maps":  # whoever listens can compute what these pull, and takes it off
                released = released - gradient_of_fakes(state, names, given, fake)
            heard.hear(released * how.expected_batch, sums.of_patients)

        listening = state.discriminator_optimiser.register_step_pre_hook(listen)
        step(state, batch, fake)
        listening.remove()
    return coins, heard


def _gradients(step: PrivateGeneratorStep, state: TrainingState) -> Tensor:
    """What one step releases, (P,)."""
    return torch.cat([slope.reshape(-1) for _, slope in step.gradient(state)])


def _means(study: Study, rate: float, noise: float, steps: int, device: Device) -> _Guessed:
    """Many runs of the noised means, each with the canary in or out."""
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked by callers that know
    random, scans = SecretRandom(device.torch), _made_up(study, _PATIENTS, canary=True)
    public = public_means(scans.only(range(_PATIENTS)), study, device)
    how = NoisedSum(promise.clip_norm, noise, 1.0)

    def of(rows: Sequence[int]) -> PrivatePatients:
        return PrivatePatients(scans.only(rows), study, device)

    without, with_canary = of(range(_PATIENTS)), of(range(_PATIENTS + 1))
    others, alone = (_without_noise(who, public, promise.clip_norm, random) for who in (without, of([_PATIENTS])))
    direction = alone / torch.linalg.vector_norm(alone)
    heard = _Heard(direction[:, None])
    runs = max(_FEWEST_RUNS, min(_MOST_RUNS, _MOST_STEPS // steps))
    coins, scores, before = random.numpy.random(runs) < 0.5, np.zeros(runs), 0.0
    for run, coin in enumerate(coins):
        for _ in range(steps):
            heard.hear(noised_vector(with_canary if coin else without, public, rate, how, random))
        scores[run], before = heard.along.item() - before, heard.along.item()
    said = scores > steps * rate * (direction @ (others + alone / 2)).item()
    of_in, of_out = said[coins], said[~coins]
    proved = epsilon_lower_bound(int(of_in.sum()), len(of_in), int(of_out.sum()), len(of_out), promise.delta)
    return _Guessed(runs, proved, [heard], torch.linalg.vector_norm(alone).item() / promise.clip_norm)


def _without_noise(patients: PrivatePatients, public: PublicMeans, clip_norm: float, random: SecretRandom) -> Tensor:
    """What all of these give the sum, clipped: whoever guesses knows it."""
    return noised_vector(patients, public, 1.0, NoisedSum(clip_norm, 0.0, 1.0), random)


def _small(study: Study) -> Study:
    """The study on small volumes, seen whole."""
    x, y, z = (min(n, _AXIS) for n in study.grid.shape)
    grid = study.grid.model_copy(update={"shape": (x, y, z)})
    return study.model_copy(update={"grid": grid, "training": study.training.model_copy(update={"patch": None})})


def _made_up(study: Study, patients: int, *, canary: bool = False) -> PreparedScans:
    """Patients nobody is: nested ellipsoids, each label of one intensity or nearly so; the canary of the brightest."""
    random = np.random.default_rng(study.seed)
    number, classes = patients + canary, schematic_classes(study)
    intensity = random.uniform(-0.5, 0.5, (len(study.channels), len(study.labels)))
    volumes = intensity[:, classes] + random.normal(0, 0.05, (number, len(study.channels), *classes.shape))
    if canary:
        volumes[-1] = 1.0
    return PreparedScans(
        volumes.clip(-1, 1).astype(np.float32),
        np.stack([classes] * number),
        tuple(f"made-up-{i:02d}" for i in range(number)),
        ("",) * number,
        np.zeros((number, 0)),
    )
