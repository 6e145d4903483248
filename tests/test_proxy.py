"""nginx as it is configured for sites, before a server that would answer anything: only a SuperNode's requests pass."""

from __future__ import annotations

import http.client
import http.server
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import pytest

from fedphantom.common.flower_programs import LOOPBACK, free_ports
from fedphantom.common.processes import ProcessSet
from fedphantom.server.coordinator.authority import issue, make_authority
from fedphantom.server.coordinator.proxy import FLEET_REQUESTS, LARGEST_BODY_MB, Proxy

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(
        shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists(), reason="nginx is not installed"
    ),
]


@dataclass
class Door:
    """A proxy that runs, and what came through it."""

    address: tuple[str, int]
    authority: Path
    log: Path
    passed: list[str] = field(default_factory=list)

    def status(self, method: str, path: str, body: bytes | None = None) -> int:
        """Of the answer to one request, by a client that trusts the sites' authority alone."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection(*self.address, timeout=10, context=context)
        try:
            connection.request(method, path, body)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    root, now = tmp_path_factory.mktemp("proxy"), datetime.now(UTC)
    for name in ("sites", "internal"):
        authority = make_authority(name, 2, now)
        authority.write(root / f"{name}-ca.crt", root / f"{name}-ca.key")
        issue(authority, ["localhost", LOOPBACK], 1, now).write(root / f"{name}.crt", root / f"{name}.key")
    port, behind = free_ports(2)
    found = Door((LOOPBACK, port), root / "sites-ca.crt", root / "nginx.log")
    link = http.server.ThreadingHTTPServer((LOOPBACK, behind), answering(found.passed))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / "internal.crt", root / "internal.key")
    link.socket = context.wrap_socket(link.socket, server_side=True)
    threading.Thread(target=link.serve_forever, daemon=True).start()
    proxy = Proxy(
        root / "nginx",
        (f"{LOOPBACK}:{port}",),
        behind,
        certificate=root / "sites.crt",
        key=root / "sites.key",
        internal_authority=root / "internal-ca.crt",
    )
    proxy.prepare()
    with ProcessSet.running() as processes:
        processes.start("nginx", proxy.command(), log=root / "nginx.log", environment={"PATH": "/usr/sbin:/usr/bin"})
        for _ in range(100):
            try:
                socket.create_connection(found.address, 0.1).close()
                break
            except OSError:
                assert processes.first_ended() is None, (root / "nginx.log").read_text()
                threading.Event().wait(0.1)
        yield found
    link.shutdown()


def answering(passed: list[str]) -> type[http.server.BaseHTTPRequestHandler]:
    """A server that says yes to everything and notes what it was asked."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            passed.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - likewise

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Answering


@pytest.mark.parametrize("name", FLEET_REQUESTS)
def test_what_an_enrolled_node_asks_passes_unchanged(door: Door, name: str) -> None:
    assert door.status("POST", f"/v1/fleet/{name}", b"x" * 1000) == 200
    assert door.passed[-1] == f"/v1/fleet/{name}"


def test_a_piece_of_a_model_passes(door: Door) -> None:
    assert door.status("POST", "/v1/fleet/push-object", bytes(5 * 2**20 + 4096)) == 200


def test_health_can_be_asked(door: Door) -> None:
    assert door.status("GET", "/health") == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/pull-task-input",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/push-object/",
        "/v1/fleet/push-object/../../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/push-object%2f..%2f..%2fcontrol%2fstart-run",
        "//v1/control/start-run",
        "/V1/FLEET/PUSH-OBJECT",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_nothing_else_is_there(door: Door, method: str, path: str) -> None:
    before = len(door.passed)
    assert door.status(method, path) == 404
    assert len(door.passed) == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_method_is_forbidden(door: Door, method: str) -> None:
    before = len(door.passed)
    assert door.status(method, "/v1/fleet/push-object") == 403
    assert len(door.passed) == before


def test_a_body_beyond_any_piece_is_refused(door: Door) -> None:
    before = len(door.passed)
    try:
        status = door.status("POST", "/v1/fleet/push-object", bytes(LARGEST_BODY_MB * 2**20 + 1))
    except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
        status = 413  # it hung up while the body was still being sent
    assert status == 413
    assert len(door.passed) == before


def connected_from(door: Door, address: str) -> http.client.HTTPSConnection:
    """Limits are per address: another one's are not used up."""
    context = ssl.create_default_context(cafile=str(door.authority))
    return http.client.HTTPSConnection(*door.address, timeout=10, context=context, source_address=(address, 0))


def test_whoever_floods_it_is_told_to_come_again_later(door: Door) -> None:
    connection = connected_from(door, "127.0.0.2")

    def status() -> int:
        connection.request("POST", "/v1/fleet/get-run", b"")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    passed = len(list(takewhile(lambda status: status == 200, (status() for _ in range(5000)))))
    assert 200 < passed < 5000
    assert status() == 503  # which a SuperNode takes for "again", as no other code
    assert door.status("POST", "/v1/fleet/get-run", b"") == 200


def test_nobody_holds_more_than_32_requests_open(door: Door) -> None:
    connections = [connected_from(door, "127.0.0.3") for _ in range(33)]
    for connection in connections:
        connection.putrequest("POST", "/v1/fleet/get-run")
        connection.putheader("Content-Length", "10")
        connection.endheaders()
    assert connections[-1].getresponse().status == 503
    for connection in connections[:-1]:
        connection.send(b"0123456789")
        assert connection.getresponse().status == 200
        connection.close()


def test_six_hundred_connections_that_say_next_to_nothing_keep_nobody_out(door: Door) -> None:
    """A handshake begun and not gone on with counts for no address."""
    silent = [socket.create_connection(door.address, 5, source_address=("127.0.0.4", 0)) for _ in range(600)]
    try:
        for one in silent:
            one.sendall(b"\x16\x03\x01")
        assert [door.status("POST", "/v1/fleet/get-run", b"") for _ in range(5)] == [200] * 5
    finally:
        for one in silent:
            one.close()


def test_plain_text_is_not_spoken(door: Door) -> None:
    connection = http.client.HTTPConnection(*door.address, timeout=5)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 400
    connection.close()


def test_a_client_that_trusts_somebody_else_does_not_speak_to_it(door: Door) -> None:
    other = Door(door.address, door.authority.with_name("internal-ca.crt"), door.log)
    with pytest.raises(ssl.SSLCertVerificationError):
        other.status("GET", "/health")


def test_what_came_is_logged_without_body_or_query_where_the_log_is_rotated(door: Door) -> None:
    door.status("POST", "/v1/fleet/get-run?secret=1", b"secret")
    for _ in range(50):
        if "/v1/fleet/get-run 200" in (said := door.log.read_text()):
            break
        threading.Event().wait(0.1)
    assert "/v1/fleet/get-run 200" in said
    assert "secret" not in said
    assert not (door.log.parent / "nginx" / "logs").exists()
