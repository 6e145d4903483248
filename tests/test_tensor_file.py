"""Tensor files from strangers: judged by their header, and refused before an array is made room for."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedphantom.common.errors import DataError
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata
from fedphantom.common.study import parse_study
from fedphantom.common.tensor_file import decode, encode, read_header

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.float32([0.5]),
    "step": np.float32([7]),
}
FACTS = {"round": 3, "note": "ß\ud800"}
WHOLE = encode(ARRAYS, FACTS)
LENGTH = int.from_bytes(WHOLE[:8], "little")
HEADER: dict[str, Any] = json.loads(WHOLE[8 : 8 + LENGTH])
VALUES = WHOLE[8 + LENGTH :]


def file_of(header: str | bytes, values: bytes = VALUES, length: int | None = None) -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + values


def with_entry(name: str, **changes: object) -> bytes:
    return file_of(json.dumps(HEADER | {name: HEADER[name] | changes}))


def test_header_and_content_of_a_whole_file_agree(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(WHOLE)
    header = read_header(tmp_path / "file", "file")
    arrays, facts = decode(WHOLE, "file")
    assert header.facts == facts == FACTS
    assert header.shapes == {name: array.shape for name, array in arrays.items()}
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


HUGE = 2**62
BAD: dict[str, bytes] = {
    "no byte": b"",
    "half a length": WHOLE[:5],
    "a header of 2**63 bytes": file_of(json.dumps(HEADER), length=2**63),
    "a header longer than the file": file_of(json.dumps(HEADER), length=len(WHOLE)),
    "a header that is no JSON": file_of(b"\x93NUMPY" * 20),
    "a header that is a list": file_of("[1, 2]"),
    "a header nested a hundred thousand deep": file_of("[" * 100_000),
    "a header of bytes that are no text": file_of(b'{"\xff\xfe": 1}'),
    "no facts": file_of(json.dumps({k: v for k, v in HEADER.items() if k != "__metadata__"})),
    "facts of another program": file_of(json.dumps(HEADER | {"__metadata__": {"format": "pt"}})),
    "more metadata than ours": file_of(json.dumps(HEADER | {"__metadata__": HEADER["__metadata__"] | {"x": "y"}})),
    "metadata that is no object": file_of(json.dumps(HEADER | {"__metadata__": 5})),
    "an array of 2**62 values": with_entry("a", shape=[HUGE], data_offsets=[0, 4 * HUGE]),
    "a shape whose product wraps around to the true size": with_entry("a", shape=[2**61, 2**61, 6]),
    "a shape larger than its extent": with_entry("a", shape=[2, 4]),
    "a negative axis": with_entry("a", shape=[-2, -3]),
    "an axis that is no whole number": with_entry("a", shape=[2, 3.0]),
    "an axis that is a truth value": with_entry("b", shape=[True]),
    "a shape of a thousand-digit number": with_entry("a", shape=[int("9" * 1000)]),
    "a shape that is text": with_entry("a", shape="23"),
    "another number type": with_entry("a", dtype="F64", shape=[3]),
    "arrays that overlap": with_entry("b", data_offsets=[20, 24]),
    "a gap between arrays": file_of(
        json.dumps(HEADER | {"step": HEADER["step"] | {"data_offsets": [32, 36]}}), VALUES + bytes(4)
    ),
    "an extent that ends before it begins": with_entry("b", data_offsets=[28, 24]),
    "an extent beyond the file": with_entry("step", data_offsets=[HUGE, HUGE + 4]),
    "three offsets": with_entry("b", data_offsets=[24, 28, 28]),
    "an unknown key": with_entry("b", hidden=1),
    "a name twice": file_of(json.dumps(HEADER)[:-1] + ', "b": ' + json.dumps(HEADER["b"]) + "}"),
    "the metadata twice": file_of(json.dumps(HEADER)[:-1] + ', "__metadata__": {}}'),
    "bytes after the last array": WHOLE + b"patient",
    "fewer bytes than arrays": WHOLE[:-4],
    "a shape of no axes for one of a single value": with_entry("b", shape=[]),
    "an array renamed": file_of(json.dumps({("c" if k == "b" else k): v for k, v in HEADER.items()})),
    "two arrays' names exchanged": file_of(json.dumps(HEADER | {"b": HEADER["step"], "step": HEADER["b"]})),
    "a value changed": WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_with_hardly_anything_allocated(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    tracemalloc.start()
    try:
        for read in (lambda: decode(data, "weights file"), lambda: read_and_decode(tmp_path / "file")):
            with pytest.raises(DataError, match=r"^the weights file ") as refused:
                read()
            assert len(str(refused.value)) < 300
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # a deeply nested header costs the parser's stack
    finally:
        tracemalloc.stop()


def read_and_decode(path: Path) -> object:
    read_header(path, "weights file")
    return decode(path.read_bytes(), "weights file")


def test_a_file_of_a_terabyte_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(WHOLE)
    with path.open("r+b") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(DataError, match="more or less than its header says"):
        read_header(path, "weights file")


def test_a_header_longer_than_asked_for_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encode({}, {"note": "x" * 5000}))
    assert read_header(path, "weights file").facts["note"] == "x" * 5000
    with pytest.raises(DataError, match="header longer than any"):
        read_header(path, "weights file", most_header_bytes=5000)


def test_a_header_of_many_megabytes_is_refused_unread(tmp_path: Path) -> None:
    """Parsed, its empty lists would take 23 times their size."""
    header = b'{"__metadata__":{"fedphantom":"{}"},"a":[' + b"[]," * 2_000_000 + b"[]]}"
    data = len(header).to_bytes(8, "little") + header
    (tmp_path / "file").write_bytes(data)
    tracemalloc.start()
    try:
        for read in (lambda: decode(data, "file"), lambda: read_header(tmp_path / "file", "file")):
            with pytest.raises(DataError, match="the file has a header longer than any"):
                read()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_longest_header_of_a_generator_fits_a_hundred_times() -> None:
    study = parse_study((files("fedphantom.server") / "study_templates" / "anatomy-freesurfer.toml").read_text())
    data = encode(initial_parameters(study), generator_metadata(study, 1))
    assert 100 * int.from_bytes(data[:8], "little") < 1 << 20  # of a weights file, the least that is read


def test_a_folder_or_a_missing_file_is_an_operating_system_error_for_the_caller_to_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(OSError, match=r"."):
            read_header(path, "weights file")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "F64", [2, 3], [0, 24], [24, 28]]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def mended(header: dict[str, Any], name: str, key: str, value: object) -> dict[str, Any]:
    return header | {name: {**header.get(name, {}), key: value}}


WAYS: dict[str, st.SearchStrategy[bytes]] = {
    "any bytes": st.binary(max_size=400),
    "any header": JSON.map(lambda value: file_of(json.dumps(value))),
    "one field of one array": st.builds(
        lambda name, key, value: file_of(json.dumps(mended(HEADER, name, key, value))),
        st.sampled_from([*ARRAYS, "new", "__metadata__"]),
        st.sampled_from(["dtype", "shape", "data_offsets", "fedphantom", "new"]),
        JSON,
    ),
    "a cut and other bytes in its place": st.builds(
        lambda at, gone, put: WHOLE[:at] + put + WHOLE[at + gone :],
        st.integers(0, len(WHOLE)),
        st.integers(0, 40),
        st.binary(max_size=40),
    ),
    "any length": st.integers(0, 2**64 - 1).map(lambda length: file_of(json.dumps(HEADER), length=length)),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_comes_in_is_read_as_it_was_written_or_refused(
    way: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file"

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @example(WHOLE)
    @given(WAYS[way])
    def judge(data: bytes) -> None:
        path.write_bytes(data)
        for read in (lambda: decode(data, "file"), lambda: read_and_decode(path)):
            if not refused(read):
                arrays, facts = decode(data, "file")
                assert facts == FACTS
                assert arrays.keys() == ARRAYS.keys()
                assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)

    judge()


def refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except DataError:
        return True
    return False
