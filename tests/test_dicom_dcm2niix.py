"""The community's converter and ours place the same intensities at the same points in space.

Source: Li et al. 2016, doi:10.1016/j.jneumeth.2016.03.001 (dcm2niix).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_series import AXIAL, Made, noise, turned, write_enhanced, write_series
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from fedphantom.cli import run

CORONAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
SAGITTAL = np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])
CASES = {
    "axial": Made(stored=noise(), directions=AXIAL),
    "coronal": Made(stored=noise(), directions=CORONAL),
    "sagittal": Made(stored=noise(), directions=SAGITTAL),
    "oblique": Made(
        stored=noise(), directions=turned(11, -17, 23), spacing=(0.7, 1.3, 4.4), origin=(-71.3, 12.9, -88.1)
    ),
    "upside down": Made(stored=noise(), directions=turned(170, 5, -12)),
    "scaled": Made(stored=noise(), directions=turned(3, 2, 1), slope=2.5, intercept=-13.0),
    "scaled by slice": Made(stored=noise(), slope=(1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5)),
    "RLE": Made(stored=noise(), syntax=RLELossless),
}


def converter() -> str | None:
    if found := shutil.which("dcm2niix"):
        return found
    if importlib.util.find_spec("dcm2niix") is None:
        return None
    import dcm2niix

    return str(dcm2niix.bin)


needs_dcm2niix = pytest.mark.skipif(converter() is None, reason="dcm2niix is not on this machine")


def by_place(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each voxel lies (RAS, mm) and what it holds, in the order of places, whatever the order on disk."""
    image: Any = nib.load(path)
    shape = image.shape
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places = indices @ image.affine[:3, :3].T + image.affine[:3, 3]
    order = np.lexsort(np.round(places, 1).T)
    return places[order], np.asarray(image.dataobj, dtype=np.float64).reshape(-1)[order]


@needs_dcm2niix
@pytest.mark.parametrize("enhanced", [False, True], ids=["one file a slice", "enhanced"])
@pytest.mark.parametrize("case", CASES)
def test_our_volume_and_dcm2niix_agree_in_place_and_intensity(tmp_path: Path, case: str, enhanced: bool) -> None:
    made = CASES[case]
    if enhanced and case == "scaled by slice":
        pytest.skip("dcm2niix scales all frames as the last; test_dicom_import holds ours against the closed form")
    if enhanced:
        write_enhanced(tmp_path / "src" / "a.dcm", made)
    else:
        write_series(tmp_path / "src", made)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    command = [converter() or "", "-b", "n", "-z", "n", "-f", "it", "-o", str(theirs), str(tmp_path / "src")]
    subprocess.run(command, check=True, capture_output=True)
    (reference,) = theirs.glob("*.nii")
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out")]) == 0
    (ours,) = (tmp_path / "out").rglob("*.nii.gz")
    places, intensities = by_place(ours)
    their_places, their_intensities = by_place(reference)
    np.testing.assert_allclose(places, their_places, atol=1e-3)
    np.testing.assert_allclose(intensities, their_intensities, rtol=1e-5, atol=1e-3)
