"""The contrast model: how a brain label map looks on a given scanner in T1, T1c, T2 and FLAIR.

Kept apart from the label sampler: labels may be public, contrasts belong to a scanner and a patient.
Intensities follow the order radiologists expect, and no scanner or patient changes that order:

    T1      white > grey > csf
    T1c     as T1, and the enhancing rim brightest
    T2      csf > grey > white; necrosis and oedema bright
    FLAIR   csf darkest, oedema brightest
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ..labels.brain import BRAIN_LABELS
from ..labels.deformation import smooth_noise
from ..volumes.grid import Spacing

CHANNELS = ("T1", "T1c", "T2", "FLAIR")

Four = tuple[float, float, float, float]

_MEANS = {
    #            T1    T1c   T2    FLAIR
    "csf":       (0.18, 0.18, 1.00, 0.12),
    "grey":      (0.58, 0.60, 0.62, 0.62),
    "white":     (0.80, 0.82, 0.44, 0.50),
    "oedema":    (0.46, 0.47, 0.82, 0.98),
    "enhancing": (0.50, 1.15, 0.70, 0.78),
    "necrosis":  (0.28, 0.29, 0.92, 0.38),
}  # fmt: skip
"""Mean intensity of each tissue in each channel, in arbitrary units."""

_TEXTURE = {"csf": 0.01, "grey": 0.03, "white": 0.025, "oedema": 0.05, "enhancing": 0.06, "necrosis": 0.05}
"""Standard deviation of the texture within each tissue, in the same units."""

_TEXTURE_MM = 3.0
_BIAS_MM = 60.0
_PARTIAL_VOLUME = 0.4
"""Standard deviation, in voxels, of the blur by which neighbouring tissues share a voxel."""


@dataclass(frozen=True, kw_only=True)
class ScannerParameters:
    """One site's scanner; values per channel are in the order of :data:`CHANNELS`.

    Attributes:
        gain: Factor from our arbitrary unit to the file's numbers.
        gamma: Exponent on the intensities: above 1 spreads the bright tissues, below 1 the dark ones.
        noise: Standard deviation of the Rician noise, in our unit.
        blur_mm: Standard deviation of the point spread.
        bias: Standard deviation of the logarithm of the bias field.
    """

    gain: Four
    gamma: Four
    noise: float
    blur_mm: float
    bias: float


@dataclass(frozen=True, kw_only=True)
class PatientContrast:
    """What differs between patients on one scanner.

    Attributes:
        tissue: Factor on each tissue's mean: for csf, grey, white, oedema, enhancing, necrosis; one tuple a channel.
        seed: Of texture, bias field and noise.
    """

    tissue: tuple[tuple[float, ...], ...]
    seed: int


def draw_scanner(rng: np.random.Generator, site: int = 0) -> ScannerParameters:
    """Draw the scanner of a site.

    Sites that start from equal generators share one uniform draw, moved around its range by the golden
    ratio for each site: every parameter of the first three differs by almost a quarter of its range.
    """
    golden = (math.sqrt(5) - 1) / 2
    shares = (rng.random(11) + site * golden) % 1

    def between(low: float, high: float, share: NDArray[np.float64]) -> NDArray[np.float64]:
        return low + (high - low) * share

    return ScannerParameters(
        gain=_four(np.exp(between(math.log(150), math.log(1500), shares[0:4]))),
        gamma=_four(between(0.75, 1.35, shares[4:8])),
        noise=float(between(0.01, 0.05, shares[8])),
        blur_mm=float(between(0.4, 1.6, shares[9])),
        bias=float(between(0.03, 0.15, shares[10])),
    )


def draw_contrast(rng: np.random.Generator) -> PatientContrast:
    """Draw a patient's own deviation: up to 4 % of each tissue's mean, too little to change their order."""
    tissue = rng.uniform(0.96, 1.04, (len(CHANNELS), len(_MEANS)))
    return PatientContrast(tissue=tuple(tuple(float(f) for f in row) for row in tissue), seed=int(rng.integers(2**63)))


def render(
    labels: NDArray[np.uint8], spacing_mm: Spacing, scanner: ScannerParameters, patient: PatientContrast
) -> NDArray[np.float32]:
    """Render a label map as a skull-stripped scan.

    Args:
        labels: Shape (X, Y, Z), values as :data:`~fedphantom.common.labels.brain.BRAIN_LABELS`.
        spacing_mm: Voxel size along (X, Y, Z).
        scanner: The site's.
        patient: The patient's.

    Returns:
        Intensities ≥ 0, shape (4, X, Y, Z) in the order of :data:`CHANNELS`; 0 outside the brain.
    """
    rng = np.random.default_rng(patient.seed)
    x, y, z = labels.shape
    brain = (labels != 0).astype(np.float32)
    sigma = [float(np.hypot(_PARTIAL_VOLUME, scanner.blur_mm / mm)) for mm in spacing_mm]
    inside = np.maximum(gaussian_filter(brain, sigma), 1e-3)
    bias = np.exp(scanner.bias * smooth_noise(rng, (x, y, z), spacing_mm, _BIAS_MM))

    out = np.empty((len(CHANNELS), x, y, z), dtype=np.float32)
    for channel, (gain, gamma) in enumerate(zip(scanner.gain, scanner.gamma, strict=True)):
        mean, deviation = np.zeros(256, dtype=np.float32), np.zeros(256, dtype=np.float32)
        for tissue, factor in zip(_MEANS, patient.tissue[channel], strict=True):
            mean[BRAIN_LABELS[tissue]] = (_MEANS[tissue][channel] * factor) ** gamma
            deviation[BRAIN_LABELS[tissue]] = _TEXTURE[tissue]
        ideal = mean[labels] + deviation[labels] * smooth_noise(rng, (x, y, z), spacing_mm, _TEXTURE_MM)
        # Divided by the brain's own blur, so that its rim does not darken into the removed skull.
        signal = np.maximum(gaussian_filter(ideal * brain, sigma) / inside, 0) * bias
        real, imaginary = rng.normal(0, scanner.noise, (2, x, y, z))
        out[channel] = gain * np.sqrt((signal + real) ** 2 + imaginary**2) * brain
    return out


def _four(values: NDArray[np.float64]) -> Four:
    a, b, c, d = (float(v) for v in values)
    return a, b, c, d
