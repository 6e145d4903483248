"""What an audit reads: scans with their patients and roles, the generator, and the set as it would be released."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.disk_rows import let_go
from ...common.cohorts.roles import Role
from ...common.errors import DataError
from ...common.run_result import NamedBy
from ..attacks.interface import AsReleased, AuditedScans, Images, Labels, Networks
from ..dp.canaries import CanaryRun
from ..statistics import Floats

N = TypeVar("N", np.float32, np.uint8)


@dataclass(frozen=True)
class AuditMaterial:
    """What an audit reads.

    Attributes:
        images: All scans, every role that an audit uses: member, holdout, reference, control; shape (N, C, X, Y, Z).
        labels: Their label maps, shape (N, X, Y, Z).
        patients: Patient of each scan.
        roles: Role of each scan's patient. Stand-ins are ``reference`` or ``control`` too.
        sites: Site of each scan's patient.
        target: The generator under audit, and the discriminator where it is at hand.
        synthetic: The set as it would be released, shape (S, C, X, Y, Z).
        synthetic_labels: The public label maps it was painted from, shape (S, X, Y, Z).
        generator_sha256: Of the generator's file.
        cohort_digest: Of the coin record.
        as_released: What a reader of the released files gets for volumes that a generator painted.
        target_steps: Steps that each site trained the target.
        synthetic_sha256: Of the synthetic set's files, or None where there are none.
        header: What each scan's files say beside their voxels, for the blind baseline, shape (N, F), finite; None for
            scans that never lay in files.
        reference_stands_in: What stood in as reference or control patients, in words, or None.
        generator_named_by: Whose journal says that these patients' training made the generator; None where nobody's
            could be asked, as in a site's own folder with a generator that it received.
        claimed_epsilon: The study's formal promise, or None (``dp: none``).
        claimed_delta: At which δ it holds; what attacks prove is bounded at the same.
        canary: What canaries proved of a formal promise's noise; None where there is no promise.
        summed: Whether the coordinator saw the sites' weighted sum alone (secure aggregation), and no site's generator.
    """

    images: Images
    labels: Labels
    patients: tuple[str, ...]
    roles: tuple[Role, ...]
    sites: tuple[str, ...]
    target: Networks
    synthetic: Images
    synthetic_labels: Labels
    generator_sha256: str
    cohort_digest: str
    as_released: AsReleased
    target_steps: int
    synthetic_sha256: str | None = None
    header: Floats | None = None
    reference_stands_in: str | None = None
    generator_named_by: NamedBy | None = None
    claimed_epsilon: float | None = None
    claimed_delta: float | None = None
    canary: CanaryRun | None = None
    summed: bool = False

    def __post_init__(self) -> None:
        n, s = len(self.images), len(self.synthetic)
        grids = {
            self.images.shape[2:],
            self.labels.shape[1:],
            self.synthetic.shape[2:],
            self.synthetic_labels.shape[1:],
        }
        if (
            {len(self.labels), len(self.patients), len(self.roles), len(self.sites)} != {n}
            or len(self.synthetic_labels) != s
            or len(grids) != 1
            or self.images.shape[1] != self.synthetic.shape[1]
            or (self.header is not None and len(self.header) != n)
            or not s
        ):
            raise DataError(
                f"audit material that does not fit together: {n} scans, {s} synthetic volumes, {len(grids)} grids",
                expected="one role, site, header and label map per scan; synthetic volumes and label maps on that grid",
                remedy="Prepare the cohort and the synthetic set with the same study.",
            )
        if not (_finite(self.images) and _finite(self.synthetic)):
            raise DataError(
                "audit material with non-finite voxels",
                expected="finite intensities",
                remedy="Run 'fedphantom cohort check'.",
            )
        if len(set(zip(self.patients, self.roles, self.sites, strict=True))) != len(set(self.patients)):
            raise DataError(
                "a patient with two roles or two sites",
                expected="one role and one site per patient",
                remedy="Draw roles by patient, never by scan.",
            )

    def scans_of(self, *roles: Role) -> NDArray[np.intp]:
        """Indices of the scans of patients with one of these roles, ascending."""
        return np.flatnonzero([role in roles for role in self.roles])

    def audited(self, index: NDArray[np.intp]) -> AuditedScans:
        """The scans at these indices as attacks read them."""
        return AuditedScans(
            images=_rows(self.images, index),
            labels=_rows(self.labels, index),
            patients=tuple(self.patients[i] for i in index),
            sites=tuple(self.sites[i] for i in index),
            member=tuple(self.roles[i] == "member" for i in index),
        )


def _rows(array: NDArray[N], index: NDArray[np.intp]) -> NDArray[N]:
    """These rows: in place where they follow each other, since a copy of all scans would double an audit's memory."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return array[index[0] : index[0] + len(index)]
    return array[index]


def _finite(images: Images) -> bool:
    """Of every voxel, read volume by volume."""
    for volume in images:
        if not np.isfinite(volume).all():
            return False
        let_go(images)
    return True
