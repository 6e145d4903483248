"""What the patients' structures look like on average, noised once: the cheapest that a site can say of its scanner.

One noised sum for a whole study, where a discriminator takes hundreds: per ε the noise is some twenty times smaller
(PRIVACY §1.4), and what it buys was measured to be worth more (``docs/experiments.md``). The vector of a patient holds,
label by label, how far the patient's means lie from public ones, and whether the label is there.
"""

from __future__ import annotations

import math

from torch import Tensor

from ...common.gan.label_means import PublicMeans, TargetMeans, label_means
from .longest_means import LARGEST_SHIFT
from .patients import PrivatePatients
from .randomness import SecretRandom
from .step import NoisedSum, noised_mean


def noised_means(
    patients: PrivatePatients,
    public: PublicMeans,
    sampling_rate: float,
    how: NoisedSum,
    random: SecretRandom,
) -> TargetMeans:
    """Take the one noised step.

    Args:
        patients: Of the site, those in training.
        public: Means over public scans.
        sampling_rate: q.
        how: Clipping and noise. A patient's vector is divided by the root of its length, so that a clip norm of 1
            lets pass what lies one public standard deviation away on average.
        random: Sampling and noise.

    Returns:
        What the generator is to match; no longer private.
    """
    labels, features = public.centre.shape
    size = labels * (features + 1)
    mean = noised_vector(patients, public, sampling_rate, how, random) * math.sqrt(size)
    sums, shares = mean[: labels * features].view(labels, features), mean[labels * features :]
    noise = how.noise_multiplier * how.clip_norm * math.sqrt(size) / how.expected_batch
    # Divided by a share of patients that is noisy itself, as in a ridge regression: the less a label stands above the
    # noise, a public constant, the nearer to the public means it stays, and the less it is relied on.
    share = shares.clamp(0, 1)
    ridge = share.square() + noise**2 + 1e-12
    shift = sums * (share / ridge)[:, None]
    return TargetMeans(shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT).float(), (share.square() / ridge).float())


def noised_vector(
    patients: PrivatePatients,
    public: PublicMeans,
    sampling_rate: float,
    how: NoisedSum,
    random: SecretRandom,
) -> Tensor:
    """What the step releases, (P,), before anything is made of it: shifts and then presence, over the root of P.

    No patient's part is longer than :func:`.longest_means.longest_means`, whatever the clip norm.
    """
    size = public.centre.numel() + len(public.centre)

    def vector_of(patient: int) -> list[Tensor]:
        given, volume = patients.whole(patient, random)
        means, presence = label_means(given, volume)
        shift = public.shift(means, presence).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
        return [part / math.sqrt(size) for part in (shift, presence)]

    drawn = random.poisson_sample(len(patients), sampling_rate).tolist()
    return noised_mean(drawn, vector_of, size, how, random)
