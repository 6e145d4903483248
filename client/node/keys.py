"""A site's private keys: made at the site, never sent anywhere, exchanged as a pair."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...common.atomic import for_owner_alone, sync_folder, write_atomic
from ...common.enrolment.site_keys import (
    SiteKeys,
    identity_pem,
    new_node_key,
    private_node_key_of,
    private_node_text,
    public_node_text,
)
from ...common.errors import ConfigError
from ...common.keys import PRIVATE_KEY_NAME, PUBLIC_KEY_NAME, generate_key, load_private_key
from ...common.storage import making_errors, storage_errors
from .folder import NodeFolder

NODE = "node"
"""File of the node's private key; beside it ``node.pub``."""
IDENTITY = "identity"
"""Folder of the identity pair."""


@dataclass(frozen=True)
class KeyPair:
    """Both private keys."""

    node: EllipticCurvePrivateKey
    identity: Ed25519PrivateKey

    def public(self, site: str) -> SiteKeys:
        """What others get to know of them."""
        return SiteKeys(
            name=site,
            node_key=public_node_text(self.node.public_key()),
            identity_key=identity_pem(self.identity.public_key()),
        )


def make_keys(folder: Path) -> KeyPair:
    """Make what is not there yet, for the owner alone; a key that is there is kept.

    Raises:
        ConfigError: a file that is there is no such key.
        StorageError: the disk is full, read-only or forbidden.
    """
    with storage_errors(), making_errors():
        folder.mkdir(parents=True, exist_ok=True)
    for_owner_alone(folder)
    if not (folder / NODE).exists():
        write_atomic(folder / NODE, private_node_text(new_node_key()), mode=0o600)
    identity = folder / IDENTITY
    if not (identity / PRIVATE_KEY_NAME).exists():
        (identity / PUBLIC_KEY_NAME).unlink(missing_ok=True)  # of a private key that is gone
        generate_key(identity)
    keys = read_keys(folder)
    write_atomic(folder / f"{NODE}.pub", f"{public_node_text(keys.node.public_key())}\n".encode())
    write_atomic(identity / PUBLIC_KEY_NAME, identity_pem(keys.identity.public_key()).encode())
    return keys


def read_keys(folder: Path) -> KeyPair:
    """The keys in a folder. Raises ConfigError where they are not there, or no keys."""
    try:
        node = private_node_key_of((folder / NODE).read_bytes())
    except (OSError, ValueError):
        raise ConfigError(
            f"no readable '{NODE}' in the site's '{folder.name}'",
            expected="the node's private key as 'fedphantom site init' made it",
            remedy="Restore the folder from a backup; if it is lost, the coordinator revokes this site and invites it"
            " again.",
        ) from None
    return KeyPair(node, load_private_key(folder / IDENTITY / PRIVATE_KEY_NAME))


def present_keys(folder: NodeFolder) -> KeyPair | None:
    """The keys in use; None where there are none, as between the two moves of :func:`take_next_keys`."""
    return read_keys(folder.keys) if folder.keys.is_dir() else None


def asked_keys(folder: NodeFolder) -> KeyPair | None:
    """The keys asked for; None where there are none, or not both of them."""
    place = folder.next_keys
    whole = (place / NODE).exists() and (place / IDENTITY / PRIVATE_KEY_NAME).exists()
    return read_keys(place) if whole else None


def make_next_keys(folder: NodeFolder) -> KeyPair:
    """New keys to ask for, in the place of any that were."""
    with storage_errors():
        shutil.rmtree(folder.next_keys, ignore_errors=True)
    return make_keys(folder.next_keys)


def take_next_keys(folder: NodeFolder) -> None:
    """Use the keys asked for; those in use until now are deleted. Called again after a kill, it goes on."""
    old = folder.root / "keys-old"
    with storage_errors():
        shutil.rmtree(old, ignore_errors=True)
        if folder.keys.exists():
            os.replace(folder.keys, old)
        os.replace(folder.next_keys, folder.keys)
        sync_folder(folder.root)
        shutil.rmtree(old, ignore_errors=True)
