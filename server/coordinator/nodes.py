"""Which SuperNode is which site's: enrolled keys are let in, revoked ones put out, the ServerApp is told who is who."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...common.atomic import write_atomic
from ..flower_control import FlowerControl

NODES_VARIABLE = "FEDPHANTOM_NODES"
"""Environment variable by which a ServerApp's process is told the path of the table; none in a simulation."""

_UNREGISTERED = "unregistered"
"""Flower's word for a node that was put out."""


@dataclass(frozen=True)
class RegisteredNode:
    """A key that the SuperLink knows.

    Attributes:
        site: Whose it is.
        key: Public node key, OpenSSH.
        node: The SuperLink's identifier for it.
    """

    site: str
    key: str
    node: str


@dataclass(frozen=True)
class NodeTable:
    """The nodes that a SuperLink knows, kept beside its database."""

    path: Path

    def read(self) -> tuple[RegisteredNode, ...]:
        """The nodes; none where the file is missing, as it is for a new SuperLink."""
        try:
            return tuple(RegisteredNode(**row) for row in json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return ()

    def sites_by_key(self) -> dict[str, str]:
        """Site name by public node key."""
        return {each.key: each.site for each in self.read()}

    def match(self, keys: Mapping[str, str], control: FlowerControl) -> tuple[RegisteredNode, ...]:
        """Make the SuperLink know exactly these keys, whatever an earlier attempt left that was broken off.

        Args:
            keys: Public node key (OpenSSH) of each site that may take part, by name.
            control: Of the SuperLink.

        Returns:
            The nodes as they are now.

        Raises:
            PeerError: the SuperLink did not do it; what was done until then is kept, and the rest can be tried again.
        """
        known = {each.key: each for each in self.read()}
        # Registered, and then not written down: nobody knows whose it is, and its key could not be registered again.
        listed = {node for node, status in control.nodes().items() if status != _UNREGISTERED}
        for node in sorted(listed - {each.node for each in known.values()}):
            control.unregister(node)
        for each in list(known.values()):
            if keys.get(each.site) != each.key:
                if each.node in listed:
                    control.unregister(each.node)
                del known[each.key]
                self._write(known)
        for site, key in sorted(keys.items()):
            if key not in known:
                file = self.path.with_name(f"{site}.pub")
                write_atomic(file, f"{key.strip()}\n".encode())
                known[key] = RegisteredNode(site, key, control.register(file, site))
                self._write(known)
        return tuple(known.values())

    def _write(self, known: Mapping[str, RegisteredNode]) -> None:
        rows = [vars(each) for each in sorted(known.values(), key=lambda each: each.site)]
        write_atomic(self.path, (json.dumps(rows, indent=1) + "\n").encode())
