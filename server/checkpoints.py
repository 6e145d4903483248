"""The coordinator's checkpoints: one safetensors file a round, whole or not believed.

Round 0 holds the initial generator, so that starting and resuming are the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..common.atomic import write_atomic
from ..common.errors import DataError
from ..common.exchange import Parameters
from ..common.journal import Fact
from ..common.storage import storage_errors
from ..common.tensor_file import decode, encode

KEPT = 3
"""Newest checkpoints that stay: one may turn out damaged, and a person may want the one before."""

_NAME = re.compile(r"round-(\d{5,9})\.safetensors")


@dataclass(frozen=True)
class RoundRecord:
    """What the coordinator keeps of a round, beside its parameters.

    Attributes:
        round: 1-based.
        sites: Sites whose replies were averaged, by name.
        weights: Their declared weights, in that order.
        left_out: Site to reason; of a round that was given up, those alone that failed in it.
        metrics: Weighted means of the metrics on fakes.
        seconds: From request to checkpoint.
        epsilon: Site to what it has spent so far, as it says itself; nobody where nothing is promised.
        noised_steps: Likewise, the steps behind it.
        update_norms: Site to the L2 distance of its reply from the round's start; nobody where nothing is averaged.
        cosines: Site to the cosine between its update and the mean's: 1 goes where all go, below 0 goes against them.
        scaled_back: Sites whose update was longer than the study's ``norm_bound``.
        trimmed: Replies left out of the average at each end, of every value apart.
        missed: Site to how many rounds in a row it has missed, this one included; nobody who has not.
        given_up: With secure aggregation, why the round's sum could not be had; no site is in such a round then, and
            the next one begins from the same generator. Empty for every other round.
    """

    round: int
    sites: tuple[str, ...]
    weights: tuple[float, ...]
    left_out: Mapping[str, str]
    metrics: Mapping[str, float]
    seconds: float
    epsilon: Mapping[str, float] = field(default_factory=dict)
    noised_steps: Mapping[str, int] = field(default_factory=dict)
    update_norms: Mapping[str, float] = field(default_factory=dict)
    cosines: Mapping[str, float] = field(default_factory=dict)
    scaled_back: tuple[str, ...] = ()
    trimmed: int = 0
    missed: Mapping[str, int] = field(default_factory=dict)
    given_up: str = ""

    def missed_by(self, site: str) -> bool:
        """Whether the site kept away, or its reply could not count; of a round given up, only who is named for that."""
        return site in self.left_out if self.given_up else site not in self.sites


@dataclass(frozen=True)
class Checkpoint:
    """The coordinator's whole state after a round.

    Attributes:
        study_digest: The study it belongs to.
        round: 0 before the first.
        aggregate: Where the next round starts from; empty where no weights leave the sites.
        average: Server-side moving average of the aggregates; None in round 0.
        history: One record a round, from round 1.
        velocity: The server's, where the study has momentum; None in round 0.
        members: An ensemble's generators by site; nothing is averaged there, and ``aggregate`` stays the initial one.
    """

    study_digest: str
    round: int
    aggregate: Parameters
    average: Parameters | None
    history: tuple[RoundRecord, ...]
    velocity: Parameters | None = None
    members: Mapping[str, Parameters] = field(default_factory=dict)

    @property
    def averaged(self) -> int:
        """Rounds behind the generators: all but those that were given up."""
        return self.round - sum(bool(record.given_up) for record in self.history)

    def generators(self) -> dict[str, Parameters]:
        """What the run has come to: each member by its site, or the one average under ''; none where none left."""
        if self.members:
            return dict(self.members)
        one = self.average or self.aggregate
        return {"": one} if one else {}


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write the file in one step, then drop all but the newest :data:`KEPT`.

    Raises:
        StorageError: the disk is full, read-only or forbidden; earlier checkpoints stand.
    """
    groups = {"aggregate": checkpoint.aggregate, "average": checkpoint.average, "velocity": checkpoint.velocity}
    groups |= {f"member/{site}": generator for site, generator in checkpoint.members.items()}
    arrays: dict[str, NDArray[np.float32]] = {
        f"{group}/{name}": array for group, generator in groups.items() for name, array in (generator or {}).items()
    }
    history: list[Fact] = [_record_facts(record) for record in checkpoint.history]
    facts: dict[str, Fact] = {"study": checkpoint.study_digest, "round": checkpoint.round, "history": history}
    path = folder / f"round-{checkpoint.round:05d}.safetensors"
    write_atomic(path, encode(arrays, facts))
    with storage_errors():
        for old in _files(folder)[KEPT:]:
            old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one file.

    Raises:
        DataError: cut short, changed, or not a checkpoint.
    """
    try:
        arrays, facts = decode(path.read_bytes(), f"checkpoint '{path.name}'")
        aggregate, average, velocity = (_group(arrays, name) for name in ("aggregate", "average", "velocity"))
        sites = sorted({name.split("/")[1] for name in arrays if name.startswith("member/")})
        members = {site: _group(arrays, f"member/{site}") for site in sites}
        digest, number, history = facts["study"], facts["round"], facts["history"]
        if not isinstance(digest, str) or not isinstance(number, int) or not isinstance(history, list):
            raise TypeError
        records = tuple(_record(entry) for entry in history)
    except (OSError, KeyError, TypeError, ValueError):
        raise DataError(
            f"'{path.name}' is no readable checkpoint",
            expected="a file that the coordinator wrote",
            remedy="Remove it; the run goes on from the checkpoint before.",
        ) from None
    return Checkpoint(digest, number, aggregate, average or None, records, velocity or None, members)


def _group(arrays: Mapping[str, NDArray[np.float32]], group: str) -> dict[str, NDArray[np.float32]]:
    return {name.removeprefix(f"{group}/"): a for name, a in arrays.items() if name.startswith(f"{group}/")}


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none at all.

    A damaged one is passed over for the one before: rounds are repeatable.

    Raises:
        DataError: there are checkpoints and every one is damaged.
    """
    damaged: DataError | None = None
    for path in _files(folder):
        try:
            return read_checkpoint(path)
        except DataError as error:
            damaged = error
    if damaged is not None:
        raise damaged
    return None


def newest_round(folder: Path) -> int:
    """Round of the newest checkpoint by its name alone, without reading it; -1 where there is none."""
    files = _files(folder)
    return int(files[0].stem.removeprefix("round-")) if files else -1


def _files(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    if not folder.is_dir():
        return []
    numbered = [(int(m.group(1)), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def _record_facts(record: RoundRecord) -> Fact:
    facts: dict[str, Fact] = {}
    for name, value in asdict(record).items():
        facts[name] = list(value) if isinstance(value, tuple) else value
    return facts


def _record(entry: Fact) -> RoundRecord:
    if not isinstance(entry, dict):
        raise TypeError
    known: dict[str, Fact] = dict(entry)
    number, seconds, trimmed = known["round"], known["seconds"], known.get("trimmed", 0)
    if not isinstance(number, int) or not isinstance(seconds, int | float) or not isinstance(trimmed, int):
        raise TypeError
    return RoundRecord(
        number,
        tuple(map(str, _list(known["sites"]))),
        tuple(float(str(weight)) for weight in _list(known["weights"])),
        {site: str(reason) for site, reason in _table(known["left_out"]).items()},
        _floats(known["metrics"]),
        float(seconds),
        # What follows is not in checkpoints of earlier versions.
        _floats(known.get("epsilon", {})),
        _counts(known.get("noised_steps", {})),
        _floats(known.get("update_norms", {})),
        _floats(known.get("cosines", {})),
        tuple(map(str, _list(known.get("scaled_back", [])))),
        trimmed,
        _counts(known.get("missed", {})),
        str(known.get("given_up", "")),
    )


def _list(value: Fact) -> list[Fact]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _table(value: Fact) -> dict[str, Fact]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _floats(value: Fact) -> dict[str, float]:
    return {name: float(str(number)) for name, number in _table(value).items()}


def _counts(value: Fact) -> dict[str, int]:
    return {name: int(str(number)) for name, number in _table(value).items()}
