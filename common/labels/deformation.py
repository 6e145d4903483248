"""Affine and smooth warps of a volume: parameters are drawn by one function and applied by another.

All motion is in millimetres about the grid's centre, so the same parameters mean the same warp at
every resolution. Affine and smooth part become one map, interpolated once.

Source: scaling and squaring of a stationary velocity field, Arsigny et al. 2006 (doi:10.1007/11866565_113).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import correlate1d, map_coordinates

from ..errors import DataError
from ..volumes.grid import Spacing

Triple = tuple[float, float, float]
Field = NDArray[np.float32]
"""One vector a voxel, shape (3, X, Y, Z)."""

_SLAB = 8
"""Planes looked through for folds at a time: they stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class AffineParameters:
    """How the anatomy moves: scaled along the axes, then rotated, then shifted, about the grid's centre.

    Attributes:
        rotation_deg: About the X, then Y, then Z axis.
        scale: Along (X, Y, Z); above 1 the anatomy grows.
        shift_mm: Along (X, Y, Z).
    """

    rotation_deg: Triple
    scale: Triple
    shift_mm: Triple

    def matrix(self) -> NDArray[np.float64]:
        """Old position to new position, shape (3, 3), without the shift."""
        out = np.diag(self.scale).astype(np.float64)
        for axis, degrees in enumerate(self.rotation_deg):
            cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            turn = np.eye(3)
            i, j = (axis + 1) % 3, (axis + 2) % 3
            turn[i, i], turn[i, j], turn[j, i], turn[j, j] = cos, -sin, sin, cos
            out = turn @ out
        return out


@dataclass(frozen=True, kw_only=True)
class DiffeomorphismParameters:
    """A smooth invertible warp.

    Attributes:
        seed: Of the velocity field's noise.
        displacement_mm: Standard deviation of the velocity along each axis; for a gentle warp, of the
            displacement too.
        smoothness_mm: Standard deviation of the Gaussian that smooths the noise; at least one voxel is used.
    """

    seed: int
    displacement_mm: float
    smoothness_mm: float


def draw_affine(rng: np.random.Generator, rotation_deg: float, scale: float, shift_mm: float) -> AffineParameters:
    """Draw each rotation from ±``rotation_deg``, each factor from 1 ± ``scale``, each shift from ±``shift_mm``."""
    turn = rng.uniform(-rotation_deg, rotation_deg, 3)
    grow = rng.uniform(1 - scale, 1 + scale, 3)
    move = rng.uniform(-shift_mm, shift_mm, 3)
    return AffineParameters(rotation_deg=_triple(turn), scale=_triple(grow), shift_mm=_triple(move))


def draw_diffeomorphism(
    rng: np.random.Generator, displacement_mm: float, smoothness_mm: float
) -> DiffeomorphismParameters:
    """Draw the seed of a warp of given strength and smoothness."""
    return DiffeomorphismParameters(
        seed=int(rng.integers(2**63)), displacement_mm=displacement_mm, smoothness_mm=smoothness_mm
    )


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: Spacing, smoothness_mm: float
) -> NDArray[np.float32]:
    """Gaussian noise of unit variance, smoothed by a Gaussian of ``smoothness_mm``; shape (X, Y, Z).

    It is drawn on a lattice half as wide as the Gaussian, or a voxel where that is more, and interpolated
    by cubic splines: cheap, and stationary up to the border. At least one voxel of smoothing is used.
    """
    sigma = max(smoothness_mm, *spacing_mm)
    step = max(sigma / 2, min(spacing_mm))
    reach, spare = int(np.ceil(4 * sigma / step)), 4
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / sigma) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    nodes = [int(np.ceil((n - 1) * mm / step)) + 1 + 2 * spare for n, mm in zip(shape, spacing_mm, strict=True)]
    noise = rng.standard_normal([n + 2 * reach for n in nodes])
    for axis in range(3):
        noise = correlate1d(noise, kernel, axis=axis, mode="constant")
    noise = noise[reach:-reach, reach:-reach, reach:-reach]
    return _refine(noise, step, shape, spacing_mm)


def displacement_field(shape: tuple[int, int, int], spacing_mm: Spacing, parameters: DiffeomorphismParameters) -> Field:
    """Displacement of the smooth warp at each voxel, shape (3, X, Y, Z), in millimetres.

    The velocity is integrated on a lattice a quarter as wide as its Gaussian, which reaches beyond the
    grid by one Gaussian, and interpolated by cubic splines. In theory no such map folds; between lattice
    points a strong one does.

    Raises:
        DataError: the map folds (:func:`is_fold_free`).
    """
    if parameters.displacement_mm == 0:
        return np.zeros((3, *shape), dtype=np.float32)
    sigma = max(parameters.smoothness_mm, *spacing_mm)
    step = max(sigma / 4, min(spacing_mm))
    margin = int(np.ceil(sigma / step))
    x, y, z = (int(np.ceil((n - 1) * mm / step)) + 1 + 2 * margin for n, mm in zip(shape, spacing_mm, strict=True))
    rng = np.random.default_rng(parameters.seed)
    field = np.stack([smooth_noise(rng, (x, y, z), (step, step, step), sigma) for _ in range(3)])
    field *= parameters.displacement_mm / step  # lattice steps from here on
    # Halve until nothing moves by more than an eighth of a step, then square the map as often.
    halvings = max(0, int(np.ceil(np.log2(max(float(np.abs(field).max()), 1e-6) / 0.125))))
    field /= 2**halvings
    here = np.indices((x, y, z), dtype=np.float32)
    for _ in range(halvings):
        there = here + field
        field = field + np.stack([_interpolate(component, there) for component in field])
    displacement = np.stack([_refine(component, step, shape, spacing_mm) for component in field]) * np.float32(step)
    if not is_fold_free(displacement, spacing_mm):
        raise DataError(
            f"a smooth warp by {parameters.displacement_mm:g} mm over {parameters.smoothness_mm:g} mm folds the map",
            expected="a Jacobian determinant above 0 everywhere",
            remedy="Choose a smaller displacement_mm or a larger smoothness_mm.",
        )
    return displacement


def is_fold_free(displacement: Field, spacing_mm: Spacing) -> bool:
    """Whether x → x + ``displacement`` keeps its orientation at every corner of every cell between voxels.

    A corner's Jacobian is of the three edges that meet there. Differences over two voxels would not see a map that
    swaps neighbours.
    """
    return all(
        _slab_is_fold_free(displacement[:, start : start + _SLAB + 1], spacing_mm)
        for start in range(0, displacement.shape[1] - 1, _SLAB)
    )


def _slab_is_fold_free(displacement: Field, spacing_mm: Spacing) -> bool:
    rise = [np.diff(displacement, axis=axis + 1) / np.float32(mm) for axis, mm in enumerate(spacing_mm)]
    # A matrix less than 1 from the identity, by the Frobenius norm, has a positive determinant: gentle maps end here.
    if sum(float(np.square(along).sum(axis=0).max(initial=0)) for along in rise) < 1:
        return True
    for axis, along in enumerate(rise):
        along[axis] += 1
    x, y, z = rise
    first, second = slice(None, -1), slice(1, None)
    return all(
        bool((_determinant(x[:, :, j, k], y[:, i, :, k], z[:, i, j]) > 0).all())
        for i, j, k in product((first, second), repeat=3)
    )


def _determinant(x: Field, y: Field, z: Field) -> NDArray[np.float32]:
    """Of the matrices of three columns (3, X, Y, Z) each; shape (X, Y, Z)."""
    out: NDArray[np.float32] = x[0] * (y[1] * z[2] - y[2] * z[1])
    out -= x[1] * (y[0] * z[2] - y[2] * z[0])
    out += x[2] * (y[0] * z[1] - y[1] * z[0])
    return out


def sampling_points(
    shape: tuple[int, int, int],
    spacing_mm: Spacing,
    affine: AffineParameters,
    diffeomorphism: DiffeomorphismParameters,
) -> Field:
    """Where each voxel of the warped volume is read from, shape (3, X, Y, Z), in voxels of the old volume.

    The smooth warp is applied after the affine one, as seen from the anatomy.
    """
    millimetres = np.asarray(spacing_mm)[:, None, None, None]
    centre = ((np.array(shape) - 1) / 2)[:, None, None, None]
    place = (np.indices(shape) - centre) * millimetres + displacement_field(shape, spacing_mm, diffeomorphism)
    place -= np.asarray(affine.shift_mm)[:, None, None, None]
    place = np.einsum("ij,jxyz->ixyz", np.linalg.inv(affine.matrix()), place)
    return np.asarray(place / millimetres + centre, dtype=np.float32)


def warp_labels(
    labels: NDArray[np.uint8],
    spacing_mm: Spacing,
    affine: AffineParameters,
    diffeomorphism: DiffeomorphismParameters,
) -> NDArray[np.uint8]:
    """Warp a label map: each label's share is interpolated linearly and the largest share wins.

    Args:
        labels: Shape (X, Y, Z). What lies outside is taken to be as at the border.
        spacing_mm: Voxel size along (X, Y, Z).
        affine: Rotation, scale and shift.
        diffeomorphism: The smooth part.

    Returns:
        Shape (X, Y, Z), with no value that ``labels`` lacks.
    """
    points = sampling_points(_shape(labels), spacing_mm, affine, diffeomorphism)
    values = np.unique(labels)
    out = np.full(labels.shape, values[0], dtype=np.uint8)
    largest = np.full(labels.shape, -1.0, dtype=np.float32)
    for value in values:
        share = _interpolate((labels == value).astype(np.float32), points)
        wins = share > largest
        out[wins] = value
        largest[wins] = share[wins]
    return out


def _interpolate(voxels: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = map_coordinates(voxels, points, output=np.float32, order=1, mode="nearest")
    return out


def _refine(
    lattice: NDArray[np.floating], step: float, shape: tuple[int, int, int], spacing_mm: Spacing
) -> NDArray[np.float32]:
    """Cubic splines from a lattice of ``step`` mm to a grid around the same centre, one axis after the other."""
    out = lattice
    for n, mm in zip(shape, spacing_mm, strict=True):
        nodes = (np.arange(out.shape[0]) - (out.shape[0] - 1) / 2) * step
        places = (np.arange(n) - (n - 1) / 2) * mm
        weights = make_interp_spline(nodes, np.eye(len(nodes)), k=3)(places)  # (place, node)
        out = np.tensordot(out, weights, axes=(0, 1))  # the axis done goes to the end
    return np.ascontiguousarray(out, dtype=np.float32)


def _shape(voxels: NDArray[np.uint8] | NDArray[np.float32]) -> tuple[int, int, int]:
    x, y, z = voxels.shape
    return x, y, z


def _triple(values: NDArray[np.float64]) -> Triple:
    return float(values[0]), float(values[1]), float(values[2])
