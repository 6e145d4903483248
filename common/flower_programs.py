"""Flower's programs: where they are, and the surroundings in which they start nothing and call nobody."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from .atomic import write_atomic
from .errors import ConfigError

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Nothing that Flower starts may phone home or fetch anything."""

LOOPBACK = "127.0.0.1"

CLIENTAPP = "flwr-clientapp"
"""What Flower starts for a round at a site, found on PATH; and what a process that does its work is called."""

_SUPERNODE = "fedphantom.client.node.flower_node"
"""Stands in for ``flower-supernode``."""

_SUPEREXEC = "fedphantom.client.node.flower_superexec"
"""Stands in for ``flower-superexec`` beside a SuperNode."""


def flower_program(name: str) -> Path:
    """Path of one of Flower's programs, e.g. ``flower-superlink``, in the environment that this Python runs in.

    Raises:
        ConfigError: Flower is not installed there.
    """
    program = Path(sysconfig.get_path("scripts")) / name
    if not program.exists():
        raise ConfigError(
            "Flower's programs are not beside this Python",
            expected="flwr installed in the same environment",
            remedy="Install FedPhantom with its dependencies, or use --engine local.",
        )
    return program


def supernode_command() -> list[str]:
    """What is typed for a SuperNode, before its arguments.

    Raises:
        ConfigError: Flower is not installed there.
    """
    flower_program("flower-supernode")
    # -I: neither the folder it is started in nor the environment decides what is imported.
    return [sys.executable, "-I", "-m", _SUPERNODE]


def write_program(folder: Path, name: str, *line: str) -> None:
    """A program of this name in a folder that stands first on PATH; ``line`` is its command, arguments are passed on.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    write_atomic(folder / name, f'#!/bin/sh\nexec {shlex.join(line)} "$@"\n'.encode(), mode=0o755)


def write_superexec(folder: Path, site: Path | None) -> None:
    """The ``flower-superexec`` that a SuperNode finds first on its PATH, and whose tasks have not to be loaded first.

    Args:
        folder: Stands first on PATH.
        site: The site's folder, whose launcher is a task then; None in a simulation, where Flower's own program is.
    """
    # -P: the folder it is started in decides nothing; in a simulation the environment may say where an app lies.
    alone = "-P" if site is None else "-I"
    write_program(folder, "flower-superexec", sys.executable, alone, "-m", _SUPEREXEC, str(site or ""))


def flower_environment(home: Path, first_on_path: Sequence[Path] = ()) -> dict[str, str]:
    """Environment of a Flower process.

    Args:
        home: Its ``FLWR_HOME``; one a role, so that no two share connections or unpacked bundles.
        first_on_path: Folders searched before Flower's own: it finds its sub-commands on PATH.
    """
    folders = [*map(str, first_on_path), sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
    return {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
        "PATH": os.pathsep.join(folders),
        **_past_proxies(os.environ),
    }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that were free a moment ago; held open together so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """A site's HTTP proxy must not see loopback requests; whom else it must not see stays as it is."""
    loopback = [LOOPBACK, "localhost"]
    return {
        name: ",".join([*loopback, environment[name]] if environment.get(name) else loopback)
        for name in ("NO_PROXY", "no_proxy")
    }
