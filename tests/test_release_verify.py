"""One changed byte, one file more or less, a link: verification notices."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny_release import TRUSTED, assert_refused, files_of

from fedphantom.common.errors import DataError, SignatureInvalid, VerificationFailed
from fedphantom.common.storage import TEMPORARY_PREFIX
from fedphantom.privacy.release.content import MANIFEST
from fedphantom.privacy.release.pack import verify_release

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
FLIPS = 5
"""Random offsets tried in every file."""


def test_one_flipped_byte_in_any_file_is_noticed(either_release: Path) -> None:
    rng = np.random.default_rng(7)
    verify_release(either_release, TRUSTED)
    for path in files_of(either_release):
        content = path.read_bytes()
        for offset in {0, len(content) - 1, *rng.integers(len(content), size=FLIPS).tolist()}:
            changed = bytearray(content)
            changed[offset] ^= int(rng.integers(1, 256))
            path.write_bytes(bytes(changed))
            with pytest.raises(VerificationFailed) as caught:
                verify_release(either_release, TRUSTED)
            assert caught.value.exit_code == 5
        path.write_bytes(content)
    verify_release(either_release, TRUSTED)


def test_every_file_is_missed(either_release: Path) -> None:
    for path in files_of(either_release):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(VerificationFailed):
            verify_release(either_release, TRUSTED)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "cohort/more.txt", "deep/er/file"])
def test_a_file_that_nobody_signed_is_refused(either_release: Path, name: str) -> None:
    (either_release / name).parent.mkdir(parents=True, exist_ok=True)
    (either_release / name).write_text("")
    assert_refused(either_release, re.escape(f"1 that nobody signed ('{name}')"))


def test_a_missing_file_is_named(either_release: Path) -> None:
    (either_release / "README.md").unlink()
    assert_refused(either_release, re.escape("1 file missing ('README.md')"))


def test_an_empty_folder_is_refused(either_release: Path) -> None:
    (either_release / "patient-17").mkdir()
    assert_refused(either_release, "empty folder")


def test_a_link_is_refused_even_to_the_same_bytes(either_release: Path, tmp_path: Path) -> None:
    (either_release / "README.md").rename(tmp_path / "README.md")
    (either_release / "README.md").symlink_to(tmp_path / "README.md")
    assert_refused(either_release, "link or device")


def test_a_release_that_is_itself_a_link_is_refused(either_release: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(either_release)
    assert_refused(tmp_path / "link", "not a folder")


def test_a_pipe_is_refused_and_never_waited_for(either_release: Path) -> None:
    os.mkfifo(either_release / "pipe")
    assert_refused(either_release, "link or device")


def test_a_missing_manifest_is_no_signature(either_release: Path) -> None:
    (either_release / MANIFEST).unlink()
    assert_refused(either_release, "without manifest", SignatureInvalid)


def test_another_keys_signature_is_refused(either_release: Path) -> None:
    with pytest.raises(SignatureInvalid, match="unknown key"):
        verify_release(either_release, [OTHER_KEY.public_key()])


def test_the_manifest_of_another_release_is_refused(volumes_release: Path, weights_release: Path) -> None:
    shutil.copy(weights_release / MANIFEST, volumes_release / MANIFEST)
    assert_refused(volumes_release, "nobody signed")


def test_the_signature_of_another_release_is_refused(volumes_release: Path, weights_release: Path) -> None:
    ours, theirs = (json.loads((folder / MANIFEST).read_bytes()) for folder in (volumes_release, weights_release))
    swapped = ours | {"signatures": theirs["signatures"]}
    (volumes_release / MANIFEST).write_bytes(json.dumps(swapped, sort_keys=True, separators=(",", ":")).encode())
    assert_refused(volumes_release, "does not hold", SignatureInvalid)


def test_a_folder_left_by_a_crash_is_never_believed(either_release: Path) -> None:
    left = either_release.rename(either_release.with_name(f"{TEMPORARY_PREFIX}0123-release"))
    assert_refused(left, "never finished")


# A mistyped path is bad input; a release that lost something never becomes one.


def nothing(place: Path) -> Path:
    return place / "absent"


def a_file(place: Path) -> Path:
    (place / "release.zip").write_bytes(b"PK")
    return place / "release.zip"


def an_empty_folder(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def holiday_pictures(place: Path) -> Path:
    (place / "pictures" / "2026").mkdir(parents=True)
    (place / "pictures" / "2026" / "beach.jpg").write_bytes(b"")
    (place / "pictures" / "latest").symlink_to("2026")
    return place / "pictures"


def a_dangling_link(place: Path) -> Path:
    (place / "link").symlink_to("nowhere")
    return place / "link"


@pytest.mark.parametrize("other", [nothing, a_file, an_empty_folder, holiday_pictures, a_dangling_link])
def test_a_path_that_holds_nothing_of_a_release_is_bad_input(other: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Check the path") as caught:
        verify_release(other(tmp_path), TRUSTED)
    assert caught.value.exit_code == 3


def test_the_manifest_itself_is_bad_input_for_its_folder_is_wanted(either_release: Path) -> None:
    with pytest.raises(DataError, match="no folder, but a file"):
        verify_release(either_release / MANIFEST, TRUSTED)


def test_whatever_is_left_of_a_release_without_its_signature_is_a_failed_verification(either_release: Path) -> None:
    (either_release / MANIFEST).unlink()
    assert_refused(either_release, "without manifest", SignatureInvalid)
    tables = {"README.md", "participants.tsv", "dataset_description.json", "dseg.tsv"}
    lone = [path for path in files_of(either_release) if path.name not in tables and path.suffix != ".json"]
    kept = [*lone[:1], either_release / "audit.json", either_release / "public-labels.json"]
    for path in kept:
        alone = either_release.with_name(f"only-{path.name}") / "deep"
        alone.mkdir(parents=True)
        shutil.copy(path, alone)
        assert_refused(alone.parent, "without manifest", SignatureInvalid)


def test_a_manifest_that_was_emptied_is_a_failed_verification(either_release: Path) -> None:
    (either_release / MANIFEST).write_bytes(b"")
    assert_refused(either_release, "not a DSSE envelope", SignatureInvalid)
