"""Generator parameters as a whole: which names and shapes they have, packed flat for the wire, and their hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..counted import counted
from ..exchange import Parameters


@dataclass(frozen=True)
class ParameterSpec:
    """Names and shapes, sorted by name; every value is float32. Without a name it fits no parameter at all.

    Both sides derive it from the network they built themselves, never from what the other side sent.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.shapes]
        if names != sorted(set(names)):
            raise ValueError("a parameter specification needs sorted names, none twice")
        if any(axis < 1 for _, shape in self.shapes for axis in shape):
            raise ValueError("a parameter's axes are 1 or longer")

    @classmethod
    def of(cls, parameters: Parameters) -> ParameterSpec:
        """The specification that these parameters fit."""
        return cls(tuple((name, tuple(map(int, parameters[name].shape))) for name in sorted(parameters)))

    @property
    def values(self) -> int:
        """Number of float32 values over all parameters."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def bytes(self) -> int:
        """Size of all values as float32."""
        return 4 * self.values

    def digest(self) -> str:
        """SHA-256 (hex) over names and shapes."""
        return hashlib.sha256(json.dumps(self.shapes, separators=(",", ":")).encode()).hexdigest()

    def problem(self, parameters: Mapping[str, object]) -> str | None:
        """What is wrong with the parameters, as one phrase that quotes no foreign text; None if they fit."""
        misnamed = self._name_problem(parameters.keys())
        if misnamed:
            return misnamed
        for name, shape in self.shapes:
            array = parameters[name]
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                return f"parameter '{name}' is not float32"
            if array.shape != shape:
                return f"parameter '{name}' has shape {array.shape}, not {shape}"
            if not np.isfinite(array).all():
                return f"parameter '{name}' holds a NaN or infinite value"
        return None

    def shape_problem(self, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """The same of names and shapes alone, which a file's header tells before a value is read."""
        misshapen = [name for name, shape in self.shapes if shapes.get(name) != shape]
        return self._name_problem(shapes.keys()) or (
            f"parameter '{misshapen[0]}' has another shape than its network gives it" if misshapen else None
        )

    def _name_problem(self, names: Set[str]) -> str | None:
        expected = dict(self.shapes).keys()
        missing, foreign = len(expected - names), len(names - expected)
        if foreign and not expected:
            return f"{counted(foreign, 'parameter')} where there may be none"
        return f"{missing} parameters missing and {foreign} unknown" if missing or foreign else None

    def pack(self, parameters: Parameters) -> NDArray[np.float32]:
        """All values in one array of shape (values,), parameters in name order, each in C order."""
        nothing = np.empty(0, np.float32)
        return np.concatenate([nothing, *(np.ravel(parameters[name]) for name, _ in self.shapes)])

    def unpack(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The parameters in a packed array of shape (values,), as copies."""
        if flat.shape != (self.values,) or flat.dtype != np.float32:
            raise ValueError(
                f"packed parameters of shape {flat.shape}, {flat.dtype}; expected ({self.values},), float32"
            )
        parameters, start = {}, 0
        for name, shape in self.shapes:
            end = start + math.prod(shape)
            parameters[name] = flat[start:end].reshape(shape).copy()
            start = end
        return parameters


def parameters_digest(parameters: Parameters) -> str:
    """SHA-256 (hex) over names, shapes and little-endian values, in name order."""
    content = hashlib.sha256()
    for name in sorted(parameters):
        array = np.asarray(parameters[name], dtype="<f4")  # not ascontiguousarray: that makes () a shape of (1,)
        content.update(json.dumps([name, array.shape]).encode())
        content.update(array.tobytes())
    return content.hexdigest()
