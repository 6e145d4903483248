"""The study's own certificate authorities, and the server certificates that they sign.

Keys are ECDSA on P-256, signatures SHA-256 (RFC 5280). Sites trust one authority for one study, and no other; a
server certificate is renewed without a word to them as long as its authority is the same.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ...common.atomic import write_atomic
from ...common.enrolment.certificates import certificate_of
from ...common.errors import ConfigError

_EARLIER = timedelta(hours=1)
"""Certificates hold since so long before they are made: clocks of two institutions differ."""


@dataclass(frozen=True)
class Certified:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    def pem(self) -> bytes:
        """The certificate's text."""
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, certificate: Path, key: Path) -> None:
        """Write both, the key first and for its owner alone. Cut off between the two, they are issued again."""
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomic(key, private, mode=0o600)
        write_atomic(certificate, self.pem())


def make_authority(name: str, days: int, now: datetime) -> Certified:
    """A self-signed authority that signs servers' certificates and no other authority's.

    Args:
        name: Its common name.
        days: How long it holds.
        now: In UTC.
    """
    key = generate_private_key(SECP256R1())
    builder = _builder(_named(name), _named(name), key, now, now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    return Certified(builder.sign(key, SHA256()), key)


def issue(authority: Certified, hosts: Sequence[str], days: int, now: datetime) -> Certified:
    """A server certificate with a key of its own; it never holds longer than its authority.

    Args:
        authority: Who signs.
        hosts: Names and IP addresses, one or more, the first of which is its common name.
        days: How long it holds.
        now: In UTC.

    Raises:
        ConfigError: the authority itself holds no longer.
    """
    end = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    if end <= now:
        raise ConfigError(
            f"an authority that expired on {end:%Y-%m-%d}",
            expected="one that still holds",
            remedy="Begin the study anew with 'fedphantom server init', and invite its sites again.",
        )
    key = generate_private_key(SECP256R1())
    signer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(_named(hosts[0]), authority.certificate.subject, key, now, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False
    )
    return Certified(builder.sign(authority.key, SHA256()), key)


def read_certified(certificate: Path, key: Path) -> Certified:
    """Read a certificate with its key. Raises ConfigError where one is missing, or they do not belong together."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        found, private = certificate_of(certificate.read_bytes()), load_pem_private_key(key.read_bytes(), None)
        if isinstance(private, EllipticCurvePrivateKey) and private.public_key() == found.public_key():
            return Certified(found, private)
    raise ConfigError(
        f"no certificate '{certificate.name}' with its key",
        expected="both as 'fedphantom server init' wrote them",
        remedy="Restore pki/ from a backup; of 'proxy' and 'link', 'fedphantom server renew' issues new ones.",
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _EARLIER).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
