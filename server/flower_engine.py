"""The rounds over real Flower processes on this machine: one SuperLink, one SuperNode a site, on loopback.

For simulations only: connections are neither encrypted nor authenticated, and bind to 127.0.0.1.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from ..common.atomic import write_atomic
from ..common.errors import ConfigError, DataError, FedPhantomError, PeerError, StorageError
from ..common.flower_programs import LOOPBACK, flower_environment, flower_program, free_ports
from ..common.processes import ProcessSet
from ..common.storage import storage_errors
from .checkpoints import Checkpoint, latest_checkpoint, newest_round
from .flower_control import FlowerControl
from .rounds import Progress, Rounds
from .run_folder import RunFolder

BUNDLE = Path(__file__).parent / "flower_app"
"""The Flower app that both sides run: references to installed code, no code."""

_START_S = 120.0  # a cold Python on a loaded machine takes its time
_POLL_S = 0.25
_STATUS_POLL_S = 10.0

# The ServerApp is another process: its error comes as text and is raised again here as what it was.
_KINDS: Mapping[str, type[FedPhantomError]] = {k.__name__: k for k in (ConfigError, DataError, PeerError, StorageError)}


def run_flower(rounds: Rounds, progress: Progress, bundle: Path = BUNDLE) -> Checkpoint:
    """Do the remaining rounds; every process is gone when this returns or raises.

    Args:
        rounds: The run, its site folders prepared.
        progress: Called after each round, from this process.
        bundle: Folder of the Flower app; only its ``pyproject.toml`` is used.

    Raises:
        PeerError: a round fell below the quorum, or a Flower process failed; names the log.
        ConfigError: Flower's programs are not installed beside this Python.
        StorageError: the disk is full, read-only or forbidden.
    """
    folder, done = rounds.folder, rounds.checkpoint.round
    with ProcessSet.running() as processes:
        federation = _Federation(folder, processes)
        federation.start(rounds.sites)
        run = federation.submit(bundle)
        next_status = time.monotonic() + _STATUS_POLL_S
        while (outcome := folder.read_outcome()) is None:
            done = _report(folder, done, progress)
            federation.check_alive()
            if time.monotonic() >= next_status:
                # Only a ServerApp that died without a word is found this way, so it is asked rarely.
                if federation.control.status(run).startswith("finished") and folder.read_outcome() is None:
                    raise federation.failure("the ServerApp ended without a result", "superlink.log")
                next_status = time.monotonic() + _STATUS_POLL_S
            time.sleep(_POLL_S)
        _report(folder, done, progress)
    if outcome["kind"] != "done":
        kind = _KINDS.get(outcome["kind"], PeerError)
        raise kind(outcome["found"], expected=outcome["expected"], remedy=outcome["remedy"])
    checkpoint = latest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise DataError("no checkpoint after the run", expected="one a round", remedy="Run it again.")
    return checkpoint


class _Federation:
    """SuperLink and SuperNodes of one run, and what is asked of them."""

    def __init__(self, folder: RunFolder, processes: ProcessSet) -> None:
        self._folder = folder
        self._processes = processes
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
        self._spawn("superlink", "flower-superlink", "--insecure", "--host", LOOPBACK, "--port", str(link_port))
        deadline = time.monotonic() + _START_S
        while not _healthy(link_port):
            self.check_alive()
            if time.monotonic() > deadline:
                raise self.failure(f"the SuperLink did not answer within {_START_S:.0f} s", "superlink.log")
            time.sleep(_POLL_S)
        for site, port in zip(sites, node_ports, strict=True):
            config = self._toml(f"node-{site}.toml", "site-dir", self._folder.site(site))
            where = ["--superlink", link, "--host", LOOPBACK, "--port", str(port)]
            self._spawn(f"supernode-{site}", "flower-supernode", "--insecure", *where, "--node-config", str(config))

    def submit(self, bundle: Path) -> str:
        """Start the run; returns its identifier."""
        app = self._folder.flower / "app"
        # Only this file: the bundle holds no code, whatever else lies beside it.
        write_atomic(app / "pyproject.toml", (bundle / "pyproject.toml").read_bytes())
        return self.control.submit(app, self._toml("run.toml", "run-dir", self._folder.root))

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

    def _spawn(self, name: str, program: str, *arguments: str) -> None:
        self._processes.start(
            name,
            [str(flower_program(program)), *arguments],
            log=self._folder.flower / f"{name}.log",
            environment=self._environment(name),
        )

    def _environment(self, name: str) -> dict[str, str]:
        return {
            **flower_environment(self._folder.flower / f"home-{name}"),
            # One thread a site, as the local engine trains: the same bits, and no site stalls another.
            "OMP_NUM_THREADS": "1",
        }

    def _toml(self, name: str, key: str, value: Path) -> Path:
        path = self._folder.flower / name
        write_atomic(path, f"{key} = {json.dumps(str(value), ensure_ascii=False)}\n".encode())
        return path


def _report(folder: RunFolder, done: int, progress: Progress) -> int:
    """Tell of the rounds finished since; returns the newest."""
    if newest_round(folder.checkpoints) <= done:
        return done
    checkpoint = latest_checkpoint(folder.checkpoints)
    for record in checkpoint.history if checkpoint else ():
        if record.round > done:
            progress(record)
            done = record.round
    return done


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
