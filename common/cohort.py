"""A site's patients as they lie on disk: types only; the readers are in ``cohorts.layouts``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .counted import counted
from .errors import DataError

PUBLIC_SITE = "public"
"""Value of the ``site`` column that marks patients whose scans are public."""


@dataclass(frozen=True)
class ChannelSource:
    """Where one channel of a scan lies: a 3-D file, or one index of a 4-D file's last axis."""

    path: Path
    index: int | None = None


@dataclass(frozen=True)
class Scan:
    """One multi-channel volume and its label map.

    Attributes:
        scan_id: Unique within the cohort. May identify a patient: never leaves the site.
        patient_id: The unit of privacy this scan belongs to.
        channels: Canonical channel name (``T1``, ``T1c``, ``T2``, ``FLAIR``, or as the cohort
            names it) to its file, in the cohort's order. A missing channel is absent.
        label: The label map's file, or None where there is none.
    """

    scan_id: str
    patient_id: str
    channels: Mapping[str, ChannelSource]
    label: Path | None


@dataclass(frozen=True)
class Patient:
    """One person: all scans of a patient stand on the same side of every split."""

    patient_id: str
    scans: tuple[Scan, ...]
    site: str | None = None
    """The ``site`` column of ``participants.tsv``, where there is one."""


@dataclass(frozen=True)
class Cohort:
    """Patients sorted by identifier, scans by identifier.

    Attributes:
        layout: ``bids``, ``brats``, ``decathlon`` or ``table``.
        channels: Union of channel names over all scans, in canonical order.
        label_names: Label value to name, where the cohort declares it (else empty).
        stray: Readers' findings about files they could not place, as (code, count).
    """

    root: Path
    layout: str
    channels: tuple[str, ...]
    patients: tuple[Patient, ...]
    label_names: Mapping[int, str] = field(default_factory=dict)
    stray: tuple[tuple[str, int], ...] = ()

    @property
    def scans(self) -> tuple[Scan, ...]:
        """All scans, in the patients' order."""
        return tuple(scan for patient in self.patients for scan in patient.scans)

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Identifiers, in the patients' order. They never leave the site."""
        return tuple(patient.patient_id for patient in self.patients)

    def only(self, patient_ids: Collection[str]) -> Cohort:
        """The cohort reduced to these patients; an unknown identifier is an error."""
        wanted = set(patient_ids)
        kept = tuple(p for p in self.patients if p.patient_id in wanted)
        if len(kept) != len(wanted):
            raise DataError(
                f"{len(wanted) - len(kept)} of {counted(len(wanted), 'patient')} asked for not in the cohort",
                expected="patients of this cohort",
                remedy="Check that the coin record belongs to this cohort.",
            )
        return replace(self, patients=kept)

    def by_site(self) -> dict[str, Cohort]:
        """One cohort per value of the ``site`` column, by site name; patients without one under ''."""
        names = sorted({p.site or "" for p in self.patients})
        return {
            name: replace(self, patients=tuple(p for p in self.patients if (p.site or "") == name)) for name in names
        }

    def public(self) -> Cohort:
        """The patients marked public; all of them where no patient has a site.

        Raises:
            DataError: patients of sites, none of them marked public: they may be somebody's private ones.
        """
        by_site = self.by_site()
        if PUBLIC_SITE not in by_site and set(by_site) - {""}:
            raise DataError(
                "a cohort given as public whose patients belong to sites, none of them marked public",
                expected=f"'{PUBLIC_SITE}' in the site column for openly licensed patients, or no site column",
                remedy="Give the public cohort; a private patient's label map must never be declared public.",
            )
        return by_site.get(PUBLIC_SITE, self)
