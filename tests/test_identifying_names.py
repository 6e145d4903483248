"""Names of files and folders that would identify a patient, and ordinary ones that are left in peace."""

import pytest

from fedphantom.common.cohorts.identifying import name_is_identifying


@pytest.mark.parametrize(
    "name",
    ["20190421_T1.nii.gz", "1970-12-31", "31.12.1970", "MRN1234567", "123-45-6789", "DOE^JOHN", "Doe_John_t1.nii.gz",
     "sub-JohnDoe", "1.2.840.113619.2.5.1", "patient_name_x", "dob-1"],
)  # fmt: skip
def test_names_that_look_like_identifiers_are_suspected(name: str) -> None:
    assert name_is_identifying(["imagesTr", name])


@pytest.mark.parametrize(
    "name",
    ["hippocampus_004.nii.gz", "BraTS20_Training_001_flair.nii.gz", "BraTS-GLI-00005-001-t1n.nii.gz", "sub-01",
     "TCGA-DU-7294", "imagesTr", "sub-p1_ce-gadolinium_T1w.nii.gz", "seg_with_brain.nii.gz",
     "derivatives", "sub-Phantom01"],
)  # fmt: skip
def test_ordinary_research_names_are_not_suspected(name: str) -> None:
    assert not name_is_identifying([name])
