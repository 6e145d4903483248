import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedphantom.common.cohort import ChannelSource
from fedphantom.common.errors import DataError, GeometryError
from fedphantom.common.volumes import nifti_writer
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti import (
    canonical_spacing,
    is_nifti,
    nifti_stem,
    read_header,
    read_label_map,
    read_volume,
)
from fedphantom.common.volumes.nifti_writer import write_label_map, write_volume

GRID = Grid((4, 5, 6), (1.0, 2.0, 0.7))
NAME = "doe-john"


def ramp(grid: Grid = GRID) -> np.ndarray:
    return np.arange(np.prod(grid.shape), dtype=np.float32).reshape(grid.shape)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, **fields: object) -> Path:
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    voxels=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_written_volume_is_read_back_to_the_bit(
    tmp_path: Path, voxels: np.ndarray, spacing: tuple[float, float, float], ending: str
) -> None:
    grid = Grid(voxels.shape, spacing)
    path = tmp_path / f"volume{ending}"
    write_volume(path, voxels, grid)
    read, affine = read_volume(ChannelSource(path))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(affine, grid.affine(), rtol=1e-6)  # the header holds float32


@pytest.mark.parametrize("voxels_a_piece", [1, 21, 60, 10**9])
def test_in_how_many_pieces_a_file_is_written_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voxels_a_piece: int
) -> None:
    grid = Grid((4, 5, 50), (1.0, 1.0, 1.0))
    content = np.random.default_rng(0).integers(0, 9, grid.shape).astype(np.float32)
    for name in ("whole.nii.gz", "whole.nii"):
        write_volume(tmp_path / name, content, grid)
    monkeypatch.setattr(nifti_writer, "_PIECE_VOXELS", voxels_a_piece)
    for ending in ("nii.gz", "nii"):
        write_volume(tmp_path / f"pieces.{ending}", content, grid)
        assert (tmp_path / f"pieces.{ending}").read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


def test_writing_a_full_size_volume_takes_a_few_slices_of_memory(tmp_path: Path) -> None:
    grid = Grid((240, 240, 155), (1.0, 1.0, 1.0))
    for write, dtype in ((write_volume, np.float32), (write_label_map, np.uint8)):
        voxels = np.zeros(grid.shape, dtype)
        tracemalloc.start()
        write(tmp_path / "x.nii.gz", voxels, grid)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6  # 36 MB a copy as float32


def test_a_label_that_does_not_fit_a_byte_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for dtype in (np.uint16, np.int64, np.float32):
        with pytest.raises(TypeError):
            write_label_map(tmp_path / "x.nii.gz", ramp().astype(dtype), GRID)  # type: ignore[arg-type]  # that is the point
    assert list(tmp_path.iterdir()) == []


def test_a_written_label_map_is_read_back_and_agrees_with_nibabel(tmp_path: Path) -> None:
    labels = (ramp() % 4).astype(np.uint8)
    write_label_map(tmp_path / "labels.nii.gz", labels, GRID)
    read, _ = read_label_map(tmp_path / "labels.nii.gz")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj), labels)


def test_equal_voxels_give_equal_bytes_whatever_the_name_and_memory_order(tmp_path: Path) -> None:
    write_volume(tmp_path / "one.nii.gz", ramp(), GRID)
    write_volume(tmp_path / "other.nii.gz", np.asfortranarray(ramp()), GRID)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "other.nii.gz").read_bytes()


def test_a_written_file_tells_nothing_but_voxels_and_grid(tmp_path: Path) -> None:
    write_volume(tmp_path / f"{NAME}.nii.gz", ramp(), GRID)
    packed = (tmp_path / f"{NAME}.nii.gz").read_bytes()
    assert packed[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no comment, time 0
    content = gzip.decompress(packed)
    header, extension_flag, voxels = content[:348], content[348:352], content[352:]
    assert struct.unpack_from("<f", header, 108)[0] == 352  # vox_offset
    assert extension_flag == bytes(4)
    assert voxels == ramp().tobytes(order="F")
    before_dim, text = header[4:40], header[148:252]  # data_type .. dim_info; descrip and aux_file
    intent_name = header[328:344]
    assert before_dim == bytes(36)
    assert text == bytes(104)
    assert intent_name == bytes(16)
    assert header[124:148] == bytes(24)  # cal_max, cal_min, slice_duration, toffset, glmax, glmin


def test_a_volume_off_the_grid_or_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"\(4, 5, 5\)"):
        write_volume(tmp_path / "x.nii.gz", ramp()[..., :5], GRID)
    broken = ramp()
    broken[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        write_volume(tmp_path / "x.nii.gz", broken, GRID)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i2", ">f4"])
def test_every_stored_type_and_byte_order_is_read(tmp_path: Path, dtype: str) -> None:
    data = ramp().astype(dtype)
    path = save(tmp_path / "x.nii.gz", data)
    if str(dtype).startswith(">"):
        nib.save(nib.Nifti1Image(data, np.eye(4), nib.Nifti1Header(endianness=">")), path)
    np.testing.assert_array_equal(read_volume(ChannelSource(path))[0], ramp())


def test_scaling_and_nifti_2_are_read(tmp_path: Path) -> None:
    image = nib.Nifti2Image(ramp().astype(np.int16), np.diag([2.0, 2, 2, 1]))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "x.nii.gz")
    read, affine = read_volume(ChannelSource(tmp_path / "x.nii.gz"))
    np.testing.assert_allclose(read, np.asarray(nib.load(tmp_path / "x.nii.gz").dataobj))
    assert affine[0, 0] == 2


def test_one_channel_of_a_4d_file_is_read_and_no_other(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", np.stack([ramp(), ramp() + 100], axis=-1))
    np.testing.assert_array_equal(read_volume(ChannelSource(path, 1))[0], ramp() + 100)
    for wrong in (None, 2):
        with pytest.raises(DataError):
            read_volume(ChannelSource(path, wrong))


def test_a_4d_file_of_one_volume_is_a_volume(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", ramp()[..., None])
    np.testing.assert_array_equal(read_volume(ChannelSource(path))[0], ramp())


def test_fractional_labels_stay_visible(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", ramp() / 2)
    assert 0.5 in read_label_map(path)[0]


def test_header_text_and_extensions_are_reported_unmended(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), np.eye(4))
    image.header["descrip"], image.header["db_name"] = b"Doe", b"ward 3"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1970"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"<x/>"))
    nib.save(image, tmp_path / "x.nii.gz")
    header = read_header(tmp_path / "x.nii.gz")
    assert header.text == {"descrip": "Doe", "db_name": "ward 3"}
    assert header.extensions == (6, 4)
    assert header.shape == GRID.shape


def damaged_files(folder: Path) -> dict[str, bytes]:
    good = save(folder / "good.nii.gz", np.random.default_rng(0).random((8, 8, 8), dtype=np.float32)).read_bytes()
    plain = gzip.decompress(good)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    huge = bytearray(plain)
    struct.pack_into("<4h", huge, 40, 3, 30000, 30000, 30000)
    return {
        "empty": b"",
        "cut in the header": gzip.compress(plain[:200]),
        "cut in the stream": good[: len(good) // 2],
        "cut in the checksum": good[:-4],
        "one bit wrong": bytes(flipped),
        "voxels missing": gzip.compress(plain[:-40]),
        "not gzip": plain,
        "not NIfTI": gzip.compress(b"patient: doe-john\n" * 100),
        "impossible size": gzip.compress(bytes(huge)),
        "unknown data type": gzip.compress(plain[:70] + b"\xff\x7f" + plain[72:]),
        "wrong magic": gzip.compress(plain[:344] + b"abcd" + plain[348:]),
    }


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "cut in the header",
        "cut in the stream",
        "cut in the checksum",
        "one bit wrong",
        "voxels missing",
        "not gzip",
        "not NIfTI",
        "impossible size",
        "unknown data type",
        "wrong magic",
    ],
)
def test_a_damaged_file_is_a_data_error_that_names_no_patient(tmp_path: Path, damage: str) -> None:
    path = tmp_path / f"{NAME}.nii.gz"
    path.write_bytes(damaged_files(tmp_path)[damage])
    with pytest.raises(DataError) as caught:
        read_volume(ChannelSource(path))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no quoted exception behind it
    assert NAME not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_zip_bomb_with_an_honest_header_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """Eight gigabytes of zeros in eight megabytes: the header says so, and the file holds them."""
    header = bytearray(gzip.decompress(save(tmp_path / "good.nii.gz", ramp()).read_bytes())[:352])
    struct.pack_into("<8h", header, 40, 3, 2048, 2048, 2048, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)  # unsigned bytes
    block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = block.compress(bytes(1 << 24)) + block.flush(zlib.Z_FULL_FLUSH)
    start = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = start.compress(bytes(header)) + start.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / f"{NAME}.nii.gz"
    with path.open("wb") as file:
        file.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff" + begin)
        for _ in range((1 << 33) // (1 << 24)):
            file.write(packed)
        file.write(b"\x03\x00" + bytes(8))
    assert path.stat().st_size < 10_000_000
    tracemalloc.start()
    try:
        for read in (lambda: read_volume(ChannelSource(path)), lambda: read_label_map(path), lambda: read_header(path)):
            with pytest.raises(DataError, match=r"2048 × 2048 × 2048 uint8, more than 2 GiB") as refused:
                read()
            assert refused.value.exit_code == 3
            assert NAME not in str(refused.value)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_a_file_of_a_few_kilobytes_takes_the_array_that_is_made_of_it_and_no_more(tmp_path: Path, slope: float) -> None:
    header = bytearray(gzip.decompress(save(tmp_path / "good.nii.gz", ramp()).read_bytes())[:352])
    struct.pack_into("<8h", header, 40, 3, 200, 200, 200, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)  # unsigned bytes
    struct.pack_into("<ff", header, 112, slope, 0)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + bytes(200**3)))
    assert path.stat().st_size < 20_000
    for read, bytes_each in ((lambda: read_volume(ChannelSource(path)), 4), (lambda: read_label_map(path), 4)):
        tracemalloc.start()
        try:
            voxels, _ = read()
            assert tracemalloc.get_traced_memory()[1] < bytes_each * 200**3 + 8_000_000
        finally:
            tracemalloc.stop()
        assert not voxels.any()


def test_the_array_that_is_made_of_a_file_is_bounded_and_not_the_file_alone(tmp_path: Path) -> None:
    """One gigabyte of bytes would be four of single precision."""
    header = bytearray(gzip.decompress(save(tmp_path / "good.nii.gz", ramp()).read_bytes())[:352])
    struct.pack_into("<8h", header, 40, 3, 1024, 1024, 1024, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)
    with (tmp_path / "x.nii").open("wb") as file:
        file.write(header)
        file.truncate(352 + (1 << 30))  # sparse
    with pytest.raises(DataError, match="more than 2 GiB once read"):
        read_volume(ChannelSource(tmp_path / "x.nii"))


@pytest.mark.parametrize("shape", [(3, 700, 400), (300_000, 2, 3), (2, 3, 150_000), (1, 1, 1), (700, 700, 3)])
@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_however_long_an_axis_every_voxel_is_read_in_its_place(
    tmp_path: Path, shape: tuple[int, int, int], slope: float
) -> None:
    data = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    image = nib.Nifti2Image(data, np.eye(4))
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / "x.nii")
    expected = np.asarray(nib.load(tmp_path / "x.nii").dataobj)
    np.testing.assert_array_equal(read_volume(ChannelSource(tmp_path / "x.nii"))[0], expected)
    np.testing.assert_array_equal(read_label_map(tmp_path / "x.nii")[0], expected)


def test_voxels_without_an_end_behind_the_last_are_not_unpacked(tmp_path: Path) -> None:
    good = gzip.decompress(save(tmp_path / "good.nii.gz", ramp()).read_bytes())
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(good + bytes(1 << 28)))
    tracemalloc.start()
    try:
        read_volume(ChannelSource(tmp_path / "x.nii.gz"))  # what the header promises is there, and no more is read
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_label_map(tmp_path / "absent.nii.gz")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 347), value=st.binary(min_size=1, max_size=8))
@example(position=108, value=struct.pack("<f", 9.2e18))  # voxels said to begin where no file ends
@example(position=108, value=struct.pack("<f", 1e11))
def test_no_header_whatever_its_bytes_raises_anything_but_a_data_error(
    tmp_path: Path, position: int, value: bytes
) -> None:
    content = bytearray(gzip.decompress(save(tmp_path / "good.nii.gz", ramp()).read_bytes()))
    content[position : min(348, position + len(value))] = value[: 348 - position]
    (tmp_path / "bad.nii").write_bytes(content)
    try:
        voxels, affine = read_volume(ChannelSource(tmp_path / "bad.nii"))
    except DataError:
        return
    assert voxels.ndim == 3
    assert np.isfinite(affine).all()


@pytest.mark.parametrize("affine", [np.diag([1.0, 0, 1, 1]), np.full((4, 4), np.nan), np.ones((4, 4))])
def test_a_singular_affine_is_a_geometry_error(tmp_path: Path, affine: np.ndarray) -> None:
    path = save(tmp_path / "x.nii.gz", ramp())
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, *affine[:3].ravel())
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(GeometryError):
        read_volume(ChannelSource(path))


def test_spacing_is_told_in_anatomical_order() -> None:
    turned = np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    assert canonical_spacing(turned) == (3.0, 1.0, 2.0)


def test_hidden_files_are_no_images_and_stems_keep_their_dots() -> None:
    assert not is_nifti(Path("._scan.nii.gz"))
    assert is_nifti(Path("scan.NII.GZ"))
    assert nifti_stem(Path("scan.v2.nii.gz")) == "scan.v2"
