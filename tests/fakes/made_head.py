"""A head made of ellipsoids: scalp, skull, brain, nose, jaw and neck. No person's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]

T1 = {"scalp": 900.0, "skull": 60.0, "brain": 600.0, "face": 500.0}
T2 = {"scalp": 350.0, "skull": 40.0, "brain": 700.0, "face": 300.0}


@dataclass(frozen=True, kw_only=True)
class Head:
    """How it lies and what is done to it.

    Attributes:
        pitch: Degrees; above 0 the chin is up.
        yaw: Degrees, to one side.
        scale: Its size; 1 is an adult's.
        spacing: Millimetres between voxels.
        contrast: Intensity of each part.
        noisy_air: Whether air is noise as scanned, or one value as some scanners leave it.
        defaced: Whether a block in front of and below the brain was set to 0, as pydeface does.
        size: Field of view in mm.
        shift: Of the head in it, in mm: above 0 to the right, to the front, up.
    """

    pitch: float = 0.0
    yaw: float = 0.0
    scale: float = 1.0
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
    contrast: tuple[float, float, float, float] = tuple(T1.values())  # type: ignore[assignment]  # four of them
    noisy_air: bool = True
    defaced: bool = False
    size: tuple[float, float, float] = (190.0, 250.0, 250.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 20.0)
    seed: int = 0

    @property
    def affine(self) -> NDArray[np.float64]:
        """Of the volume, RAS."""
        return np.diag([*self.spacing, 1.0])

    def volume(self) -> Volume:
        """Shape (X, Y, Z), RAS."""
        counts = [int(mm / step) for mm, step in zip(self.size, self.spacing, strict=True)]
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(counts, self.spacing, strict=True)]
        at = np.stack(np.meshgrid(*axes, indexing="ij")) - np.array(self.shift)[:, None, None, None]
        x, y, z = np.tensordot(_turn(self.pitch, self.yaw).T / self.scale, at, axes=1)
        scalp, skull, brain, flesh = self.contrast
        out = np.zeros(x.shape)
        jaw = _inside(x, y, z, (0, 48, -70), (55, 50, 62))
        nose = _inside(x, y, z, (0, 96, -52), (14, 20, 24))
        neck = (np.hypot(x, y + 25) < 58) & (z < -50)
        out[jaw | nose | neck] = flesh
        out[_inside(x, y, z, (0, 0, 0), (77, 98, 88))] = scalp
        out[_inside(x, y, z, (0, 0, 0), (71, 92, 82))] = skull
        within = _inside(x, y, z, (0, 0, 0), (65, 86, 76))
        out[within] = brain
        rng = np.random.default_rng(self.seed)
        grain = rng.normal(0, 12, (2, *x.shape))
        measured = np.hypot(out + grain[0], grain[1])
        if not self.noisy_air:
            measured[out == 0] = 0
        if self.defaced:
            measured[(y > 46) & (z < -32 + 0.4 * (y - 46))] = 0
        return measured.astype(np.float32)


def _inside(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
) -> NDArray[np.bool_]:
    parts = zip((x, y, z), centre, radii, strict=True)
    return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in parts) < 1)


def _turn(pitch: float, yaw: float) -> NDArray[np.float64]:
    p, q = np.deg2rad(pitch), np.deg2rad(yaw)
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    shake = np.array([[np.cos(q), -np.sin(q), 0], [np.sin(q), np.cos(q), 0], [0, 0, 1]])
    return np.asarray(shake @ nod)
