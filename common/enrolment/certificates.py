"""Certificates as both sides read them: one X.509 certificate in a PEM text."""

from __future__ import annotations

import contextlib
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

_ONE = re.compile(rb"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n")


def certificate_of(pem: bytes) -> x509.Certificate:
    """The certificate in a PEM text that holds nothing else. Raises ValueError for anything else."""
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        if _ONE.fullmatch(pem):
            return x509.load_pem_x509_certificate(pem)
    raise ValueError("no single certificate")


def authority_of(pem: bytes) -> x509.Certificate:
    """The same, of one that may sign others. Raises ValueError for anything else."""
    certificate = certificate_of(pem)
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return certificate
    raise ValueError("no certificate of an authority")
