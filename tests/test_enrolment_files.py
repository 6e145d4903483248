"""Signed files of enrolment: what each says, that nothing passes for it, and that its form does not change."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from enrolment import NOW, Study, days, new_keys, signed_again
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.enrolment.address import Address, host_name
from fedphantom.common.enrolment.invitation import INVITATION, Invitation, open_invitation, read_invitation
from fedphantom.common.enrolment.request import REQUEST, EnrolmentRequest, open_request
from fedphantom.common.enrolment.roster import ROSTER, EnrolledSite, RevokedKeys, Roster
from fedphantom.common.enrolment.signed_file import LARGEST, opened, read_content, signed
from fedphantom.common.enrolment.site_keys import (
    identity_pem,
    new_node_key,
    node_key_of,
    node_proved,
    private_node_key_of,
    private_node_text,
    prove_node,
    public_node_text,
)
from fedphantom.common.errors import ConfigError, FedPhantomError, SignatureInvalid
from fedphantom.common.in_toto import time_text
from fedphantom.common.keys import load_private_key
from fedphantom.common.signing import sign, unverified
from fedphantom.server.coordinator.folder import CoordinatorFolder

GOLDEN = Path(__file__).parent / "golden"
COORDINATOR = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.make(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def invitation(study: Study) -> bytes:
    return study.invite("site-a")


@pytest.fixture(scope="module")
def request_(study: Study, invitation: bytes) -> bytes:
    return study.request(invitation, new_keys())


@pytest.fixture(scope="module")
def roster(study: Study) -> bytes:
    return CoordinatorFolder(study.folder).roster.read_bytes()


def coordinators(study: Study) -> Ed25519PrivateKey:
    return load_private_key(CoordinatorFolder(study.folder).private_key)


def open_anything(content: bytes, study: Study) -> dict[str, object]:
    """What each of the three readers makes of it: the record, or None where it refuses."""
    readers: dict[str, Any] = {
        "invitation": lambda: open_invitation(content),
        "request": lambda: open_request(content),
        "roster": lambda: opened(ROSTER, content, [coordinators(study).public_key()]),
    }
    found = {}
    for name, read in readers.items():
        try:
            found[name] = read()
        except FedPhantomError:
            continue
    return found


def test_each_kind_is_read_by_its_own_reader_and_by_no_other(
    study: Study, invitation: bytes, request_: bytes, roster: bytes
) -> None:
    assert set(open_anything(invitation, study)) == {"invitation"}
    assert set(open_anything(request_, study)) == {"request"}
    assert set(open_anything(roster, study)) == {"roster"}


def test_a_file_of_another_kind_is_told_for_what_it_is_not(study: Study, invitation: bytes, request_: bytes) -> None:
    with pytest.raises(ConfigError, match="a file that is no request"):
        open_request(invitation)
    with pytest.raises(ConfigError, match="a file that is no invitation"):
        open_invitation(request_)
    with pytest.raises(ConfigError, match="signed, but no roster"):
        opened(ROSTER, invitation, [coordinators(study).public_key()])


def test_a_file_taken_for_another_is_not_called_forged_whoever_signed_it(
    study: Study, request_: bytes, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="says it is a 'request', not a roster"):
        opened(ROSTER, request_, [coordinators(study).public_key()])
    # A roster that says it is one, by another key, is.
    with pytest.raises(SignatureInvalid):
        opened(ROSTER, signed_again(CoordinatorFolder(study.folder).roster.read_bytes(), STRANGER), [])


def test_a_file_that_was_cut_off_is_told_for_that_before_any_signature(roster: bytes, tmp_path: Path) -> None:
    for part in (roster[: len(roster) // 2], roster[:-1], roster[:20] + b"\xff" + roster[20:]):
        (tmp_path / "part").write_bytes(part)
        with pytest.raises(ConfigError, match="a part of a file, or a damaged one, where a roster is read"):
            read_content(tmp_path / "part", ROSTER)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["invitation", "request_", "roster"])
def test_no_file_with_one_byte_changed_is_accepted(
    kind: str, study: Study, invitation: bytes, request_: bytes, roster: bytes, data: st.DataObject
) -> None:
    changed = bytearray({"invitation": invitation, "request_": request_, "roster": roster}[kind])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    assert open_anything(bytes(changed), study) == {}


def test_what_was_changed_is_a_signature_that_does_not_hold_whatever_was_changed(
    study: Study, invitation: bytes, request_: bytes
) -> None:
    for content, read, key in ((invitation, open_invitation, "study"), (request_, open_request, "node_proof")):
        changed = json.loads(content)
        statement = json.loads(unverified(content)[1])
        statement["predicate"][key] = "nonsense"
        changed["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        with pytest.raises(SignatureInvalid, match="does not hold"):
            read(json.dumps(changed, sort_keys=True, separators=(",", ":")).encode())


@given(junk=st.binary(max_size=120) | st.builds(lambda text: sign(text, IDENTITY), st.binary(max_size=60)))
def test_junk_signed_or_not_is_refused_and_never_crashes(study: Study, junk: bytes) -> None:
    assert open_anything(junk, study) == {}


def test_another_encoding_of_what_was_signed_is_refused(study: Study, invitation: bytes) -> None:
    spaced = json.dumps(json.loads(unverified(invitation)[1]), indent=1).encode()
    with pytest.raises(ConfigError, match="another encoding"):
        open_invitation(sign(spaced, coordinators(study)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "fed.test"),
        ("address", "FED.test:443"),
        ("authority", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("token", "00"),
        ("site", "../site-a"),
        ("expires", "2020-01-01T00:00:00Z"),
        ("expires", "soon"),
        ("study", 'name = "tiny"'),
        ("study_name", "unlike"),
        ("unheard", 1),
    ],
)
def test_an_invitation_whose_parts_do_not_hold_is_refused_and_names_no_value(
    study: Study, invitation: bytes, key: str, value: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_invitation(signed_again(invitation, coordinators(study), **{key: value}))
    assert "signed, but the invitation's '" in caught.value.found
    assert str(value) not in caught.value.found.replace(f"'{key}'", "")


def test_the_authority_of_an_invitation_may_sign_certificates(study: Study, invitation: bytes) -> None:
    proxy = CoordinatorFolder(study.folder).certificate("proxy").read_text()
    with pytest.raises(ConfigError, match="authority"):
        open_invitation(signed_again(invitation, coordinators(study), authority=proxy))


def test_an_invitation_signed_by_another_key_than_it_brings_is_refused(invitation: bytes) -> None:
    with pytest.raises(SignatureInvalid, match="unknown key"):
        open_invitation(signed_again(invitation, STRANGER))


def test_an_invitation_whose_key_was_exchanged_is_valid_and_has_another_fingerprint(invitation: bytes) -> None:
    exchanged = signed_again(invitation, STRANGER, coordinator_key=identity_pem(STRANGER.public_key()))
    assert open_invitation(exchanged).fingerprint() != open_invitation(invitation).fingerprint()


def test_an_invitation_holds_until_its_last_moment(invitation: bytes) -> None:
    opened_ = open_invitation(invitation)
    opened_.refuse_expired(NOW + days(14))
    with pytest.raises(SignatureInvalid, match="expired on 2027-03-15"):
        opened_.refuse_expired(NOW + days(14.001))


def test_a_request_whose_node_key_was_exchanged_is_refused(invitation: bytes, study: Study) -> None:
    keys, other = new_keys(), new_keys()
    request = study.request(invitation, keys)
    content = json.loads(unverified(request)[1])["predicate"]["content"]
    content["keys"]["node_key"] = other.public("site-a").node_key
    with pytest.raises(SignatureInvalid, match="node key did not sign"):
        open_request(signed_again(request, keys.identity, content=content))


def test_a_request_signed_by_another_identity_than_it_names_is_refused(invitation: bytes, study: Study) -> None:
    with pytest.raises(SignatureInvalid, match="unknown key"):
        open_request(signed_again(study.request(invitation, new_keys()), STRANGER))


def test_a_proof_is_of_one_request_alone(invitation: bytes, study: Study) -> None:
    keys = new_keys()
    first, later = study.request(invitation, keys), study.request(invitation, keys, created=NOW + days(1))
    proof = json.loads(unverified(first)[1])["predicate"]["node_proof"]
    with pytest.raises(SignatureInvalid, match="node key did not sign"):
        open_request(signed_again(later, keys.identity, node_proof=proof))


def test_a_renewal_and_nothing_else_is_signed_by_an_old_key(invitation: bytes, study: Study) -> None:
    keys = new_keys()
    for request, proof in (
        (study.request(invitation, keys), "00" * 64),
        (study.request(invitation, keys, replaced=new_keys()), None),
    ):
        with pytest.raises(ConfigError, match="signed by the old identity key"):
            open_request(signed_again(request, keys.identity, old_identity_proof=proof))


def site(name: str, **changes: Any) -> EnrolledSite:
    keys = new_keys().public(name).model_dump()
    times = {"enrolled": "2027-03-01T12:00:00Z", "expires": "2028-02-29T12:00:00Z"}
    return EnrolledSite(**(keys | times | changes))


def test_a_roster_names_each_site_and_each_key_once_in_order_and_none_that_is_revoked() -> None:
    one, two = site("a"), site("b")
    made = {"study_digest": "0" * 64, "serial": 1, "issued": "2027-03-01T12:00:00Z", "revoked": ()}
    Roster(**made, sites=(one, two))
    gone = RevokedKeys(name="a", fingerprint=one.keys().fingerprint(), revoked="2027-03-01T12:00:00Z")
    for wrong in (
        {"sites": (two, one)},
        {"sites": (one, one)},
        {"sites": (one, site("b", node_key=one.node_key))},
        {"sites": (one, site("b", identity_key=one.identity_key))},
        {"sites": (one, two), "revoked": (gone,)},
    ):
        with pytest.raises(ValueError, match=r"roster|Roster"):
            Roster(**(made | wrong))


def test_a_site_is_active_until_its_last_moment() -> None:
    roster = Roster(study_digest="0" * 64, serial=1, issued=time_text(NOW), sites=(site("a"),), revoked=())
    assert list(roster.active(NOW)) == ["a"]
    assert roster.active(NOW + days(366)) == {}


# Keys.


def test_a_node_key_is_what_flower_reads_and_reads_back() -> None:
    key = new_node_key()
    text = public_node_text(key.public_key())
    assert text.startswith("ecdsa-sha2-nistp384 ")
    assert node_key_of(text) == key.public_key()
    assert public_node_text(private_node_key_of(private_node_text(key)).public_key()) == text


@pytest.mark.parametrize("spoil", [lambda t: f"{t} a comment", lambda t: f"{t}\n", lambda t: t[:-4], lambda t: "x"])
def test_another_spelling_of_a_node_key_is_none(spoil: Any) -> None:
    with pytest.raises(ValueError, match="P-384"):
        node_key_of(spoil(public_node_text(new_node_key().public_key())))


def test_a_key_on_another_curve_is_none() -> None:
    other = generate_private_key(SECP256R1())
    with pytest.raises(ValueError, match="P-384"):
        node_key_of(public_node_text(other.public_key()))
    with pytest.raises(ValueError, match="P-384"):
        private_node_key_of(private_node_text(other))


@settings(deadline=None, max_examples=20)
@given(message=st.binary(max_size=50), other=st.binary(max_size=50), junk=st.text("0123456789abcdefg", max_size=40))
def test_a_proof_holds_for_its_message_and_key_alone(message: bytes, other: bytes, junk: str) -> None:
    key, stranger = new_node_key(), new_node_key()
    text = public_node_text(key.public_key())
    proof = prove_node(message, key)
    assert node_proved(message, proof, text)
    assert node_proved(other, proof, text) == (other == message)
    assert not node_proved(message, proof, public_node_text(stranger.public_key()))
    assert not node_proved(message, junk, text)


# Addresses.


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("fed.example.org:443", "fed.example.org:443"),
        ("FED.Example.org:443", "fed.example.org:443"),
        ("10.77.1.1:9443", "10.77.1.1:9443"),
        ("[2001:DB8::0:1]:443", "[2001:db8::1]:443"),
        ("localhost:1", "localhost:1"),
    ],
)
def test_an_address_has_one_spelling(text: str, spelt: str) -> None:
    assert str(Address.parse(text)) == spelt
    assert Address.parse(spelt) == Address.parse(text)


@pytest.mark.parametrize(
    "text",
    ["fed", "fed:", ":443", "fed:0", "fed:65536", "fed:x", "fed:044", "a b:1", "fed_x:1", "-a:1", "2001:db8::1:443",
     "300.1.1.1:443", "https://fed:443", "fed/x:443", "", "x" * 254 + ":1", "[fed:1", "[fed]:1", "[]:1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets|a host is"):
        Address.parse(text)


@settings(max_examples=50)
@given(st.text(max_size=30) | st.from_regex(r"[A-Za-z0-9.:-]{1,20}", fullmatch=True))
def test_a_host_that_is_accepted_is_its_own_spelling(text: str) -> None:
    try:
        spelt = host_name(text)
    except ValueError:
        return
    assert host_name(spelt) == spelt
    assert spelt.isascii()


# Files.


def test_a_file_that_is_not_there_no_file_or_too_large_is_bad_input(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * (LARGEST + 1))
    link = tmp_path / "link"
    link.symlink_to(large)
    for path in (tmp_path / "nothing", tmp_path, large, link):
        with pytest.raises(ConfigError, match="no readable invitation") as caught:
            read_invitation(path)
        assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("kind", "key"),
    [(INVITATION, COORDINATOR), (REQUEST, IDENTITY), (ROSTER, COORDINATOR)],
    ids=lambda one: str(one)[:4],
)
def test_the_golden_file_says_what_it_said_and_is_written_as_it_was(kind: Any, key: Ed25519PrivateKey) -> None:
    content = (GOLDEN / f"{kind.name}.dsse.json").read_bytes()
    record = opened(kind, content, [key.public_key()])
    assert signed(kind, record, key) == content
    match record:
        case Invitation():
            assert (record.study_name, record.site, record.address) == ("tiny", "site-a", "fed.example.org:443")
            assert record.fingerprint() == "ZWE1G-XG750-XHNQN-5NPZP-N4QNV"
        case EnrolmentRequest():
            record.refuse_unproved()
            assert record.content.invitation == "1980adb1a03af37319b4cef04207ca27ec9680363537171df7c9a52f0452b0e4"
            assert record.fingerprint() == "6MZP3-DF35E-8PPCT-MSNYG-KK0EA"
        case Roster():
            assert (record.serial, [one.name for one in record.sites]) == (3, ["site-a"])
            assert [(keys.name, keys.revoked) for keys in record.revoked] == [("site-b", "2027-03-01T12:00:00Z")]
