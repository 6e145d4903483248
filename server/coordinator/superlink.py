"""The SuperLink of a deployed study: on loopback alone, with TLS, for SuperNodes whose keys were enrolled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.flower_programs import LOOPBACK, flower_environment, flower_program
from ..health import superlink_answers
from ..run_folder import RUN_VARIABLE
from .nodes import NODES_VARIABLE


@dataclass(frozen=True)
class SuperLink:
    """Where it lies and listens.

    Attributes:
        folder: Its database, home and log.
        port: On loopback.
        certificate: Its own, PEM.
        key: Its key.
        authority: Certificate of the authority that signed it.
        run: The coordinator's run folder; this and the table of nodes are told to the ServerApp through its process's
            environment.
    """

    folder: Path
    port: int
    certificate: Path
    key: Path
    authority: Path
    run: Path

    @property
    def nodes(self) -> Path:
        """Table of the nodes that it knows."""
        return self.folder / "nodes.json"

    @property
    def address(self) -> str:
        """``host:port`` on loopback."""
        return f"{LOOPBACK}:{self.port}"

    def command(self) -> Sequence[str]:
        """The program and its arguments. Registrations and runs live in its database, and outlive its process."""
        return (
            str(flower_program("flower-superlink")),
            *("--host", LOOPBACK, "--port", str(self.port)),
            *("--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)),
            *("--ssl-ca-certfile", str(self.authority)),
            *("--database", str(self.folder / "state.db")),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )

    def environment(self) -> dict[str, str]:
        """Of its process, which the ServerApp's inherits."""
        return {
            **flower_environment(self.folder / "home"),
            RUN_VARIABLE: str(self.run),
            NODES_VARIABLE: str(self.nodes),
        }

    def answers(self) -> bool:
        """Whether it is up, by a certificate of its authority."""
        return superlink_answers(self.port, self.authority)
