"""Ed25519 over bytes, in DSSE envelopes."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.errors import ConfigError, OutputTaken, SignatureInvalid
from fedphantom.common.keys import generate_key, key_id, load_private_key, load_public_key
from fedphantom.common.signing import PAYLOAD_TYPE, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@given(statement=st.binary(max_size=500))
def test_any_bytes_come_back_as_they_were_signed(statement: bytes) -> None:
    assert verify(sign(statement, KEY), [OTHER.public_key(), KEY.public_key()]) == statement


@settings(max_examples=300)
@given(statement=st.binary(max_size=60), data=st.data())
def test_no_byte_of_an_envelope_can_change(statement: bytes, data: st.DataObject) -> None:
    envelope = bytearray(sign(statement, KEY))
    offset = data.draw(st.integers(0, len(envelope) - 1))
    envelope[offset] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureInvalid):
        verify(bytes(envelope), [KEY.public_key()])


@st.composite
def _junk(draw: st.DrawFn) -> bytes:
    value = st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=4)
    signature = st.dictionaries(st.sampled_from(["keyid", "sig", "more"]), value)
    keys = {"payload": value, "payloadType": st.just(PAYLOAD_TYPE) | value, "signatures": value | st.lists(signature)}
    return json.dumps(draw(st.fixed_dictionaries(keys) | value)).encode()


@given(junk=st.binary(max_size=80) | _junk())
def test_junk_is_refused_and_never_crashes(junk: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        verify(junk, [KEY.public_key()])


def _edited(envelope: bytes, **changes: object) -> bytes:
    return json.dumps(json.loads(envelope) | changes, sort_keys=True, separators=(",", ":")).encode()


def test_a_signature_by_an_untrusted_key_is_refused() -> None:
    with pytest.raises(SignatureInvalid, match="unknown key") as caught:
        verify(sign(b"statement", OTHER), [KEY.public_key()])
    assert caught.value.exit_code == 5


def test_trusting_nobody_refuses_everything() -> None:
    with pytest.raises(SignatureInvalid):
        verify(sign(b"statement", KEY), [])


def test_a_swapped_payload_is_refused() -> None:
    swapped = _edited(sign(b"statement", KEY), payload=base64.b64encode(b"another").decode())
    with pytest.raises(SignatureInvalid, match="does not hold"):
        verify(swapped, [KEY.public_key()])


def test_a_swapped_signature_is_refused() -> None:
    other = json.loads(sign(b"another", KEY))["signatures"]
    with pytest.raises(SignatureInvalid, match="does not hold"):
        verify(_edited(sign(b"statement", KEY), signatures=other), [KEY.public_key()])


def test_a_signature_that_borrows_a_trusted_keys_name_is_refused() -> None:
    forged = json.loads(sign(b"statement", OTHER))["signatures"][0] | {"keyid": key_id(KEY.public_key())}
    with pytest.raises(SignatureInvalid, match="does not hold"):
        verify(_edited(sign(b"statement", OTHER), signatures=[forged]), [KEY.public_key()])


def test_the_payload_type_is_signed_and_only_one_is_accepted() -> None:
    with pytest.raises(SignatureInvalid):
        verify(_edited(sign(b"statement", KEY), payloadType="application/json"), [KEY.public_key()])


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_signature_is_accepted(count: int) -> None:
    ours = json.loads(sign(b"statement", KEY))["signatures"]
    theirs = json.loads(sign(b"statement", OTHER))["signatures"]
    with pytest.raises(SignatureInvalid):
        verify(_edited(sign(b"statement", KEY), signatures=(ours + theirs)[:count]), [KEY.public_key()])


def test_another_encoding_of_a_valid_envelope_is_refused() -> None:
    spaced = json.dumps(json.loads(sign(b"statement", KEY)), indent=1).encode()
    with pytest.raises(SignatureInvalid, match="did not write"):
        verify(spaced, [KEY.public_key()])


def test_an_unsigned_field_beside_the_signature_is_refused() -> None:
    signature = json.loads(sign(b"statement", KEY))["signatures"][0] | {"note": "by site-a"}
    with pytest.raises(SignatureInvalid, match="did not write"):
        verify(_edited(sign(b"statement", KEY), signatures=[signature]), [KEY.public_key()])


def test_the_signed_bytes_are_what_the_dsse_format_says() -> None:
    envelope = json.loads(sign("süß".encode(), KEY))
    assert PAYLOAD_TYPE.isascii()
    signed = b"DSSEv1 28 application/vnd.in-toto+json 5 s\xc3\xbc\xc3\x9f"
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)


def test_signing_is_deterministic() -> None:
    assert sign(b"statement", KEY) == sign(b"statement", KEY)


def test_key_ids_tell_keys_apart() -> None:
    assert key_id(KEY.public_key()) != key_id(OTHER.public_key())
    assert len(key_id(KEY.public_key())) == 64


def test_a_key_pair_written_to_disk_signs_and_verifies(tmp_path: Path) -> None:
    private, public = generate_key(tmp_path / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    assert verify(sign(b"statement", load_private_key(private)), [load_public_key(public)]) == b"statement"


def test_two_generated_keys_differ(tmp_path: Path) -> None:
    publics = [load_public_key(generate_key(tmp_path / name)[1]) for name in ("a", "b")]
    assert key_id(publics[0]) != key_id(publics[1])


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    private, _ = generate_key(tmp_path)
    before = private.read_bytes()
    with pytest.raises(OutputTaken):
        generate_key(tmp_path)
    assert private.read_bytes() == before


_EC = generate_ec_key(SECP256R1())
_PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8)
NOT_KEYS = {
    "empty": b"",
    "text": b"not a key",
    "another algorithm, private": _EC.private_bytes(*_PKCS8, NoEncryption()),
    "another algorithm, public": _EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
}


@pytest.mark.parametrize("content", NOT_KEYS.values(), ids=NOT_KEYS.keys())
def test_files_that_are_no_ed25519_keys_are_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pem"
    path.write_bytes(content)
    for load in (load_private_key, load_public_key):
        with pytest.raises(ConfigError, match=r"file\.pem") as caught:
            load(path)
        assert caught.value.exit_code == 3


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    private, public = generate_key(tmp_path)
    with pytest.raises(ConfigError):
        load_public_key(private)
    with pytest.raises(ConfigError):
        load_private_key(public)
    with pytest.raises(ConfigError):
        load_private_key(tmp_path / "absent.pem")
