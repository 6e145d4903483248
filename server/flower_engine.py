"""The rounds over real Flower processes on this machine: one SuperLink, one SuperNode a site, on loopback.

For simulations only: connections are neither encrypted nor authenticated, and bind to 127.0.0.1.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from ..common.atomic import write_atomic
from ..common.errors import PeerError
from ..common.flower_bundle import BUNDLE_FILE, CLIENT_APP, bundle_text
from ..common.flower_programs import (
    LOOPBACK,
    flower_environment,
    flower_program,
    free_ports,
    supernode_command,
    write_superexec,
)
from ..common.processes import ProcessSet
from ..common.storage import storage_errors
from .checkpoints import Checkpoint
from .flower_control import FlowerControl
from .following import follow
from .health import superlink_answers
from .rounds import Progress, Rounds
from .run_folder import RUN_VARIABLE, RunFolder

_START_S = 120.0  # a cold Python on a loaded machine takes its time
_POLL_S = 0.25
_NODE = "supernode-"


def run_flower(rounds: Rounds, progress: Progress, client_app: str = CLIENT_APP) -> Checkpoint:
    """Do the remaining rounds; every process is gone when this returns or raises.

    Args:
        rounds: The run, its site folders prepared.
        progress: Called after each round, from this process.
        client_app: Reference to what answers at a site.

    Raises:
        PeerError: a round fell below the quorum, or a Flower process failed; names the log.
        ConfigError: Flower's programs are not installed beside this Python.
        StorageError: the disk is full, read-only or forbidden.
    """
    folder = rounds.folder
    with ProcessSet.running() as processes:
        federation = _Federation(folder, processes)
        federation.start(rounds.sites)
        run = federation.submit(bundle_text(rounds.study.digest(), client_app=client_app))
        log = folder.flower / "superlink.log"
        return follow(folder, federation.control, run, progress, log, federation.check_alive)


class _Federation:
    """SuperLink and SuperNodes of one run, and what is asked of them."""

    def __init__(self, folder: RunFolder, processes: ProcessSet) -> None:
        self._folder = folder
        self._processes = processes
        self._programs = folder.flower / "bin"
        flower_program("flower-superlink")  # before anything is begun
        with storage_errors():
            # An earlier run's outcome and logs are not this one's.
            shutil.rmtree(folder.flower, ignore_errors=True)
            folder.flower.mkdir(parents=True)

    def start(self, sites: tuple[str, ...]) -> None:
        """Start all processes; the SuperLink answers when this returns.

        Raises:
            PeerError: it does not come up.
        """
        link_port, *node_ports = free_ports(1 + len(sites))
        link = f"{LOOPBACK}:{link_port}"
        self.control = FlowerControl(self._folder.flower, link)
        self.control.connect()
        program = str(flower_program("flower-superlink"))
        self._spawn("superlink", program, "--insecure", "--host", LOOPBACK, "--port", str(link_port))
        deadline = time.monotonic() + _START_S
        while not superlink_answers(link_port):
            self.check_alive()
            if time.monotonic() > deadline:
                raise self.failure(f"the SuperLink did not answer within {_START_S:.0f} s", "superlink.log")
            time.sleep(_POLL_S)
        write_superexec(self._programs, None)
        for site, port in zip(sites, node_ports, strict=True):
            config = self._toml(f"node-{site}.toml", "site-dir", self._folder.site(site))
            where = ["--superlink", link, "--host", LOOPBACK, "--port", str(port)]
            command = [*supernode_command(), "--insecure", *where, "--node-config", str(config)]
            self._spawn(f"{_NODE}{site}", *command)

    def submit(self, bundle: str) -> str:
        """Start the run; returns its identifier."""
        app = self._folder.flower / "app"
        write_atomic(app / BUNDLE_FILE, bundle.encode())
        return self.control.submit(app)

    def check_alive(self) -> None:
        """Raise PeerError where a process has ended by itself."""
        if ended := self._processes.first_ended():
            name, code = ended
            raise self.failure(f"{name} ended with code {code}", f"{name}.log")

    def failure(self, found: str, log: str) -> PeerError:
        """The error for a Flower process that failed, with the log to read."""
        return PeerError(
            found,
            expected="Flower's processes to run until the last round",
            remedy=f"Read {self._folder.flower / log}; run it again to go on from the last round.",
        )

    def _spawn(self, name: str, *command: str) -> None:
        self._processes.start(
            name,
            command,
            log=self._folder.flower / f"{name}.log",
            environment=self._environment(name),
        )

    def _environment(self, name: str) -> dict[str, str]:
        programs = [self._programs] if name.startswith(_NODE) else []
        return {
            **flower_environment(self._folder.flower / f"home-{name}", programs),
            RUN_VARIABLE: str(self._folder.root),
            # One thread a site, as the local engine trains: the same bits, and no site stalls another.
            "OMP_NUM_THREADS": "1",
        }

    def _toml(self, name: str, key: str, value: Path) -> Path:
        path = self._folder.flower / name
        write_atomic(path, f"{key} = {json.dumps(str(value), ensure_ascii=False)}\n".encode())
        return path
