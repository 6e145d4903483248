"""What the files beside scans and label maps say of where they come from: of a network, of a generator, of patients.

A sidecar that says a file is private, or made by what read private scans, is taken at its word. One that was moved
without its sidecar says nothing and passes: whoever gives a cohort as public answers for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..cohort import PUBLIC_SITE, Cohort, Patient, Scan
from ..counted import counted
from ..errors import DataError, PolicyRefused
from ..study import Study
from ..volumes.nifti import nifti_stem
from .chain import CHAIN_KEY, LabelChain

TRAINED_ON_KEY = "NetworkTrainedOn"
"""Where the sidecar of an inferred label map says on what its network was trained, as ``privacy.trained_on`` does."""
PRIVATE_KEY = "Private"
"""Where the sidecar of an inferred label map says that it is private."""
GENERATOR_KEY = "GeneratorSha256"
"""Where a painted scan's sidecar, and its label map's, names the generator."""


def refuse_private_labels(cohort: Cohort, study: Study) -> None:
    """Hold a cohort's label maps and scans against the study's promise.

    A network or generator that read private scans without a promise carries them into all that it makes: what is noised
    afterwards covers the patients of this cohort and not those.

    Raises:
        PolicyRefused: the study promises something, and a network made a label map that was not trained on public
            material alone, or a generator painted a scan.
        DataError: a sidecar that is damaged.
    """
    if not study.privacy.promise:
        return
    if any(_label_facts(scan).get(TRAINED_ON_KEY) not in (None, "public") for scan in cohort.scans):
        raise PolicyRefused(
            "a study under differential privacy, and label maps that a network made which was trained on private scans",
            expected="label maps drawn by hand, or of a network trained on public material alone",
            remedy="Infer them with a network of a study that says privacy.trained_on = 'public'.",
        )
    refuse_painted(cohort)


def refuse_painted(cohort: Cohort) -> None:
    """Refuse scans that a generator painted, where they would count as nobody's, or as their site's patients alone.

    Raises:
        PolicyRefused: there are some: they carry whatever patients that generator was trained on.
        DataError: a sidecar that is damaged.
    """
    painted = sum(any(GENERATOR_KEY in facts for facts in _facts(scan)) for scan in cohort.scans)
    if painted:
        raise PolicyRefused(
            f"{painted} of {counted(len(cohort.scans), 'scan')} painted by a generator, as the sidecars say: they carry"
            " what it learnt of the patients it was trained on",
            expected="scans of people, or of procedural patients",
            remedy="Leave synthetic scans out here; as public material take openly licensed or procedural patients.",
        )


def refuse_private_maps(cohort: Cohort) -> None:
    """Refuse label maps of a cohort that is given as public and whose own files say that they are private.

    A label map inferred by a network that was trained on public material alone may be public, where the cohort marks
    its patient so.

    Raises:
        PolicyRefused: there are some.
        DataError: a sidecar that is damaged.
    """
    private = sum(_private(patient, scan) for patient in cohort.patients for scan in patient.scans)
    if private:
        raise PolicyRefused(
            f"a cohort given as public, and {private} of {counted(len(cohort.scans), 'label map')} private by what"
            " lies beside",
            expected="label maps that nobody has to protect: openly licensed, procedural, or sampled from such",
            remedy="Give the public cohort itself; what was edited, inferred or painted from patients stays inside the"
            " site.",
        )


def _private(patient: Patient, scan: Scan) -> bool:
    facts = _label_facts(scan)
    if facts.get(TRAINED_ON_KEY) == "public" and patient.site == PUBLIC_SITE:
        return False
    if facts.get(PRIVATE_KEY) or TRAINED_ON_KEY in facts:
        return True
    if CHAIN_KEY not in facts:
        return False
    try:
        return not LabelChain.model_validate(facts[CHAIN_KEY]).is_public
    except ValidationError:
        return True  # what cannot be read counts as private


def _facts(scan: Scan) -> Iterator[Mapping[str, Any]]:
    """Of the label map and of every channel."""
    yield _label_facts(scan)
    for source in scan.channels.values():
        yield _beside(source.path)


def _label_facts(scan: Scan) -> Mapping[str, Any]:
    return _beside(scan.label) if scan.label else {}


def _beside(file: Path) -> Mapping[str, Any]:
    """What a file's sidecar says; nothing where there is none."""
    sidecar = file.with_name(f"{nifti_stem(file)}.json")
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise DataError(
            "the sidecar of a scan or label map that is damaged",
            expected="a JSON file: it says whether a network or a generator made it",
            remedy="Infer or generate it again, or restore the file.",
        ) from None
    return content if isinstance(content, dict) else {}
