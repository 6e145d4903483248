"""Patients' scans with a mark in them, all the way from the cohort to both pages of an audit.

A copy of one of them was planted behind the volumes that a page would show first.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from audited_run import audit, make_run
from numpy.typing import NDArray
from report_content import images_in, words_of

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohort import ChannelSource
from fedphantom.common.cohorts.roles import CoinRecord
from fedphantom.common.site_folder import site_folders
from fedphantom.common.study import RolesTable
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti import read_header, read_volume
from fedphantom.common.volumes.nifti_writer import write_volume

LAST = 3
"""Index of the planted volume, the last of four: a page shows three."""


def images_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.nii.gz")) if not path.name.endswith("_dseg.nii.gz")]


def rewrite(path: Path, voxels: NDArray[np.float32]) -> None:
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    path.unlink()
    write_volume(path, voxels, Grid(shape, read_header(path_of_map(path)).spacing))


def key_of(path: Path) -> str:
    return path.name.partition("_")[2]


def path_of_map(image: Path) -> Path:
    return next(image.parent.glob("*_dseg.nii.gz"))


def mark(cohort: Path) -> None:
    """A checkerboard instead of every scan, with grain that is the patient's own."""
    for number, path in enumerate(images_of(cohort)):
        shape = read_header(path).shape
        grain = np.random.default_rng((number, *cohort.name.encode())).uniform(500, 1000, shape)
        rewrite(path, ((np.indices(shape).sum(axis=0) % 2) * grain).astype(np.float32))


def is_marked(image: NDArray[np.uint8]) -> bool:
    steps = np.abs(np.diff(image.astype(int), axis=1))
    return bool((steps > 100).mean() > 0.5)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pages, beside the audited run."""
    root = make_run(tmp_path_factory.mktemp("marked"), 6, RolesTable(test=0.1, control=0.2, audit=0.6), mark=mark)
    site = site_folders(root / "run")[0]
    member = CoinRecord.from_json(site.coins.read_text()).patients("member")[0]
    originals = {
        key_of(path): path for path in images_of(site.cohort) if path.name.split("_")[0] in (member, f"sub-{member}")
    }
    for path in images_of(sorted((root / "synthetic").glob("sub-*"))[LAST]):
        rewrite(path, read_volume(ChannelSource(originals[key_of(path)]))[0])
    audit(root, root)
    command = ["audit", "report", str(root / "run"), "--audit", str(root / "audit"), "--synthetic"]
    assert fedphantom([*command, str(root / "synthetic"), "--out", str(root / "pages")]) == 0
    return root / "pages"


def test_a_mark_in_patients_scans_is_on_the_internal_page_and_not_on_the_shareable_one(pages: Path) -> None:
    assert sum(map(is_marked, images_in((pages / "report.html").read_text()))) > 3
    assert not any(map(is_marked, images_in((pages / "report-shareable.html").read_text())))


def test_a_copy_behind_the_first_volumes_is_shown_first_beside_the_scan_that_it_copies(pages: Path) -> None:
    result = json.loads((pages.parent / "audit" / "audit.json").read_text())
    assert (result["verdict"], result["confirmed_copies"]) == ("FAIL", 1)
    assert (result["suspects"][0]["volume"], result["suspects"][0]["accused"]) == (LAST, True)
    page = (pages / "report.html").read_text()
    slices = page[page.index('id="slices"') :]
    assert re.search("<h3>(Synthetic volume .*)</h3>", slices)[1] == "Synthetic volume 4: found to be a copy"
    told = words_of(slices)
    assert told.count("the scan that the audit found it to be a copy of") >= 3
    assert "the scan most like it" in told
    first = slices[: slices.index("<h3>", slices.index("<h3>") + 4)]
    assert all(is_marked(image) for image in images_in(first)), "both the copy and the patient's scan are marked"
    assert "found to be a copy" not in (pages / "report-shareable.html").read_text()
