"""A round's request and reply as files: what they say comes back, and nothing of them can be changed unnoticed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from enrolment import signed_again
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linear_site import linear_generator, study_text

from fedphantom.common.enrolment.signed_file import signed
from fedphantom.common.errors import ConfigError, DataError, FedPhantomError, SignatureInvalid, VerificationFailed
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.round_files import signed_tensors
from fedphantom.common.round_files.reply import ReplyFile, read_reply, write_reply
from fedphantom.common.round_files.request import (
    REQUEST,
    RequestFile,
    RequestStatement,
    read_request,
    write_request,
)
from fedphantom.common.study import parse_study
from fedphantom.common.tensor_file import encode, read_header

GOLDEN = Path(__file__).parent / "golden"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.generate()
STUDY = parse_study(study_text())
GENERATOR = linear_generator(STUDY)
SPEC = ParameterSpec.of(GENERATOR)
NONE = ParameterSpec(())
ASKED = RoundRequest(STUDY.digest(), 2, GENERATOR)
METRICS = {"fake_mean": 0.1, "fake_std": 0.25, "steps": 4.0, "epsilon": 0.30000000000000004}


def asked_by(content: bytes, folder: Path, key: Ed25519PrivateKey = KEY, spec: ParameterSpec = SPEC) -> RequestFile:
    path = folder / "request"
    path.write_bytes(content)
    return read_request(path, spec, [key.public_key()], lambda statement: None)


def answer_in(content: bytes, folder: Path, key: Ed25519PrivateKey = KEY, spec: ParameterSpec = SPEC) -> ReplyFile:
    path = folder / "reply"
    path.write_bytes(content)
    return read_reply(path, spec, [key.public_key()], lambda statement, signer: None)


def a_reply(folder: Path, generator: Parameters = GENERATOR) -> bytes:
    request = asked_by(write_request(ASKED, 3, KEY), folder)
    return write_reply(RoundReply("site-a", 2, generator, 1.0, METRICS), request, 3, KEY)


def alike(one: Parameters, other: Parameters) -> bool:
    return parameters_digest(one) == parameters_digest(other)


def test_what_is_asked_and_answered_comes_back_to_the_bit(tmp_path: Path) -> None:
    content = write_request(ASKED, 3, KEY)
    request = asked_by(content, tmp_path)
    assert (request.request.study_digest, request.request.round, request.roster) == (STUDY.digest(), 2, 3)
    assert alike(request.request.generator, GENERATOR)
    found = answer_in(a_reply(tmp_path), tmp_path)
    assert (found.reply.site, found.reply.round, found.reply.weight) == ("site-a", 2, 1.0)
    assert found.reply.metrics == METRICS
    assert found.statement.request == request.digest
    assert alike(found.reply.generator, GENERATOR)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_metric_comes_back_to_the_bit(tmp_path: Path, value: float) -> None:
    request = asked_by(write_request(ASKED, 3, KEY), tmp_path)
    found = answer_in(write_reply(RoundReply("a", 2, GENERATOR, 1.0, {"fake_mean": value}), request, 3, KEY), tmp_path)
    assert struct.pack("d", found.reply.metrics["fake_mean"]) == struct.pack("d", value)


def test_the_same_content_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    assert write_request(ASKED, 3, KEY) == write_request(ASKED, 3, KEY)
    assert a_reply(tmp_path) == a_reply(tmp_path)


def test_where_no_weights_travel_a_file_holds_none(tmp_path: Path) -> None:
    content = write_request(RoundRequest(STUDY.digest(), 1, {}), 0, KEY)
    assert asked_by(content, tmp_path, spec=NONE).request.generator == {}
    with pytest.raises(ConfigError, match="another network's parameters"):
        asked_by(content, tmp_path)
    with pytest.raises(ConfigError, match="another network's parameters"):
        asked_by(write_request(ASKED, 3, KEY), tmp_path, spec=NONE)


FILES = st.sampled_from(["request", "reply"])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=FILES, at=st.floats(0, 1, exclude_max=True), by=st.integers(1, 255))
def test_a_changed_byte_anywhere_is_found_out(tmp_path: Path, file: str, at: float, by: int) -> None:
    content = bytearray(write_request(ASKED, 3, KEY) if file == "request" else a_reply(tmp_path))
    content[int(at * len(content))] ^= by
    with pytest.raises(FedPhantomError) as caught:
        (asked_by if file == "request" else answer_in)(bytes(content), tmp_path)
    assert caught.value.exit_code in (3, 5)


@pytest.mark.parametrize("blank", [b"\t", b"\n", b"\r"])
def test_a_blank_of_the_header_exchanged_for_another_is_found_out(tmp_path: Path, blank: bytes) -> None:
    content = write_request(RoundRequest(STUDY.digest(), 1, {"w": np.zeros(1, np.float32)}), 0, KEY)
    spec = ParameterSpec.of({"w": np.zeros(1, np.float32)})
    assert asked_by(content, tmp_path, spec=spec).content == content
    header = 8 + int.from_bytes(content[:8], "little")
    blanks = [place for place in range(header) if content[place : place + 1] == b" "]
    assert content[header - 1 : header] == b" "  # the library pads: JSON that means the same with another blank there
    for place in blanks:
        with pytest.raises(FedPhantomError):
            asked_by(content[:place] + blank + content[place + 1 :], tmp_path, spec=spec)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 5000), more=st.binary(max_size=20))
def test_a_file_cut_short_or_with_something_behind_it_is_refused(tmp_path: Path, cut: int, more: bytes) -> None:
    content = a_reply(tmp_path)
    changed = content[: min(cut, len(content))] + more
    if changed != content:
        with pytest.raises((DataError, ConfigError, VerificationFailed)):
            answer_in(changed, tmp_path)


def test_values_exchanged_under_a_signature_that_holds_are_said_to_be_changed(tmp_path: Path) -> None:
    content = write_request(ASKED, 3, KEY)
    with pytest.raises(VerificationFailed, match="changed after it was signed") as caught:
        asked_by(content[:-1] + bytes([content[-1] ^ 1]), tmp_path)
    assert caught.value.exit_code == 5


def test_a_files_own_seal_renewed_over_exchanged_values_does_not_help(tmp_path: Path) -> None:
    envelope = signed(REQUEST, statement_of(GENERATOR), KEY).decode()
    other = {name: value + np.float32(1) for name, value in GENERATOR.items()}
    with pytest.raises(VerificationFailed, match="changed after it was signed"):
        asked_by(encode(other, {"envelope": envelope}), tmp_path)


def statement_of(generator: Parameters) -> RequestStatement:
    return RequestStatement(
        study_digest=STUDY.digest(),
        round=2,
        roster=3,
        layout=ParameterSpec.of(generator).digest(),
        generator=parameters_digest(generator),
    )


def test_a_file_by_another_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureInvalid, match="unknown key"):
        asked_by(write_request(ASKED, 3, STRANGER), tmp_path)


def test_neither_kind_passes_for_the_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no round-request"):
        asked_by(a_reply(tmp_path), tmp_path)
    with pytest.raises(ConfigError, match="no round-reply"):
        answer_in(write_request(ASKED, 3, KEY), tmp_path)


def test_a_file_of_fedphantoms_without_a_signature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no round request"):
        asked_by(encode(GENERATOR, {"round": 2}), tmp_path)


def test_the_golden_files_say_what_they_said_and_are_written_as_they_were(tmp_path: Path) -> None:
    generator = {"bias": np.asarray([0.5, -2.0], np.float32), "weight": np.ones((1, 2), np.float32)}
    spec, digest = ParameterSpec.of(generator), "a" * 64
    content = (GOLDEN / "round-1.request.safetensors").read_bytes()
    asked = asked_by(content, tmp_path, spec=spec)
    assert (asked.request.study_digest, asked.request.round, asked.roster) == (digest, 1, 3)
    assert alike(asked.request.generator, generator)
    assert write_request(RoundRequest(digest, 1, generator), 3, KEY) == content
    answer = RoundReply("site-a", 1, generator, 1.0, METRICS)
    content = (GOLDEN / "round-1.reply.safetensors").read_bytes()
    assert answer_in(content, tmp_path, spec=spec).reply.metrics == METRICS
    assert write_reply(answer, asked, 3, KEY) == content


def test_the_longest_statement_and_the_longest_names_fit_their_headers_bound(tmp_path: Path) -> None:
    generator = {f"{'x' * 150}.{i}": np.ones((1, 1, 1, 1, 1), np.float32) for i in range(50)}
    spec = ParameterSpec.of(generator)
    request = asked_by(write_request(RoundRequest("f" * 64, 2**31 - 1, generator), 2**53 - 1, KEY), tmp_path, spec=spec)
    metrics = {f"m{'x' * 37}{i:02d}": -1.2345678901234567e-300 for i in range(32)}
    reply = RoundReply("s" * 32, 2**31 - 1, generator, 1e9, metrics)
    assert answer_in(write_reply(reply, request, 2**53 - 1, KEY), tmp_path, spec=spec).reply.metrics == metrics


def oversize_header(content: bytes) -> bytes:
    """A header as safetensors allows it, blown up with blanks: valid to the library, and large."""
    length = int.from_bytes(content[:8], "little")
    padded = content[8 : 8 + length] + b" " * 1_000_000
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def test_an_oversize_header_is_refused_unread_and_no_array_before_signature_and_size_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the whole file was read")

    monkeypatch.setattr(signed_tensors, "content_within", read)
    with pytest.raises(DataError):
        asked_by(oversize_header(write_request(ASKED, 3, KEY)), tmp_path)
    huge = {**GENERATOR, "up.weight": np.zeros((300, 400), np.float32)}
    for content, key in (
        (write_request(RoundRequest(STUDY.digest(), 2, huge), 3, KEY), KEY),
        (encode(huge, {"envelope": signed(REQUEST, statement_of(GENERATOR), KEY).decode()}), KEY),
        (write_request(ASKED, 3, STRANGER), KEY),
    ):
        with pytest.raises((ConfigError, SignatureInvalid)):
            asked_by(content, tmp_path, key)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    content = write_request(ASKED, 3, KEY)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["up.weight"]["shape"] = [2**40, 2**20]
    claimed = json.dumps(header).encode()
    with pytest.raises(DataError):
        asked_by(len(claimed).to_bytes(8, "little") + claimed + content[8 + length :], tmp_path)


def test_a_link_a_folder_and_nothing_at_all_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(write_request(ASKED, 3, KEY))
    (tmp_path / "link").symlink_to("file")
    for path in (tmp_path / "link", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="no readable round request"):
            read_request(path, SPEC, [KEY.public_key()], lambda statement: None)


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 0},
        {"round": 2.0},
        {"roster": -1},
        {"metrics": {"patients": 1e999}},
        {"metrics": {"A name with blanks": 1.0}},
        {"metrics": {f"m{i}": 1.0 for i in range(33)}},
        {"weight": "1"},
        {"site": "../up"},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_reply_that_says_what_no_reply_says_is_refused_although_it_is_signed(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    path = tmp_path / "reply"
    path.write_bytes(a_reply(tmp_path))
    envelope = str(read_header(path, "reply").facts["envelope"]).encode()
    assert answer_in(encode(GENERATOR, {"envelope": signed_again(envelope, KEY).decode()}), tmp_path)
    forged = signed_again(envelope, KEY, **changes).decode()
    with pytest.raises(ConfigError, match="signed, but"):
        answer_in(encode(GENERATOR, {"envelope": forged}), tmp_path)
