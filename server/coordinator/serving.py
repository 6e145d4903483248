"""``server start``: SuperLink and proxy kept running, and enrolled sites let in, until it is told to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ...common.enrolment.address import Address
from ...common.errors import ConfigError, PeerError
from ...common.flower_programs import LOOPBACK
from ...common.journal import Journal
from ...common.service import Service
from ...common.storage import storage_errors
from ...common.watched_file import WatchedFile
from ..flower_control import FlowerControl
from ..health import superlink_answers
from .configuration import read_configuration
from .folder import CoordinatorFolder
from .nodes import NodeTable
from .proxy import Proxy
from .registry import Registry
from .superlink import SuperLink

START_S = 120.0
"""How long a SuperLink may take to answer: a cold Python on a loaded machine takes its time."""

RESTART_S = 5.0
"""From a process's end to its next start."""

LOOK_AGAIN_S = 60.0
"""How late an enrolment that expired is noticed."""

DOOR_S = 30.0
"""How long nginx may take until a request passes."""

STARTS = 10
"""How often a SuperLink that ran is started again before it counts as one that cannot be."""

_POLL_S = 0.5


def superlink_of(folder: CoordinatorFolder) -> SuperLink:
    """The coordinator's SuperLink, running or not."""
    return SuperLink(
        folder.superlink.resolve(),
        read_configuration(folder.configuration).link_port,
        certificate=folder.certificate("link").resolve(),
        key=folder.certificate_key("link").resolve(),
        authority=folder.certificate("internal-ca").resolve(),
        run=folder.run.resolve(),
    )


def control_of(folder: CoordinatorFolder) -> FlowerControl:
    """What the coordinator asks its SuperLink through."""
    link = superlink_of(folder)
    return FlowerControl(link.folder, link.address, link.authority)


def nodes_of(folder: CoordinatorFolder) -> NodeTable:
    """The nodes that the SuperLink knows."""
    return NodeTable(superlink_of(folder).nodes)


def serve(folder: CoordinatorFolder, say: Callable[[str], None]) -> None:
    """Serve until interrupted; no process is left then.

    A process that ends by itself is started again; sites enrolled or revoked meanwhile are let in or put out.

    Args:
        folder: The coordinator's folder.
        say: Told when sites can reach it, and of everything that changes.

    Raises:
        ConfigError: another process serves this folder, nginx or Flower is not installed.
        PeerError: SuperLink or proxy does not come up; names the log.
        StorageError: the disk is full, read-only or forbidden.
    """
    with storage_errors():
        for part in (folder.superlink, folder.nginx):
            part.mkdir(parents=True, exist_ok=True)
    with Service.running(folder.root, folder.superlink, say) as service:
        _Serving(folder, service).run()


class _Serving:
    def __init__(self, folder: CoordinatorFolder, service: Service) -> None:
        self._folder, self._service = folder, service
        self._link, self._control, self._nodes = superlink_of(folder), control_of(folder), nodes_of(folder)
        configuration = read_configuration(folder.configuration)
        self._address, self._listen = configuration.address, configuration.listen
        self._proxy = Proxy(
            folder.nginx.resolve(),
            self._listen,
            configuration.link_port,
            certificate=folder.certificate("proxy").resolve(),
            key=folder.certificate_key("proxy").resolve(),
            internal_authority=self._link.authority,
        )
        self._journal = Journal(folder.journal)
        self._registry = WatchedFile(folder.registry)
        self._keys: dict[str, str] | None = None
        self._look_again = 0.0

    def run(self) -> None:
        if not (self._link.folder / "state.db").exists():
            # Another database knows none of the nodes of the one before.
            self._nodes.path.unlink(missing_ok=True)
        proxy = self._proxy.command()  # before anything is started: it may not be installed
        self._proxy.prepare()
        self._control.connect()
        self._start_superlink()
        self._open_door(proxy)
        self._let_in()
        self._journal.append("serving", listen=list(self._listen))
        self._service.report(
            "info",
            "serving",
            f"sites reach this coordinator at {self._address} (it listens on {', '.join(self._listen)})",
            listen=list(self._listen),
        )
        while True:
            time.sleep(_POLL_S)
            if ended := self._service.processes.first_ended():
                self._start_again(*ended)
            if self._registry.changed() or time.monotonic() >= self._look_again:
                self._let_in_or_later()

    def _start_superlink(self) -> None:
        self._service.processes.start(
            "superlink", self._link.command(), log=self._log("superlink"), environment=self._link.environment()
        )
        deadline = time.monotonic() + START_S
        while not self._link.answers():
            if self._service.processes.ended("superlink") or time.monotonic() > deadline:
                self._service.processes.end("superlink")
                raise PeerError(
                    "the SuperLink did not come up",
                    expected=f"an answer on 127.0.0.1:{self._link.port} within {START_S:.0f} s",
                    remedy=f"Read {self._log('superlink')}; another program may hold the port.",
                )
            time.sleep(0.2)

    def _open_door(self, command: Sequence[str]) -> None:
        """Start the proxy, and see that the SuperLink answers through it."""
        self._start_proxy(command)
        address = Address.parse(self._listen[0])
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address.host, address.host)  # noqa: S104  # listened on, not bound
        deadline = time.monotonic() + DOOR_S
        while not superlink_answers(address.port, self._folder.certificate("sites-ca"), through=host):
            ended = self._service.processes.ended("nginx")
            if ended or time.monotonic() > deadline:
                log = self._folder.nginx / "nginx.log"
                raise PeerError(
                    "nginx does not pass requests on" if not ended else "nginx ended as soon as it was started",
                    expected=f"an answer through {self._listen[0]} within {DOOR_S:.0f} s",
                    remedy=f"Read {log}. Often another program holds the port, it is one below 1024 that only root may"
                    " open, or the certificate has expired ('fedphantom server renew').",
                )
            time.sleep(0.2)

    def _start_again(self, name: str, code: int) -> None:
        self._journal.append("process-ended", name=name, code=code)
        self._service.report(
            "warning",
            "process-ended",
            f"{name} ended with code {code}; it is started again in {RESTART_S:.0f} s",
            name=name,
            code=code,
        )
        if name != "superlink":
            time.sleep(RESTART_S)
            self._start_proxy(self._proxy.command())
            return
        for left in reversed(range(STARTS)):
            time.sleep(RESTART_S)
            try:
                self._start_superlink()
            except PeerError as error:
                # Once it ran: whatever ended it meanwhile may be over by the next time.
                if not left:
                    raise
                self._service.report("warning", "not-started", f"{error.found}; it is tried again")
            else:
                return

    def _start_proxy(self, command: Sequence[str]) -> None:
        log = self._folder.nginx / "nginx.log"
        self._service.processes.start("nginx", command, log=log, environment={"PATH": os.defpath + ":/usr/sbin:/sbin"})

    def _let_in(self) -> None:
        """Let in who is enrolled now; also asked now and then where nothing was written: an enrolment expires."""
        self._look_again = time.monotonic() + LOOK_AGAIN_S
        keys = {site.name: site.node_key for site in Registry(self._folder).read().active(datetime.now(UTC))}
        if keys != self._keys:
            nodes = self._nodes.match(keys, self._control)
            self._keys, sites = keys, [node.site for node in nodes]
            self._service.report("info", "enrolled", f"enrolled: {', '.join(sites) or 'nobody yet'}", sites=sites)

    def _let_in_or_later(self) -> None:
        """As :meth:`_let_in`; where the SuperLink does not do it just now, it is asked again before long."""
        try:
            self._let_in()
        except PeerError as error:
            self._look_again = time.monotonic() + RESTART_S
            self._service.report("warning", "not-let-in", f"who may take part was not changed yet: {error.found}")

    def _log(self, name: str) -> Path:
        return self._folder.superlink / f"{name}.log"


def refuse_not_served(folder: CoordinatorFolder) -> None:
    """Raise ConfigError where no ``server start`` runs for this folder."""
    if not superlink_of(folder).answers():
        raise ConfigError(
            "this coordinator's SuperLink does not answer",
            expected="'fedphantom server start' running in another terminal, or as a service",
            remedy="Start it, then run this again.",
        )
