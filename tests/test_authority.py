"""Certificates: what sites' TLS libraries demand of them, in real handshakes, and what renewal keeps."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from enrolment import days

from fedphantom.common.enrolment.certificates import authority_of, certificate_of
from fedphantom.common.errors import ConfigError
from fedphantom.server.coordinator.authority import Certified, issue, make_authority, read_certified

NOW = datetime.now(UTC)
HOSTS = ("fed.example.org", "10.77.1.1", "2001:db8::1")


@pytest.fixture(scope="module")
def authority() -> Certified:
    return make_authority("tiny sites-ca", 3650, NOW)


@pytest.fixture(scope="module")
def proxy(authority: Certified) -> Certified:
    return issue(authority, HOSTS, 365, NOW)


def handshake(authority: Certified, server: Certified, host: str, folder: Path) -> str:
    """Negotiate TLS in memory, as strictly as Python can ask for; returns the protocol's version."""
    server.write(folder / "server.crt", folder / "server.key")
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    serving.load_cert_chain(folder / "server.crt", folder / "server.key")
    trusting.load_verify_locations(cadata=authority.pem().decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up, server_hostname=host)
    answering = serving.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.version() or ""


@pytest.mark.parametrize("host", HOSTS)
def test_a_strict_client_that_trusts_the_authority_accepts_every_name(
    host: str, authority: Certified, proxy: Certified, tmp_path: Path
) -> None:
    assert handshake(authority, proxy, host, tmp_path) == "TLSv1.3"


@pytest.mark.parametrize("host", ["other.example.org", "10.77.1.2", "localhost"])
def test_it_refuses_every_other_name(host: str, authority: Certified, proxy: Certified, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(authority, proxy, host, tmp_path)


def test_a_certificate_by_another_authority_of_the_same_name_is_refused(proxy: Certified, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(make_authority("tiny sites-ca", 3650, NOW), proxy, HOSTS[0], tmp_path)


def test_a_server_certificate_signs_no_other(authority: Certified, proxy: Certified, tmp_path: Path) -> None:
    forged = issue(proxy, ["forged.example.org"], 365, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, forged, "forged.example.org", tmp_path)
    with pytest.raises(ValueError, match="authority"):
        authority_of(proxy.pem())
    assert authority_of(authority.pem()) == authority.certificate


def test_it_holds_from_an_hour_before_it_was_made_until_its_last_day(authority: Certified, proxy: Certified) -> None:
    def accepted(when: datetime) -> bool:
        checks = PolicyBuilder().store(Store([authority.certificate])).time(when)
        try:
            checks.build_server_verifier(x509.DNSName(HOSTS[0])).verify(proxy.certificate, [])
        except VerificationError:
            return False
        return True

    moments = (-0.05, -0.04, 364.9, 365.1)
    assert [accepted(NOW + days(when)) for when in moments] == [False, True, True, False]


def test_it_never_outlives_its_authority_and_an_expired_authority_issues_none() -> None:
    short = make_authority("short", 10, NOW)
    assert issue(short, HOSTS, 365, NOW).certificate.not_valid_after_utc == short.certificate.not_valid_after_utc
    with pytest.raises(ConfigError, match="expired on"):
        issue(short, HOSTS, 365, NOW + days(10))


def test_keys_are_for_their_owner_alone_and_read_back_with_their_certificate(proxy: Certified, tmp_path: Path) -> None:
    certificate, key = tmp_path / "proxy.crt", tmp_path / "proxy.key"
    proxy.write(certificate, key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert read_certified(certificate, key).certificate == proxy.certificate


def test_a_certificate_with_another_key_is_none(authority: Certified, proxy: Certified, tmp_path: Path) -> None:
    certificate, key = tmp_path / "proxy.crt", tmp_path / "proxy.key"
    issue(authority, HOSTS, 365, NOW).write(certificate, key)
    certificate.write_bytes(proxy.pem())
    for spoilt in (certificate, key, tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="server renew"):
            read_certified(spoilt, key)
    with pytest.raises(ConfigError):
        read_certified(certificate, key)


@pytest.mark.parametrize("spoil", [lambda p: p * 2, lambda p: b"x" + p, lambda p: p[:200], lambda p: b""])
def test_a_text_that_is_not_exactly_one_certificate_is_none(spoil: object, proxy: Certified) -> None:
    with pytest.raises(ValueError, match="certificate"):
        certificate_of(spoil(proxy.pem()))  # type: ignore[operator]  # bytes to bytes
