"""``python tutorial.py``: types docs/tutorial.md, each line in its own terminal, in network namespaces of one machine.

What people do between the lines is done here: files are carried from one folder to another, and fingerprints read from
one terminal are read out to the other.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from two_networks import ADDRESS, COORDINATOR, Networks, networks, networks_problem

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
HOSPITALS = ("hospital-a", "hospital-b")
PORT = 8443
FINGERPRINT = re.compile(r"\b[0-9A-Z]{5}(?:-[0-9A-Z]{5}){4}\b")
READY = {COORDINATOR: "sites reach this coordinator", **dict.fromkeys(HOSPITALS, "let this site in")}
"""What a command that stays says once it is of use."""


def lines() -> list[tuple[str, str]]:
    """(whose terminal, command), in the order in which the tutorial has them."""
    blocks = re.findall(r"^```console\n(.+?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    typed = [line.partition("$ ") for block in blocks for line in block.splitlines()]
    return [(role, command) for role, _, command in typed]


@dataclass
class Tutorial:
    """The three terminals.

    Attributes:
        root: One folder each below it.
        networks: Their namespaces.
        said: What each terminal has shown so far.
        heard: Variables that the tutorial's lines use: what was read out by telephone.
    """

    root: Path
    networks: Networks
    said: dict[str, str] = field(default_factory=dict)
    heard: dict[str, str] = field(default_factory=lambda: {"COORDINATOR": f"{ADDRESS}:{PORT}"})
    _staying: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def folder(self, role: str) -> Path:
        return self.root / role

    def type(self, role: str, command: str) -> str:
        """Type a line; what it shows. A command that ends in ``&`` stays, and is waited for until it is of use."""
        self._carry()
        if command.endswith("&"):
            return self._stay(role, command.removesuffix("&").strip())
        done = subprocess.run(
            self.networks.inside(role, ["bash", "-ec", command]),
            cwd=self.folder(role),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        shown = done.stdout + done.stderr
        if done.returncode:
            raise RuntimeError(f"{role}$ {command}\nended with {done.returncode}:\n{shown}")
        self.said[role] = self.said.get(role, "") + shown
        self._listen(role, command, shown)
        return shown

    def _stay(self, role: str, command: str) -> str:
        log = self.folder(role) / "terminal.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.networks.inside(role, ["bash", "-ec", f"exec {command}"]),
                cwd=self.folder(role),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._staying.append(process)
        deadline = time.monotonic() + 90
        while READY[role] not in (shown := log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{role}$ {command}\nis of no use:\n{shown}")
            time.sleep(0.1)
        return shown

    def _listen(self, role: str, command: str, shown: str) -> None:
        """What two people read to each other after this line."""
        found = FINGERPRINT.findall(shown)
        name = role.upper().replace("-", "_")
        if "site init" in command:
            self.heard[f"{name}_SAYS"] = re.findall(rf"read this out by telephone: ({FINGERPRINT.pattern})", shown)[0]
        elif "server init" in command:
            self.heard["COORDINATOR_SAYS"] = found[0]
        elif "site approve" in command and "--seen" not in command:
            self.heard[f"{name}_SAW"] = found[-1]

    def _carry(self) -> None:
        """Carry every file that has been made to whom it is for."""
        coordinator = self.folder(COORDINATOR)
        for hospital in HOSPITALS:
            for source, target in (
                (coordinator / f"{hospital}.invitation", self.folder(hospital) / f"{hospital}.invitation"),
                (self.folder(hospital) / "site" / f"{hospital}.request.dsse.json", coordinator / f"{hospital}.request"),
                (coordinator / "federation" / "roster.dsse.json", self.folder(hospital) / "roster"),
            ):
                if source.exists():
                    target.write_bytes(source.read_bytes())

    def environment(self) -> dict[str, str]:
        """Of every terminal."""
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **self.heard}

    def end(self) -> None:
        """Ctrl-C in every terminal that something stays in."""
        for process in reversed(self._staying):
            process.terminate()
        for process in self._staying:
            process.wait(timeout=60)


@contextmanager
def tutorial(root: Path) -> Iterator[Tutorial]:
    """Three terminals in networks of their own; nothing runs in any when the block ends."""
    with networks(HOSPITALS) as made:
        terminals = Tutorial(root, made)
        for role in (COORDINATOR, *HOSPITALS):
            terminals.folder(role).mkdir()
        try:
            yield terminals
        finally:
            terminals.end()


def main() -> int:
    if problem := networks_problem():
        print(f"the tutorial cannot be typed here: {problem}", file=sys.stderr)
        return 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root, tutorial(Path(root)) as terminals:
        for role, command in lines():
            started = time.monotonic()
            print(f"{started - began:6.1f} s  {role}$ {command}", flush=True)
            shown = terminals.type(role, command)
            print("\n".join(f"            {line}" for line in shown.splitlines()), flush=True)
        print(f"{time.monotonic() - began:6.1f} s in all")
        summary = json.loads((terminals.folder(COORDINATOR) / "federation" / "run" / "summary.json").read_text())
        print(json.dumps({"seconds_by_round": [record["seconds"] for record in summary["rounds"]]}))
    return 0


if __name__ == "__main__":
    # An end that is asked for leaves no process and no namespace behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
