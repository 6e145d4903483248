"""A site's SuperNode: it reaches the coordinator's door alone, and starts nothing but the site's own launcher."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.flower_programs import (
    CLIENTAPP,
    LOOPBACK,
    flower_environment,
    supernode_command,
    write_program,
    write_superexec,
)

REFUSED = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation")
"""What Flower could be told to start by a bundle; at a site, nothing."""


@dataclass(frozen=True)
class SuperNode:
    """Where it lies and whom it reaches.

    Attributes:
        folder: Its programs, home and log.
        site: The site's folder.
        coordinator: ``host:port`` of the coordinator's door.
        authority: Certificate of the authority that the door's own is signed by.
        key: The site's private node key (ECDSA, OpenSSH).
        port: For its own Runtime API, on loopback.
    """

    folder: Path
    site: Path
    coordinator: str
    authority: Path
    key: Path
    port: int

    @property
    def programs(self) -> Path:
        """Folder that stands first on PATH."""
        return self.folder / "bin"

    def prepare(self) -> None:
        """Write the launcher, what refuses every other program, and the node's configuration.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        # The site's launcher stands first on PATH. -I: neither the folder it is started in nor the environment decides
        # what is imported.
        launcher = "fedphantom.client.node.launcher"
        write_program(self.programs, CLIENTAPP, sys.executable, "-I", "-m", launcher, str(self.site))
        write_superexec(self.programs, self.site)
        for name in REFUSED:
            write_program(self.programs, name, "sh", "-c", f"echo 'this site starts no {name}' >&2; exit 1")
        site = json.dumps(str(self.site), ensure_ascii=False)
        write_atomic(self.folder / "node.toml", f"site-dir = {site}\n".encode())

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        return (
            *supernode_command(),
            *("--superlink", self.coordinator, "--root-certificates", str(self.authority)),
            *("--auth-supernode-private-key", str(self.key)),
            *("--host", LOOPBACK, "--port", str(self.port)),
            *("--node-config", str(self.folder / "node.toml")),
        )

    def environment(self) -> dict[str, str]:
        """Of its process and of what it starts."""
        return flower_environment(self.folder / "home", [self.programs])
