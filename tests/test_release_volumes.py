"""Released volumes carry voxels and nothing else."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_release import Releasable, assert_refused, sign_again

from fedphantom.common.errors import VerificationFailed
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti_writer import write_volume


def _volume(root: Path) -> Path:
    return next(root.rglob("*_ce-gadolinium_T1w.nii.gz"))


def _unpacked(path: Path) -> bytearray:
    return bytearray(gzip.decompress(path.read_bytes()))


def _packed(content: bytes, header: bytes = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff", tail: bytes = b"") -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = deflate.compress(content) + deflate.flush()
    return header + body + struct.pack("<II", zlib.crc32(content), len(content)) + tail


def _at(offset: int, planted: bytes) -> Callable[[Path], bytes]:
    def plant(path: Path) -> bytes:
        content = _unpacked(path)
        content[offset : offset + len(planted)] = planted
        return _packed(bytes(content))

    return plant


def _with_extension(path: Path) -> bytes:
    content = _unpacked(path)
    content[108:112] = struct.pack("<f", 352 + 32)
    content[348:352] = b"\1\0\0\0"
    content[352:352] = struct.pack("<ii", 32, 6) + b"DOE^JANE 1970-01-01".ljust(24, b"\0")
    return _packed(bytes(content))


PLANTED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "data_type": (_at(4, b"DOE^JANE"), "'data_type'"),
    "db_name": (_at(14, b"hospital"), "'db_name'"),
    "extents": (_at(32, struct.pack("<i", 16384)), "'extents'"),
    "session_error": (_at(36, b"\1"), "'session_error'"),
    "regular": (_at(38, b"r"), "'regular'"),
    "dim_info": (_at(39, b"\x39"), "'dim_info'"),
    "unused dim": (_at(40 + 2 * 7, struct.pack("<h", 1970)), "'dim'"),
    "intent parameters": (_at(56, struct.pack("<f", 19.7)), "'intent_p'"),
    "pixdim of time": (_at(76 + 4 * 4, struct.pack("<f", 2.5)), "'pixdim'"),
    "scl_slope": (_at(112, struct.pack("<f", 1.5)), "'scl_slope'"),
    "cal_max": (_at(124, struct.pack("<f", 700)), "'cal_max_min'"),
    "toffset": (_at(136, struct.pack("<f", 20261122)), "'toffset'"),
    "glmax": (_at(140, struct.pack("<i", 19700101)), "'glmax_min'"),
    "descrip": (_at(148, b"TE=2.9;Time=101500.000"), "'descrip'"),
    "descrip behind its end": (_at(148 + 60, b"DOE"), "'descrip'"),
    "aux_file": (_at(228, b"sub-0042"), "'aux_file'"),
    "scanner offset in qform": (_at(268, struct.pack("<f", -87.31)), "'qoffset'"),
    "oblique qform": (_at(256, struct.pack("<f", 0.02)), "'quatern'"),
    "scanner offset in sform": (_at(280 + 12, struct.pack("<f", -87.31)), "'srow'"),
    "intent_name": (_at(328, b"site-b"), "'intent_name'"),
    "extension flag": (_at(348, b"\1"), "'extension'"),
    "extension": (_with_extension, "not empty|'vox_offset'"),
    "bytes behind the voxels": (lambda path: _packed(bytes(_unpacked(path)) + b"DOE^JANE"), "behind the voxels"),
    "gzip name": (
        lambda path: _packed(bytes(_unpacked(path)), b"\x1f\x8b\x08\x08" + bytes(4) + b"\x00\xffsub-0042.nii\0"),
        "gzip header",
    ),
    "gzip time": (lambda path: _packed(bytes(_unpacked(path)), b"\x1f\x8b\x08\x00abcd\x00\xff"), "gzip header"),
    "bytes behind gzip": (lambda path: _packed(bytes(_unpacked(path)), tail=b"DOE"), "behind the gzip"),
    "second gzip member": (lambda path: path.read_bytes() + _packed(b"DOE^JANE"), "behind the gzip"),
    "truncated": (lambda path: path.read_bytes()[:-200], "volume with"),
    "big-endian": (_at(0, struct.pack(">i", 348)), "little-endian"),
    "not finite": (_at(352, struct.pack("<f", float("nan"))), "NaN"),
    "empty": (lambda path: b"", "gzip header"),
}


@pytest.mark.parametrize(("plant", "named"), PLANTED.values(), ids=PLANTED.keys())
def test_whatever_is_planted_in_a_volume_is_found(
    releasable: Releasable, volumes_release: Path, plant: Callable[[Path], bytes], named: str
) -> None:
    source = _volume(releasable.synthetic)
    source.write_bytes(plant(source))
    with pytest.raises(VerificationFailed, match=f"the synthetic cohort: .*{named}") as caught:
        releasable.pack()
    assert not {"DOE", "1970", "0042"} & set(str(caught.value).replace("^", " ").split())
    signed = _volume(volumes_release)
    signed.write_bytes(plant(signed))
    sign_again(volumes_release)
    assert_refused(volumes_release, named)


def test_a_label_map_holds_labels_and_an_image_intensities(volumes_release: Path) -> None:
    image = _volume(volumes_release)
    image.write_bytes(next(volumes_release.rglob("*_dseg.nii.gz")).read_bytes())
    sign_again(volumes_release)
    assert_refused(volumes_release, "'datatype'")


def test_volumes_of_different_grids_are_refused(volumes_release: Path) -> None:
    write_volume(_volume(volumes_release), np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8), (1.0, 1.0, 1.0)))
    sign_again(volumes_release)
    assert_refused(volumes_release, "a grid other than the one that was declared")


@pytest.mark.parametrize("ending", ["_T1w.json", "_T1w.nii.gz", "_dseg.nii.gz"])
def test_a_volume_without_its_sidecar_or_label_map_is_refused(volumes_release: Path, ending: str) -> None:
    next(volumes_release.rglob(f"*{ending}")).unlink()
    sign_again(volumes_release)
    assert_refused(volumes_release, "without a sidecar or label map, or with different channels")
