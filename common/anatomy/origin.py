"""Which label maps of a cohort a network made, and on what that network was trained: their sidecars say it."""

from __future__ import annotations

import json

from ..cohort import Cohort, Scan
from ..errors import DataError, PolicyRefused
from ..study import Study
from ..volumes.nifti import nifti_stem

TRAINED_ON_KEY = "NetworkTrainedOn"
"""Where the sidecar of an inferred label map says on what its network was trained, as ``privacy.trained_on`` does."""


def refuse_private_labels(cohort: Cohort, study: Study) -> None:
    """Hold a cohort's label maps against the study's promise.

    A network that read private scans without a promise carries them into every label map it makes: what is noised
    afterwards covers the patients of this cohort and not those. A label map that was moved without its sidecar says
    nothing and passes.

    Raises:
        PolicyRefused: the study promises something, and a network made a label map that was not trained on public
            material alone.
        DataError: a sidecar that is damaged.
    """
    if study.privacy.promise and any(_trained_on(scan) not in (None, "public") for scan in cohort.scans):
        raise PolicyRefused(
            "a study under differential privacy, and label maps that a network made which was trained on private scans",
            expected="label maps drawn by hand, or of a network trained on public material alone",
            remedy="Infer them with a network of a study that says privacy.trained_on = 'public'.",
        )


def _trained_on(scan: Scan) -> object:
    """What the sidecar says; None where no network of ours made the label map."""
    sidecar = scan.label and scan.label.with_name(f"{nifti_stem(scan.label)}.json")
    if not sidecar or not sidecar.is_file():
        return None
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise DataError(
            "a label map's sidecar that is damaged",
            expected="a JSON file: it says whether a network made the label map",
            remedy="Infer the label maps again, or restore the file.",
        ) from None
    return content.get(TRAINED_ON_KEY) if isinstance(content, dict) else None
