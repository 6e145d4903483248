"""What the coordinator asks of its SuperLink: ``flwr`` on the command line, over the loopback's Control API."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.atomic import write_atomic
from ..common.errors import PeerError
from ..common.flower_programs import flower_environment, flower_program
from ..common.rotated_log import RotatedLog
from ..common.storage import storage_errors

ANSWER_S = 120.0
"""How long an answer may take: a cold Python on a loaded machine takes its time."""

_CONNECTION = "superlink"

UNKNOWN = "unknown"
"""What stands for the status of a run that the SuperLink tells nothing of."""


@dataclass(frozen=True)
class FlowerControl:
    """A SuperLink's Control API.

    Attributes:
        folder: Where ``flwr`` keeps its connection, and its log ``flwr.log``.
        address: ``host:port`` of the SuperLink, on loopback.
        authority: Certificate of the authority that the SuperLink's own is signed by; None where it speaks plain text.
    """

    folder: Path
    address: str
    authority: Path | None = None

    def connect(self) -> None:
        """Write the connection; before anything else is asked."""
        trust = f"root-certificates = {_quoted(self.authority)}" if self.authority else "insecure = true"
        text = (
            f'[superlink]\ndefault = "{_CONNECTION}"\n[superlink.{_CONNECTION}]\naddress = "{self.address}"\n{trust}\n'
        )
        write_atomic(self._home / "config.toml", text.encode())

    def submit(self, app: Path) -> str:
        """Start a run of the bundle in a folder; its identifier.

        Args:
            app: Folder with the bundle's ``pyproject.toml``.

        Raises:
            PeerError: it was not accepted; names the log. As every other method.
        """
        run = self._done("run", str(app), _CONNECTION).get("run-id")
        if not isinstance(run, str | int):
            raise self._failure("Flower did not accept the run")
        return str(run)

    def status(self, run: str) -> str:
        """Flower's word for the run, e.g. ``running`` or ``finished:failed``; :data:`UNKNOWN` where it has none."""
        match self._ask("ls", _CONNECTION, "--run-id", run).get("runs"):
            case [{"status": str(status)}, *_]:
                return status
            case _:
                return UNKNOWN

    def stop(self, run: str) -> None:
        """End a run. PeerError: it was not ended, because it has ended by itself perhaps."""
        self._done("stop", run, _CONNECTION)

    def register(self, key: Path, name: str) -> str:
        """Let the SuperNode with this key in.

        Args:
            key: Public key, OpenSSH.
            name: The site's.

        Returns:
            The node's identifier, its own for as long as it is registered.
        """
        node = self._done("supernode", "register", str(key), _CONNECTION, "--name", name).get("node-id")
        if not isinstance(node, str | int):
            raise self._failure(f"the SuperLink did not register the node of '{name}'")
        return str(node)

    def unregister(self, node: str) -> None:
        """Let a SuperNode in no more."""
        self._done("supernode", "unregister", node, _CONNECTION)

    def nodes(self) -> dict[str, str]:
        """Flower's word for each registered node (``online``, ``offline`` …) by its identifier."""
        match self._done("supernode", "list", _CONNECTION).get("nodes"):
            case list() as nodes:
                return {str(node["node-id"]): str(node["status"]) for node in nodes}
            case _:
                return {}

    def _done(self, *arguments: str) -> dict[str, Any]:
        """As :meth:`_ask`. PeerError: it was not done; ``flwr`` says so in what it prints alone, and exits with 0."""
        answer = self._ask(*arguments)
        if answer.get("success") is not True:
            raise self._failure(f"the SuperLink did not do what 'flwr {arguments[0]}' asked of it")
        return answer

    def _ask(self, *arguments: str) -> dict[str, Any]:
        """The JSON object that a ``flwr`` command prints."""
        try:
            done = subprocess.run(  # noqa: S603 - our own list of arguments, no shell
                [str(flower_program("flwr")), *arguments, "--format", "json"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=self.folder,
                env=flower_environment(self._home),
                timeout=ANSWER_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._failure(f"'flwr {arguments[0]}' did not answer in {ANSWER_S:.0f} s") from None
        with storage_errors():
            RotatedLog(self._log).write(done.stdout + done.stderr)
        try:
            answer = json.loads(done.stdout[done.stdout.index(b"{") :])
        except ValueError:
            raise self._failure(f"'flwr {arguments[0]}' failed") from None
        return answer if isinstance(answer, dict) else {}

    @property
    def _home(self) -> Path:
        return self.folder / "home-flwr"

    @property
    def _log(self) -> Path:
        return self.folder / "flwr.log"

    def _failure(self, found: str) -> PeerError:
        return PeerError(
            found,
            expected="the SuperLink to answer on this machine",
            remedy=f"Read {self._log}; run it again to go on from the last round.",
        )


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
