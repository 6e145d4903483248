"""The voxels of a stack: stored values to intensities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import RLELossless

from .opened import read_whole, reading
from .reasons import Faulty
from .stack import Stack


def read_voxels(stack: Stack) -> NDArray[np.float32]:
    """Read a volume, one file at a time.

    Returns:
        Intensities, shape (columns, rows, slices), float32, finite, rescaled slice by slice.

    Raises:
        Faulty: a file has changed or is damaged.
    """
    first = stack.slices[0]
    volume = np.empty((first.columns, first.rows, len(stack.slices)), dtype=np.float32)
    path, frames = None, np.empty(0)
    for number, one in sorted(enumerate(stack.slices), key=lambda item: (item[1].path, item[0])):
        if one.path != path:
            path, frames = one.path, _stored(one.path)
        plane = frames if one.frame is None else frames[one.frame]
        if plane.shape != (one.rows, one.columns):
            raise Faulty("unreadable")
        with np.errstate(over="ignore"):
            volume[:, :, number] = (plane * np.float64(one.slope) + one.intercept).T
    if not np.isfinite(volume).all():
        raise Faulty("pixel-kind")
    return volume


def _stored(path: Any) -> NDArray[Any]:
    """A file's stored values, shape (rows, columns) or (frames, rows, columns).

    The decoder keeps the significant bits alone: old files hide an overlay, and with it text, in the others.
    """
    with reading():
        dataset = read_whole(path)
        syntax = dataset.file_meta.TransferSyntaxUID
        plugin = "pydicom" if syntax == RLELossless else ""
        options: Any = {"correct_unused_bits": True}  # pydicom gives each option the type of all together
        stored, _ = get_decoder(syntax).as_array(dataset, raw=True, decoding_plugin=plugin, **options)
        return stored
