"""Key files: Ed25519 pairs as PEM, and the names that keys have in envelopes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # public, but not in __all__

from .atomic import write_atomic
from .errors import ConfigError, OutputTaken

PRIVATE_KEY_NAME = "key.pem"
PUBLIC_KEY_NAME = "key.pub.pem"


def generate_key(folder: Path) -> tuple[Path, Path]:
    """Make a key pair: ``key.pem`` (unencrypted PKCS#8, mode 0600) and ``key.pub.pem``.

    Returns:
        Paths of the private and the public key.

    Raises:
        OutputTaken: the folder holds a key already; a key is never overwritten.
        StorageError: the folder cannot be written.
    """
    private_path, public_path = folder / PRIVATE_KEY_NAME, folder / PUBLIC_KEY_NAME
    if private_path.exists() or public_path.exists():
        raise OutputTaken(
            f"'{folder.name}' holds a signing key already",
            expected="a folder without one",
            remedy="Choose another folder, or keep using that key.",
        )
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomic(private_path, pem, mode=0o600)
    write_atomic(public_path, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private_path, public_path


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key. Raises ConfigError for anything but an unencrypted Ed25519 PEM file."""
    with contextlib.suppress(OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise _no_key(path, "private")


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key. Raises ConfigError for anything but an Ed25519 PEM file."""
    with contextlib.suppress(OSError, ValueError):
        return public_key_of(path.read_bytes())
    raise _no_key(path, "public")


def public_key_of(pem: bytes) -> Ed25519PublicKey:
    """The key in a PEM text. Raises ValueError for anything but an Ed25519 public key."""
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        key = load_pem_public_key(pem)
        if isinstance(key, Ed25519PublicKey):
            return key
    raise ValueError("no Ed25519 public key")


def key_id(key: Ed25519PublicKey) -> str:
    """The key's name in envelopes: securesystemslib's digest (64 hex) of type, scheme and value."""
    return str(SSlibKey.from_crypto(key).keyid)


def _no_key(path: Path, kind: str) -> ConfigError:
    return ConfigError(
        f"no readable {kind} key in '{path.name}'",
        expected=f"an Ed25519 {kind} key in a PEM file" + (", without a password" if kind == "private" else ""),
        remedy=f"Give the path of {PRIVATE_KEY_NAME if kind == 'private' else PUBLIC_KEY_NAME}.",
    )
