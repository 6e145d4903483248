"""Bring voxels of any orientation and spacing onto a study's grid.

Axes are permuted and flipped to RAS+ (an oblique remainder of up to 45° stays: nothing is rotated),
the spacing is matched by linear interpolation, and the middle is cropped or padded with zeros.
Volumes and label maps of one scan go through the same steps, so they stay aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from ..counted import counted
from ..errors import GeometryError
from .grid import Affine, Grid, Shape3, Spacing

SPACING_TOLERANCE = 0.01
"""Relative difference in voxel size below which an axis is not resampled."""

Voxels = TypeVar("Voxels", NDArray[np.float32], NDArray[np.uint8])


def voxel_sizes(affine: Affine) -> Spacing:
    """Millimetres between neighbours along each voxel axis.

    Args:
        affine: Voxel to world, shape (4, 4), RAS+, millimetres.

    Raises:
        GeometryError: wrong shape, a value that is not finite, or a singular matrix.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise GeometryError(
            f"an affine of shape {matrix.shape} or with values that are not finite",
            expected="a finite 4 by 4 matrix",
            remedy="Run 'fedphantom cohort check' to find the scan.",
        )
    sizes = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    if (sizes < 1e-6).any() or abs(np.linalg.det(matrix[:3, :3])) < 1e-3 * sizes.prod():
        raise GeometryError(
            "a singular affine: a voxel axis has no extent or lies in the plane of the others",
            expected="three independent voxel axes",
            remedy="Run 'fedphantom cohort check' to find the scan.",
        )
    return float(sizes[0]), float(sizes[1]), float(sizes[2])


def to_canonical(voxels: Voxels, affine: Affine) -> tuple[Voxels, Spacing]:
    """Permute and flip the axes to the nearest RAS+ orientation, without interpolation.

    Args:
        voxels: Shape (X, Y, Z) in file order.
        affine: Voxel to world, shape (4, 4), RAS+, millimetres.

    Returns:
        The voxels in RAS+ order, contiguous, and the voxel size along the new axes in millimetres.

    Raises:
        GeometryError: not three axes, or an affine as :func:`voxel_sizes` refuses it.
    """
    if voxels.ndim != 3:
        raise GeometryError(
            f"a volume with {counted(voxels.ndim, 'axis', 'axes')}",
            expected="3 axes",
            remedy="Split 4-D files into channels first.",
        )
    _, spacing = canonical_grid(voxels.shape, affine)
    orientation = io_orientation(affine)  # type: ignore[no-untyped-call]  # nibabel types little
    turned = apply_orientation(voxels, orientation)  # type: ignore[no-untyped-call]  # nibabel types little
    canonical: Voxels = np.ascontiguousarray(turned)
    return canonical, spacing


def canonical_grid(shape: tuple[int, ...], affine: Affine) -> tuple[Shape3, Spacing]:
    """Shape and voxel size that :func:`to_canonical` gives to a volume of shape (X, Y, Z); no voxel is needed.

    Raises:
        GeometryError: an affine as :func:`voxel_sizes` refuses it.
    """
    sizes = voxel_sizes(affine)
    orientation = io_orientation(affine)  # type: ignore[no-untyped-call]  # nibabel types little
    x, y, z = np.argsort(orientation[:, 0])  # the stored axis that becomes each of the new ones
    return (shape[x], shape[y], shape[z]), (sizes[x], sizes[y], sizes[z])


def place_volume(voxels: NDArray[np.float32], affine: Affine, grid: Grid) -> NDArray[np.float32]:
    """Place intensities on a grid: RAS+, linear resampling where the spacing differs, centre crop or zero pad.

    A coarser target is low-passed first, so that it averages instead of skipping voxels.

    Args:
        voxels: Shape (X, Y, Z) in file order, any unit.
        affine: Voxel to world, shape (4, 4), RAS+, millimetres.
        grid: Where to.

    Returns:
        Shape ``grid.shape``, same unit.

    Raises:
        GeometryError: as :func:`to_canonical`.
    """
    turned, spacing = to_canonical(np.asarray(voxels, dtype=np.float32), affine)
    return _crop_or_pad(_resample(turned, spacing, grid.spacing_mm), grid.shape)


def place_labels(labels: NDArray[np.uint8], affine: Affine, grid: Grid) -> NDArray[np.uint8]:
    """Place a label map on a grid as :func:`place_volume` does its scan.

    Each label is resampled as a share between 0 and 1 and the largest share wins, which keeps
    surfaces smooth where nearest-neighbour sampling leaves steps.

    Args:
        labels: Shape (X, Y, Z) in file order.
        affine: Voxel to world, shape (4, 4), RAS+, millimetres.
        grid: Where to.

    Returns:
        Shape ``grid.shape``; no value that was not there before, but 0 for padding.

    Raises:
        GeometryError: as :func:`to_canonical`.
    """
    turned, spacing = to_canonical(np.asarray(labels, dtype=np.uint8), affine)
    if not _differs(spacing, grid.spacing_mm):
        return _crop_or_pad(turned, grid.shape)
    values = np.unique(turned)
    resampled = np.full(_resampled_shape(turned.shape, spacing, grid.spacing_mm), values[0], dtype=np.uint8)
    largest = np.full(resampled.shape, -1.0, dtype=np.float32)
    for value in values:
        share = _resample((turned == value).astype(np.float32), spacing, grid.spacing_mm)
        wins = share > largest
        resampled[wins] = value
        largest[wins] = share[wins]
    return _crop_or_pad(resampled, grid.shape)


def covering_grid(shape: tuple[int, ...], affine: Affine, spacing_mm: Spacing) -> Grid:
    """The grid of another spacing that holds a whole volume: nothing is cropped or padded on the way to it.

    Args:
        shape: Voxels (X, Y, Z) in file order.
        affine: Voxel to world, shape (4, 4), RAS+, millimetres.
        spacing_mm: Of the new grid.

    Raises:
        GeometryError: as :func:`to_canonical`.
    """
    turned, spacing = to_canonical(np.empty(shape, dtype=np.uint8), affine)
    return Grid(_resampled_shape(turned.shape, spacing, spacing_mm), spacing_mm)


def labels_on_volume(
    shares: NDArray[np.float32], values: Sequence[int], shape: tuple[int, ...], affine: Affine, spacing_mm: Spacing
) -> NDArray[np.uint8]:
    """Bring label shares from a volume's covering grid back onto the volume itself; the largest share wins.

    The way back of :func:`place_labels`, one label at a time, so that memory does not grow with their number.

    Args:
        shares: Shape (L, X, Y, Z), on :func:`covering_grid`.
        values: The label value of each.
        shape: The volume's voxels in file order.
        affine: The volume's, shape (4, 4), RAS+, millimetres.
        spacing_mm: Of the covering grid.

    Returns:
        Label values, shape ``shape``, in file order.

    Raises:
        GeometryError: as :func:`to_canonical`.
    """
    turned, spacing = to_canonical(np.empty(shape, dtype=np.uint8), affine)
    step = 1 / _step(spacing, spacing_mm)
    offset = (np.array(shares.shape[1:]) - 1) / 2 - step * (np.array(turned.shape) - 1) / 2
    out = np.full(turned.shape, values[0], dtype=np.uint8)
    largest = np.full(turned.shape, -1.0, dtype=np.float32)
    for share, value in zip(shares, values, strict=True):
        here = affine_transform(
            share, step, offset, output_shape=turned.shape, output=np.float32, order=1, mode="nearest"
        )
        wins = here > largest
        out[wins] = value
        largest[wins] = here[wins]
    orientation = io_orientation(affine)  # type: ignore[no-untyped-call]  # nibabel types little
    to_file = ornt_transform(axcodes2ornt(("R", "A", "S")), orientation)  # type: ignore[no-untyped-call]  # as above
    return np.ascontiguousarray(apply_orientation(out, to_file))  # type: ignore[no-untyped-call]  # as above


def _step(source: Spacing, target: Spacing) -> NDArray[np.float64]:
    """Target voxels in source voxels along each axis; exactly 1 where the axis is not resampled."""
    return np.array([
        1.0 if abs(t / s - 1) <= SPACING_TOLERANCE else t / s for s, t in zip(source, target, strict=True)
    ])  # fmt: skip


def _differs(source: Spacing, target: Spacing) -> bool:
    return any(abs(s / t - 1) > SPACING_TOLERANCE for s, t in zip(source, target, strict=True))


def _resampled_shape(shape: tuple[int, ...], source: Spacing, target: Spacing) -> Shape3:
    new = [
        n if abs(s / t - 1) <= SPACING_TOLERANCE else max(1, round(n * s / t))
        for n, s, t in zip(shape, source, target, strict=True)
    ]
    return new[0], new[1], new[2]


def _resample(voxels: NDArray[np.float32], source: Spacing, target: Spacing) -> NDArray[np.float32]:
    if not _differs(source, target):
        return voxels
    shape = _resampled_shape(voxels.shape, source, target)
    step = _step(source, target)
    # The Gaussian whose width, added to a source voxel's, is a target voxel's (variances of boxes: n²/12).
    blur = np.sqrt(np.maximum(step**2 - 1, 0) / 12)
    smooth = gaussian_filter(voxels, blur, mode="nearest") if blur.any() else voxels
    centre = (np.array(voxels.shape) - 1) / 2
    offset = centre - step * (np.array(shape) - 1) / 2
    out: NDArray[np.float32] = affine_transform(
        smooth, step, offset, output_shape=shape, output=np.float32, order=1, mode="nearest"
    )
    return out


def _crop_or_pad(voxels: Voxels, shape: Shape3) -> Voxels:
    taken, put = [], []
    for have, want in zip(voxels.shape, shape, strict=True):
        length = min(have, want)
        start, at = (have - length) // 2, (want - length) // 2
        taken.append(slice(start, start + length))
        put.append(slice(at, at + length))
    out: Voxels = np.zeros(shape, dtype=voxels.dtype)
    out[tuple(put)] = voxels[tuple(taken)]
    return out
