"""A coordinator and hospitals in network namespaces: each hospital reaches the coordinator, and nobody else.

Needs root and ``ip netns``; :func:`networks_problem` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

COORDINATOR = "coordinator"

ADDRESS = "10.77.0.1"
"""Of the coordinator, as every hospital reaches it."""


def networks_problem() -> str | None:
    """Why no namespaces can be made here, or nginx not be started in one; None where they can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and iproute2"
    if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
        return "nginx is not installed"
    name = f"fp-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None if made.returncode == 0 else "this machine allows no network namespaces"


@dataclass(frozen=True)
class Networks:
    """Namespaces that exist.

    Attributes:
        names: Namespace by role.
    """

    names: dict[str, str]

    def inside(self, role: str, command: Sequence[str]) -> list[str]:
        """The command, to be run in a role's namespace."""
        return ["ip", "netns", "exec", self.names[role], *command]


@contextlib.contextmanager
def networks(hospitals: Sequence[str]) -> Iterator[Networks]:
    """Make them; they and every process in them are gone when the block ends."""
    tag = f"fp{os.getpid()}"
    names = {role: f"{tag}-{number}" for number, role in enumerate([COORDINATOR, *hospitals])}
    try:
        for name in names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", names[COORDINATOR], "addr", "add", f"{ADDRESS}/32", "dev", "lo")
        for number, hospital in enumerate(hospitals, start=1):
            near, far, cable = names[COORDINATOR], names[hospital], f"{tag[:10]}v{number}"
            _ip("link", "add", cable, "netns", near, "type", "veth", "peer", "name", "eth0", "netns", far)
            _ip("-n", near, "addr", "add", f"10.77.{number}.1/30", "dev", cable)
            _ip("-n", near, "link", "set", cable, "up")
            _ip("-n", far, "addr", "add", f"10.77.{number}.2/30", "dev", "eth0")
            _ip("-n", far, "link", "set", "eth0", "up")
            _ip("-n", far, "route", "add", ADDRESS, "via", f"10.77.{number}.1")
        yield Networks(names)
    finally:
        for name in names.values():
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for pid in pids.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
