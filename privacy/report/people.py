"""Whom the scans of a run show: persons, or procedural patients for whom nobody was scanned; and the words for either.

Who is not known to be procedural counts as real.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from ...common.cohorts.procedural import procedural_patients
from ...common.site_folder import SiteMaterial

Kind = Literal["real", "procedural", "mixed"]


@dataclass(frozen=True)
class People:
    """A study's patients by name; stays at the sites.

    Attributes:
        patients: All the sites' patients, named as in pooled scans.
        procedural: Those of them for whom no person was scanned, as their cohorts say.
    """

    patients: Collection[str]
    procedural: Collection[str]

    def counts(self) -> PeopleCounts:
        """How many of either."""
        procedural = len(set(self.patients) & set(self.procedural))
        return PeopleCounts(real=len(set(self.patients)) - procedural, procedural=procedural)


def people_of(sites: Mapping[str, SiteMaterial]) -> People:
    """Whom the sites' scans show, by the sidecars of their cohorts; sites by name."""
    known = [
        (f"{site}/{patient.patient_id}", patient.patient_id in procedural)
        for site, material in sites.items()
        for procedural in [procedural_patients(material.cohort)]
        for patient in material.cohort.patients
    ]
    return People(
        patients=frozenset(name for name, _ in known),
        procedural=frozenset(name for name, made in known if made),
    )


@dataclass(frozen=True)
class PeopleCounts:
    """How many patients of a study are persons, and how many procedural."""

    real: int
    procedural: int

    @property
    def kind(self) -> Kind:
        """``real`` also where there is nobody."""
        if not self.procedural:
            return "real"
        return "mixed" if self.real else "procedural"


PATIENTS: dict[Kind, str] = {
    "real": "real patients",
    "procedural": "procedural patients",
    "mixed": "patients, some real and some procedural,",
}
"""As in 'tested on 29 ...'."""

_TRAINED: dict[Kind, tuple[str, str]] = {
    "real": ("real", "the real training patients"),
    "procedural": ("procedural", "the procedural training patients"),
    "mixed": ("patients", "the training patients, some real and some procedural"),
}

_ARMS = {
    "synthetic": "synthetic volumes only",
    "public": "the public patients' own scans: what anyone has without the hospitals",
    "public generator": "volumes of a generator trained on the public patients alone, without the hospitals",
    "public+synthetic": "the public patients' own scans and synthetic volumes together",
}


def arm_name(name: str, kind: Kind) -> str:
    """What an arm of ``evaluate --json`` is called before people: ``real`` only where a person was scanned."""
    return "+".join(_TRAINED[kind][0] if part == "real" else part for part in name.split("+"))


def arm_meaning(name: str, kind: Kind) -> str:
    """What an arm was trained on; empty for one unknown here."""
    trained = _TRAINED[kind][1]
    return {"real": trained, "real+synthetic": f"{trained} and synthetic volumes together", **_ARMS}.get(name, "")


def one_patient(procedural: bool) -> str:
    """As in 'scan of a ...'."""
    return "procedural patient" if procedural else "real patient"
