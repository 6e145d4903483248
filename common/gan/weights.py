"""``generator.safetensors``: the generator's parameters and the public facts needed to use them.

Only listed facts are written or read: a weights file travels, so nothing rides along in its header.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..atomic import write_atomic
from ..errors import ConfigError, DataError
from ..exchange import Parameters
from ..journal import Fact
from ..study import Maps, Study
from ..tensor_file import decode, encode, read_header
from .parameters import ParameterSpec

GENERATOR = "generator.safetensors"
"""The weights file of a run or release; and of a site that trained a generator of its own, in its folder."""
ENSEMBLE = "generators"
"""Folder of an ensemble's run, the coordinator's copies of its sites' generators: one file a site, by its name."""

METADATA = frozenset(
    {
        "study",  # the study's canonical JSON: all that is needed to build the network and to sample label maps
        "study_digest",
        "preset",
        "channels",  # comma-separated, in output order
        "labels",  # NAME=VALUE, comma-separated, by value
        "rounds",  # rounds behind these weights
        "ema_decay",  # of the server-side average, per round; absent where nothing is averaged
        "dp",  # the promise made (``privacy.dp.statement``), "none" said aloud
        "maps",  # which way: labels to images, or images to labels
        "trained_on",  # "public" only where every site refused other patients
    }
)
"""Facts that a weights file may hold, all text."""

_OF_A_CHECKPOINT = frozenset({"study", "round", "history"})
"""Facts of what a run goes on from, which has the same ending and is no generator."""

_MOST_HEADER_BYTES = 1 << 20
"""Names, shapes and the study take a few kilobytes; what is longer was not written here."""


def generator_metadata(study: Study, rounds: int, dp: str = "none") -> dict[str, str]:
    """The facts of a generator after this many rounds of the study.

    Args:
        study: What was trained.
        rounds: Behind the weights.
        dp: The statement of what was promised, as it is written; ``none`` where nothing is.
    """
    if (dp == "none") != (study.privacy.promise is None):
        raise ValueError("a weights file says what the study promises, all of it, and promises nothing else")
    return {
        "study": study.canonical(),
        "study_digest": study.digest(),
        "preset": study.network.preset,
        "channels": ",".join(study.channels),
        "labels": ",".join(f"{name}={value}" for name, value in sorted(study.labels.items(), key=lambda kv: kv[1])),
        "rounds": str(rounds),
        "dp": dp,
        "maps": study.network.maps,
        "trained_on": study.privacy.trained_on,
    } | ({} if study.federation.alone else {"ema_decay": repr(study.federation.ema_decay)})


def save_weights(path: Path, parameters: Parameters, metadata: Mapping[str, str], *, mode: int = 0o666) -> None:
    """Write the file whole or not at all; the same content gives the same bytes.

    Args:
        path: Destination, ``*.safetensors``.
        parameters: One or more, float32, all finite.
        metadata: Facts named in :data:`METADATA`.
        mode: Permission bits before the umask.

    Raises:
        DataError: no parameter, or a value that is not finite or not float32.
        StorageError: the disk is full, read-only or forbidden; an older file is untouched.
        ValueError: a fact that a weights file may not hold.
    """
    _only_listed(metadata)
    problem = ParameterSpec.of(parameters).problem(parameters) if parameters else "parameters are none"
    if problem:
        raise DataError(f"weights whose {problem}", expected="finite float32", remedy="Train again from a checkpoint.")
    facts: dict[str, Fact] = dict(metadata)
    write_atomic(path, encode(parameters, facts), mode=mode)


def read_weights_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of all arrays and metadata, from the file's first kilobytes: enough to refuse it unread.

    Raises:
        DataError: no readable file, another size than its header says, or facts outside :data:`METADATA`.
    """
    try:
        header = read_header(path, f"weights file '{path.name}'", _MOST_HEADER_BYTES)
    except OSError:
        raise _unreadable(path) from None
    return dict(header.shapes), _listed(header.facts, path)


def load_weights(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Parameters and metadata of a file that :func:`save_weights` wrote.

    Raises:
        DataError: no readable file, cut short, changed, not finite, or with facts outside :data:`METADATA`.
    """
    read_weights_header(path)
    try:
        data = path.read_bytes()
    except OSError:
        raise _unreadable(path) from None
    return decode_weights(data, path)


def decode_weights(data: bytes, path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The same from the file's bytes; ``path`` names it in messages. Raises DataError."""
    parameters, facts = decode(data, f"weights file '{path.name}'")
    metadata = _listed(facts, path)
    problem = ParameterSpec.of(parameters).problem(parameters) if parameters else "it holds no parameter"
    if problem:
        raise DataError(
            f"weights file '{path.name}': {problem}",
            expected="finite float32",
            remedy="Take the file from an earlier checkpoint.",
        )
    return parameters, metadata


def study_of(metadata: Mapping[str, str]) -> Study:
    """The study a weights file was trained for.

    Raises:
        DataError: the header holds no study, or not the one its digest names.
    """
    try:
        study = Study.model_validate_json(metadata["study"])
    except (KeyError, ValueError, ConfigError):
        study = None
    if study is None or study.digest() != metadata.get("study_digest"):
        raise DataError(
            "weights file without the study it was trained for",
            expected="a study in the header that fits its digest",
            remedy="Take generator.safetensors from the run or release itself.",
        )
    return study


def maps_of(path: Path) -> Maps:
    """Which way the network of a weights file maps; errors as :func:`read_weights_header` and :func:`study_of`."""
    return study_of(read_weights_header(path)[1]).network.maps


def _listed(facts: Mapping[str, Fact], path: Path) -> dict[str, str]:
    """The facts as text; a DataError where one is not listed."""
    if facts.keys() == _OF_A_CHECKPOINT:
        raise DataError(
            f"'{path.name}' is a checkpoint of a run, and no generator",
            expected=f"{GENERATOR}, which a run writes at its end",
            remedy=f"Give the {GENERATOR} of its run's folder. A run that has none there did not end:"
            " 'fedphantom journal show' of its journal says why.",
        )
    metadata = {name: value for name, value in facts.items() if isinstance(value, str)}
    if metadata.keys() != facts.keys() or not metadata.keys() <= METADATA:
        raise DataError(
            f"weights file '{path.name}' with unknown entries in its header",
            expected=f"only {', '.join(sorted(METADATA))}",
            remedy="Take the file from the run or release itself; this one was written by something else.",
        )
    return metadata


def _unreadable(path: Path) -> DataError:
    return DataError(
        f"no readable weights file '{path.name}'",
        expected="generator.safetensors of a run or release",
        remedy="Give the path of that file.",
    )


def _only_listed(metadata: Mapping[str, str]) -> None:
    foreign = sorted(metadata.keys() - METADATA)
    if foreign:
        raise ValueError(f"a weights file may not hold {', '.join(foreign)}")
