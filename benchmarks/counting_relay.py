"""A relay on the loopback that passes bytes on unchanged, and counts them both ways."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

HOST = "127.0.0.1"


class CountingRelay:
    """Attributes: ``port``, where it listens; ``passed``, bytes passed on since it began, both ways together."""

    def __init__(self, target: int) -> None:
        self._target, self._lock = target, threading.Lock()
        self._listening = socket.create_server((HOST, 0), backlog=64)
        self.port, self.passed = int(self._listening.getsockname()[1]), 0
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextlib.contextmanager
    def to(cls, target: int) -> Iterator[CountingRelay]:
        """A relay to a port, until the block ends."""
        relay = cls(target)
        try:
            yield relay
        finally:
            relay._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                one, _ = self._listening.accept()
                try:
                    other = socket.create_connection((HOST, self._target))
                except OSError:
                    one.close()
                    continue
                for source, sink in ((one, other), (other, one)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                with self._lock:
                    self.passed += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
