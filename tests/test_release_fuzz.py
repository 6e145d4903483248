"""Whatever is done to a release's folder, verification refuses it by name, quietly, and in little memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from consortium import EVERYONE, SITES, Consortium, consort
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from officers import STRANGER
from tiny_release import Releasable, files_of, sign_again, statement_of

from fedphantom.common.errors import FedPhantomError
from fedphantom.common.signing import sign
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti_writer import write_volume
from fedphantom.privacy.release.content import MANIFEST
from fedphantom.privacy.release.folder import verify_release

BOUND = 48 << 20
"""Bytes that verifying a release of 200 kB may have at once; its largest legal file has 1 MB."""
TRUSTED = [EVERYONE[who].public_key() for who in ("packer", *SITES)]
HUGE = 1 << 40
"""Bytes of a sparse file."""
EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", params=["volumes", "weights"])
def approved(
    request: pytest.FixtureRequest, release_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Consortium:
    root = tmp_path_factory.mktemp(request.param)
    ignored = shutil.ignore_patterns("release", "weights")
    releasable = Releasable(Path(shutil.copytree(release_template, root / "made", ignore=ignored)))
    changes = {} if request.param == "volumes" else {"kind": "weights", "synthetic": None}
    made = consort(root / "consortium", releasable, {}, **changes)
    for site in SITES:
        assert made.approve(site) == 0
    assert verify(made.release) == (0, "")
    return made


@contextlib.contextmanager
def a_copy(approved: Consortium) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as root:
        yield Path(shutil.copytree(approved.release, Path(root) / "release"))


def verify(release: Path) -> tuple[int, str]:
    """Exit code, and what was told. Whatever else is raised would end in a traceback, and fails the test."""
    try:
        return (4 if verify_release(release, TRUSTED).missing_approvals else 0), ""
    except FedPhantomError as refusal:
        return refusal.exit_code, str(refusal)


def everything(root: Path) -> dict[str, tuple[int, str]]:
    """All that lies under a folder, by kind, size and, of what is small, content."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        small = path.is_file() and not path.is_symlink() and about.st_size < HUGE
        found[str(path)] = (about.st_mode, hashlib.sha256(path.read_bytes()).hexdigest() if small else "")
    return found


def assert_refused(release: Path, *names: str, code: int = 5) -> None:
    before = everything(release.parent)
    tracemalloc.start()
    try:
        got, told = verify(release)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == code, told
    for name in names:
        assert name in told, told
    assert everything(release.parent) == before
    assert peak < BOUND


def a_file(draw: st.DataObject, release: Path) -> Path:
    return draw.draw(st.sampled_from(files_of(release)))


def spoken(path: Path, release: Path) -> str:
    """How a message names a file: signed ones by their path, approvals by their key, the manifest as a signature."""
    name = path.relative_to(release).as_posix()
    if name == MANIFEST:
        return "anifest" if path.stat().st_size == HUGE else ""
    return path.name[:12] if path.parent.name == "approvals" else name


def write(path: Path, content: bytes, offset: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@EXAMPLES
@given(draw=st.data())
def test_a_changed_file(approved: Consortium, draw: st.DataObject) -> None:
    with a_copy(approved) as release:
        path = a_file(draw, release)
        before = path.read_bytes()
        match draw.draw(st.sampled_from(["bytes", "cut", "longer", "huge", "another's", "emptied"])):
            case "bytes":
                offset = draw.draw(st.integers(0, len(before) - 1))
                write(path, draw.draw(st.binary(min_size=1, max_size=64)), offset)
            case "cut":
                os.truncate(path, draw.draw(st.integers(0, len(before) - 1)))
            case "longer":
                path.write_bytes(before + draw.draw(st.binary(min_size=1, max_size=64)))
            case "huge":
                os.truncate(path, HUGE)
            case "another's":
                path.write_bytes(a_file(draw, release).read_bytes())
            case "emptied":
                path.write_bytes(b"")
        if path.stat().st_size == len(before) and path.read_bytes() == before:
            return
        assert_refused(release, spoken(path, release))


@EXAMPLES
@given(draw=st.data())
def test_a_missing_or_renamed_file(approved: Consortium, draw: st.DataObject) -> None:
    with a_copy(approved) as release:
        path = a_file(draw, release)
        approval = path.parent.name == "approvals"
        if draw.draw(st.booleans()):
            path.unlink()
            assert_refused(release, *([] if approval else [path.name]), code=4 if approval else 5)
            return
        name = draw.draw(st.sampled_from(["x", f"{path.name}.bak", path.name.upper(), "manifest.json", "\n", "é"]))
        other = path.with_name(name)
        if not other.exists():
            path.rename(other)
            assert_refused(release, *([path.name] if path.name == MANIFEST else ["nobody signed"]))


EXTRA = (
    "x",
    ".hidden",
    "cohort/more.nii.gz",
    "approvals/x",
    f"approvals/{'0' * 64}.dsse.json",
    f"approvals/deep/{'0' * 64}.dsse.json",
    f"{MANIFEST}.bak",
    "deep/er/and/deeper",
    "a\nb",
    "README.md ",
)


@EXAMPLES
@given(name=st.sampled_from(EXTRA), content=st.binary(max_size=64), huge=st.booleans())
def test_an_extra_file(approved: Consortium, name: str, content: bytes, huge: bool) -> None:
    with a_copy(approved) as release:
        path = release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if huge:
            os.truncate(path, HUGE)
        assert_refused(release)


@EXAMPLES
@given(draw=st.data())
def test_a_link_pipe_or_empty_folder(approved: Consortium, draw: st.DataObject) -> None:
    with a_copy(approved) as release:
        path = a_file(draw, release)
        kinds = ["to the same bytes", "outside", "folder", "dangling", "pipe", "empty", "loop"]
        match draw.draw(st.sampled_from(kinds)):
            case "to the same bytes":
                path.symlink_to(path.rename(release.parent / "moved"))
            case "outside":
                path.unlink()
                path.symlink_to("/etc/hostname")
            case "folder":
                (release / "outside").symlink_to(release.parent)
            case "dangling":
                (release / "dangling").symlink_to("nowhere")
            case "pipe":
                path.unlink()
                os.mkfifo(path)
            case "empty":
                (release / "approvals" / "empty").mkdir()
            case "loop":
                (release / "loop").symlink_to(release)
        assert_refused(release)


PARTS = st.sampled_from(["..", ".", "", "/etc", "a", "cohort", "\\", "\0", "README.md", "a" * 200])


@EXAMPLES
@given(draw=st.data(), trusted=st.booleans())
def test_a_statement_signed_with_other_paths(approved: Consortium, draw: st.DataObject, trusted: bool) -> None:
    with a_copy(approved) as release:
        name = "/".join(draw.draw(st.lists(PARTS, min_size=1, max_size=6)))
        number = draw.draw(st.integers(0, 3))
        statement = statement_of(release)
        if name == statement["subject"][number]["name"]:
            return
        statement["subject"][number]["name"] = name
        if trusted:
            shutil.rmtree(release / "approvals")
            sign_again(release, lambda made: made.update(subject=statement["subject"]))
        else:
            (release / MANIFEST).write_bytes(sign(json.dumps(statement).encode(), STRANGER))
        assert_refused(release)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), st.lists)


@EXAMPLES
@given(draw=st.data())
def test_a_manifest_of_anything(approved: Consortium, draw: st.DataObject) -> None:
    with a_copy(approved) as release:
        content = draw.draw(
            st.binary(max_size=200)
            | JSON.map(lambda value: json.dumps(value).encode())
            | st.sampled_from([b"[" * 1_000_000, b'{"a":' * 100_000, b"[1," * 1_000_000, b"\xff" * 1_000_000])
        )
        (release / MANIFEST).write_bytes(content)
        assert_refused(release)


def _safetensors(header: dict[str, object], length: int | None = None, data: bytes = bytes(64)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


OFFSETS = st.sampled_from([0, 4, 8, 32, 63, 64, 65, 1 << 31, 1 << 40, (1 << 63) - 1, -1])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 16, 1 << 20, 1 << 40, -1]), max_size=4)


@EXAMPLES
@given(draw=st.data())
def test_weights_whose_header_lies_though_a_trusted_key_signed_them(approved: Consortium, draw: st.DataObject) -> None:
    with a_copy(approved) as release:
        path = release / "generator.safetensors"
        if not path.exists():
            return
        names = draw.draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True))
        header: dict[str, object] = {
            name: {
                "dtype": draw.draw(st.sampled_from(["F32", "F64", "I8", "X"])),
                "shape": draw.draw(SHAPES),
                "data_offsets": [draw.draw(OFFSETS), draw.draw(OFFSETS)],
            }
            for name in names
        }
        length = draw.draw(st.none() | st.sampled_from([0, 1, 1 << 31, 1 << 40, (1 << 64) - 1]))
        path.write_bytes(_safetensors(header, length))
        sign_again_but_approvals(release)
        assert_refused(release)


@EXAMPLES
@given(draw=st.data())
def test_a_volume_whose_header_lies_though_a_trusted_key_signed_it(approved: Consortium, draw: st.DataObject) -> None:
    with a_copy(approved) as release:
        volumes = sorted(release.rglob("*.nii.gz"))
        if not volumes:
            return
        path = draw.draw(st.sampled_from(volumes))
        voxels = bytearray(gzip.decompress(path.read_bytes()))
        sides = draw.draw(st.lists(st.sampled_from([-1, 0, 1, 8, 512, 32_767]), min_size=3, max_size=3))
        field, packed = draw.draw(
            st.sampled_from(
                [
                    (42, struct.pack("<3h", *sides)),
                    (40, struct.pack("<h", sides[0])),
                    (108, struct.pack("<f", 1e30)),
                    (70, struct.pack("<h", sides[1])),
                    (0, struct.pack("<i", sides[2])),
                    (112, struct.pack("<f", float("nan"))),
                    (76, struct.pack("<4f", 1, float("inf"), 0, -1)),
                ]
            )
        )
        if voxels[field : field + len(packed)] == packed:
            return
        voxels[field : field + len(packed)] = packed
        content = bytearray(gzip.compress(bytes(voxels), mtime=0))
        content[8:10] = b"\x00\xff"
        path.write_bytes(bytes(content))
        sign_again_but_approvals(release)
        assert_refused(release)


@pytest.mark.parametrize("side", [64, 320])
def test_a_zip_bomb_that_a_trusted_key_signed_is_not_unpacked(approved: Consortium, side: int) -> None:
    """An honest header of another grid than the statement declares, and all its voxels, every one of them 0."""
    with a_copy(approved) as release:
        volumes = [path for path in sorted(release.rglob("*.nii.gz")) if not path.name.endswith("_dseg.nii.gz")]
        if not volumes:
            return
        write_volume(volumes[0], np.zeros((side,) * 3, np.float32), Grid((side,) * 3, (1.0, 1.0, 1.0)))
        sign_again_but_approvals(release)
        assert_refused(release)


def sign_again_but_approvals(release: Path) -> None:
    """By the packer; approvals of the release as it was are taken out."""
    shutil.rmtree(release / "approvals")
    sign_again(release)
