"""No volume is packed in which a face may be, unless somebody says why, where it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from joint_release import SITES, Joint
from numpy.typing import NDArray
from tiny_release import STUDY, Releasable

from fedphantom.cli import run
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.journal import read_journal
from fedphantom.common.labels.atlas import load_atlas
from fedphantom.common.labels.brain import BrainLabels
from fedphantom.common.phantom.contrast import render
from fedphantom.common.phantom.patients import draw_patient, draw_site_scanner, phantom_grid
from fedphantom.common.study import parse_study
from fedphantom.common.volumes.face import face_finding, painted_face_finding

SPACING = 3.0
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
ROOM = 12
WHY = "consented to open publication"


@pytest.fixture(scope="module")
def brain() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Channel T1 of a procedural patient with room around it, and its label map."""
    grid = phantom_grid(SPACING)
    patient, labels = draw_patient(np.random.default_rng(0), load_atlas(grid, BrainLabels()), grid.spacing_mm)
    image = np.asarray(render(labels, grid.spacing_mm, draw_site_scanner(0, 0), patient.contrast))[0]
    return np.pad(image - image.flat[0], ROOM), np.pad(np.asarray(labels, dtype=np.uint8), ROOM)


def with_rim(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """As a generator paints background: nearly, and up to the sides."""
    noise = np.random.default_rng(1).uniform(0, 0.05, image.shape).astype(np.float32)
    return np.where(image == 0, noise * np.float32(np.median(image[image > 0])), image).astype(np.float32)


def with_face(image: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flesh from the brow down, in front of the brain and below it."""
    x, y, z = np.nonzero(labels)
    out, middle = image.copy(), int(x.mean())
    out[middle - 12 : middle + 12, y.max() - 12 : y.max() + 6, z.min() - 10 : z.min() + 12] = np.median(
        image[labels > 0]
    )
    return out


def test_a_painted_brain_whose_background_is_no_single_value_holds_no_face(
    brain: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    image, labels = brain
    assert painted_face_finding(image, labels, AFFINE) == face_finding(image, AFFINE) == "skull-stripped"
    assert face_finding(with_rim(image), AFFINE) == "not shown"
    assert painted_face_finding(with_rim(image), labels, AFFINE) == "nothing beyond the brain of its label map"


def test_flesh_beyond_the_brain_of_the_label_map_may_be_a_face(
    brain: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    image, labels = brain
    assert painted_face_finding(with_face(with_rim(image), labels), labels, AFFINE) == "not shown"


def test_a_label_map_of_more_or_less_than_a_brain_shows_nothing(
    brain: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    image, labels = brain
    whole_head = (with_face(image, labels) > 0).astype(np.uint8)
    lesion = np.zeros_like(labels)
    lesion[40:44, 40:44, 40:44] = 1
    for other in (whole_head, lesion, np.zeros_like(labels)):
        assert painted_face_finding(with_rim(with_face(image, labels)), other, AFFINE) == "not shown"


@pytest.fixture
def heads(tmp_path: Path) -> Releasable:
    """Volumes of 96 mm and more, which an untrained generator painted over balls."""
    return Releasable.make(
        tmp_path, parse_study(STUDY.replace("[8, 16, 24]", "[16, 16, 16]").replace("[1.875, 1.2, 0.9375]", "[6, 6, 6]"))
    )


def test_volumes_in_which_a_face_may_be_are_not_packed_unless_somebody_allows_it(heads: Releasable) -> None:
    with pytest.raises(PolicyRefused, match="4 images of a head that is neither skull-stripped nor defaced") as refused:
        heads.pack()
    assert refused.value.exit_code == 4
    assert not heads.release.exists()
    assert heads.pack(allow_faces=True).volumes == 6


def test_why_faces_are_allowed_stands_in_the_journal(
    releasable: Releasable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedphantom.privacy.release.pack.painted_face_finding", lambda *_: "not shown")
    joint = Joint.make(tmp_path / "joint", releasable)
    assert joint.combine(*[joint.share(site) for site in SITES]) == 0
    assert joint.pack() == 4
    assert "--allow-faces" in capsys.readouterr().err
    for reason in ("", "two\nlines", "of Anna, 2026-11-20", "x" * 301):
        assert joint.pack("--allow-faces", reason) == 3
    assert "--allow-faces" in capsys.readouterr().err
    assert joint.pack("--allow-faces", WHY) == 0
    packed = [entry for entry in read_journal(joint.made.run / "journal.jsonl") if entry.event == "release-packed"]
    assert [entry.facts["faces_allowed_because"] for entry in packed] == [WHY]


def test_a_reason_that_nobody_would_keep_is_refused(heads: Releasable, tmp_path: Path) -> None:
    assert run(["release", "key", str(tmp_path / "keys")]) == 0
    line = ["release", "pack", str(heads.run), str(tmp_path / "out"), "--key", str(tmp_path / "keys" / "key.pem")]
    assert run([*line, "--audit", str(heads.audit), "--tier", "internal", "--allow-faces", WHY]) == 3
    weights = [*line, "--kind", "weights", "--allow-faces", WHY]
    assert run(weights) == 2
