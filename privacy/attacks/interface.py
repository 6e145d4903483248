"""What every attack takes and gives.

Attacks see plain arrays and a generator as a function, so that control, reference and released
generators go through the same code. Scores are per patient, large where membership is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...common.cohorts.disk_rows import let_go
from ...common.counted import counted
from ...common.errors import DataError
from ...common.randomness import derived_seed
from ..evidence import ATTACKS, BLIND, ThreatModel
from ..statistics import Floats, Scores

Images = NDArray[np.float32]
"""Shape (N, C, X, Y, Z), normalised intensities."""

Labels = NDArray[np.uint8]
"""Shape (N, X, Y, Z), label values as in the study."""

Reconstruct = Callable[[Labels, int], Images]
"""A generator: label maps and a noise seed to images. The same arguments give the same images."""

AsReleased = Callable[[Images], Images]
"""The way of painted volumes through the released files: written, read and normalised again."""

_BATCH = 32
"""Scans painted at once, at most: work for several cores."""
_VOXELS = 32 * 48**3
"""And voxels of all of them together, at most: bounds memory on a node without a large GPU."""


@dataclass(frozen=True)
class AuditedScans:
    """Scans of the patients who hold a coin.

    Attributes:
        images: See :data:`Images`.
        labels: See :data:`Labels`, the scans' own label maps.
        patients: Patient of each scan.
        sites: Site of each scan's patient.
        member: Whether each scan's patient trained the generator under audit.
    """

    images: Images
    labels: Labels
    patients: tuple[str, ...]
    sites: tuple[str, ...]
    member: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.patients)

    def of(self, patients: Sequence[str]) -> NDArray[np.intp]:
        """Indices of these patients' scans, ascending."""
        wanted = set(patients)
        return np.flatnonzero([p in wanted for p in self.patients])

    def side(self, member: bool) -> tuple[str, ...]:
        """Members (or holdout patients), sorted."""
        return tuple(sorted({p for p, m in zip(self.patients, self.member, strict=True) if m == member}))

    def compared(self, member: bool) -> tuple[str, ...]:
        """Members (or holdout patients) at sites that have both, sorted: nobody else is compared with anyone."""
        there = compared(self.sites, self.member)
        return tuple(
            sorted({p for p, m, c in zip(self.patients, self.member, there, strict=True) if c and m == member})
        )

    def take(self, indices: NDArray[np.intp]) -> AuditedScans:
        """These scans only."""
        return AuditedScans(
            self.images[indices],
            self.labels[indices],
            tuple(self.patients[i] for i in indices),
            tuple(self.sites[i] for i in indices),
            tuple(self.member[i] for i in indices),
        )


Logits = Callable[[AuditedScans], Floats]
"""A discriminator: scans to their mean patch logit, shape (N,); of a federation's, each scan's by its own site's."""

Told = Callable[[int, int], None]
"""(scans done, scans in all)."""


@dataclass(frozen=True, eq=False)
class Search:
    """What whoever holds a generator's weights can do: look among all that it can paint for a scan.

    Attributes:
        errors: Scans, voxels judged (N, X, Y, Z) and whom to tell, to the smallest mean squared error found in those
            voxels over all channels, shape (N,).
        seconds: Scans and voxels judged to the seconds that all of it takes, by a first step on the first scan.
    """

    errors: Callable[[AuditedScans, NDArray[np.bool_], Told], Floats]
    seconds: Callable[[AuditedScans, NDArray[np.bool_]], float]


@dataclass(frozen=True, eq=False)
class SentRound:
    """What a coordinator saw of one round.

    Attributes:
        own: The generator that each site sent, by the site's name.
        beside: What it is compared with, by the site's name: those that the other sites sent, or the average of all.
    """

    own: Mapping[str, Reconstruct]
    beside: Mapping[str, tuple[Reconstruct, ...]]


@dataclass(frozen=True, eq=False)
class Networks:
    """What came of a training.

    Attributes:
        generator: Answers any label map.
        logits: The discriminator, where it is at hand: no release holds one.
        search: What the generator's weights allow, where they are to be searched: it takes long.
        rounds: What the coordinator saw on the way to the generator, where it was kept; each is read when it is asked
            for, and all of them speak of every site with an audited scan.
    """

    generator: Reconstruct
    logits: Logits | None = None
    search: Search | None = None
    rounds: Sequence[Callable[[], SentRound]] = ()


@dataclass(frozen=True)
class AttackScores:
    """One attack's scores, one a patient.

    Attributes:
        id: PRIVACY §3.2.
        threat_model: What the attacker holds.
        patients: Audited patients, sorted; never leaves the audit.
        sites: Their sites.
        is_member: Shape (P,).
        score: Shape (P,), float64.
        guesses: About how many patients, those with the highest and the lowest scores, it guesses how their coin fell;
            0 where it does not.
    """

    id: str
    threat_model: ThreatModel
    patients: tuple[str, ...]
    sites: tuple[str, ...]
    is_member: NDArray[np.bool_]
    score: Floats
    guesses: int = 0

    def of(self, patients: Sequence[str]) -> AttackScores:
        """The scores of these patients only; no coins are guessed of a part."""
        wanted = set(patients)
        keep = np.array([p in wanted for p in self.patients], dtype=bool)
        return AttackScores(
            self.id,
            self.threat_model,
            tuple(p for p, k in zip(self.patients, keep, strict=True) if k),
            tuple(s for s, k in zip(self.sites, keep, strict=True) if k),
            self.is_member[keep],
            self.score[keep],
        )

    def smaller_side(self) -> int:
        """How many members or holdout patients, whichever are fewer, stand at sites that have both."""
        there = np.array(compared(self.sites, self.is_member.tolist()), dtype=bool)
        return int(min((there & self.is_member).sum(), (there & ~self.is_member).sum()))

    def scores(self) -> Scores:
        """For :mod:`..statistics`. Raises DataError as :meth:`Scores.of`."""
        sites = np.array(self.sites, dtype=str)
        yes, no = self.is_member, ~self.is_member
        return Scores.of(self.score[yes], self.score[no], sites[yes].tolist(), sites[no].tolist())


def compared(sites: Sequence[str], member: Sequence[bool]) -> list[bool]:
    """Which of some patients or scans stand at a site that has both members and holdout patients."""
    sides = set(zip(sites, member, strict=True))
    return [(site, True) in sides and (site, False) in sides for site in sites]


def by_patient(id: str, scans: AuditedScans, score: Floats) -> AttackScores:
    """Aggregate scan scores (N,) per patient: the largest counts, since one recognised scan is enough.

    Raises:
        DataError: a score is NaN: the largest would hide it.
    """
    if np.isnan(score).any():
        raise DataError(
            f"attack {id}: {int(np.isnan(score).sum())} of {counted(len(score), 'scan')} without a score",
            expected="finite voxels in scans and generated volumes",
            remedy="Check the generator; a scan may not be left out of an audit.",
        )
    patients = tuple(sorted(set(scans.patients)))
    return of_patients(id, scans, np.array([score[scans.of([p])].max() for p in patients], dtype=np.float64))


def of_patients(id: str, scans: AuditedScans, score: Floats) -> AttackScores:
    """An attack's scores, one a patient in sorted order, shape (P,), with who they are."""
    patients = tuple(sorted(set(scans.patients)))
    first = {p: i for i, p in reversed(list(enumerate(scans.patients)))}
    return AttackScores(
        id=id,
        threat_model="none" if id == BLIND else ATTACKS[id],
        patients=patients,
        sites=tuple(scans.sites[first[p]] for p in patients),
        is_member=np.array([scans.member[first[p]] for p in patients], dtype=bool),
        score=score,
    )


def paint(generator: Reconstruct, labels: Labels, noise_seed: int) -> Iterator[Images]:
    """Run a generator over any number of label maps in small batches, each with noise of its own.

    A set need not fit in memory: it comes batch by batch, in the order of the label maps.

    Raises:
        DataError: it gives another number of volumes, another grid, or non-finite voxels.
    """
    batch = max(1, min(_BATCH, _VOXELS // math.prod(labels.shape[1:])))
    for start in range(0, len(labels), batch):
        some = labels[start : start + batch]
        yield _painted(generator(some, derived_seed(noise_seed, "batch", start)), some)


def _painted(made: Images, labels: Labels) -> Images:
    images = made.astype(np.float32, copy=False)
    if images.ndim != 5 or images.shape[0] != len(labels) or images.shape[2:] != labels.shape[1:]:
        raise DataError(
            f"a generator's output of shape {images.shape} for label maps of shape {labels.shape}",
            expected="one multi-channel volume per label map on the same grid",
            remedy="Check that the generator belongs to this study.",
        )
    if not np.isfinite(images).all():
        raise DataError(
            "a generator's output with non-finite voxels",
            expected="finite intensities",
            remedy="The training diverged; train again with a smaller learning rate.",
        )
    return images


def foreground(images: Images, labels: Labels, margin: int = 3) -> NDArray[np.bool_]:
    """Voxels in which a reconstruction is judged, shape (N, X, Y, Z).

    Labelled tissue and ``margin`` voxels around it, less constant padding: a voxel in which every channel
    has the value of the volume's corner. Background is easy for any generator and would drown the rest. A
    volume without any label is judged everywhere but in its padding, and one that is all padding everywhere.
    """
    out = np.zeros(labels.shape, dtype=bool)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        tissue = ndimage.binary_dilation(label > 0, iterations=margin) if label.any() else np.ones(label.shape, bool)
        judged = tissue & (image != image[:, :1, :1, :1]).any(axis=0)
        out[i] = judged if judged.any() else tissue
        let_go(images)
    return out
