"""What a site's doctor sees of its coordinator's door: real connections, to doors that are wrong in one way each."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deployed_site import Deployed, deploy, door, issue_door

from fedphantom.client.node.doctor.door import DoorSeen, look_at_door
from fedphantom.client.node.doctor.reach import (
    check_answer,
    check_certificate,
    check_clock,
    check_proxy,
    check_reached,
)
from fedphantom.client.node.folder import NodeFolder
from fedphantom.common.enrolment.address import Address
from fedphantom.common.flower_programs import LOOPBACK, flower_environment, free_ports
from fedphantom.server.coordinator.authority import issue, make_authority

pytestmark = pytest.mark.network  # real sockets on loopback

DIRECT: dict[str, str] = {}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deploy(tmp_path_factory.mktemp("deployed"))


def looked(deployed: Deployed, environment: dict[str, str] = DIRECT, port: int | None = None) -> DoorSeen:
    return look_at_door(Address(LOOPBACK, port or deployed.port), NodeFolder(deployed.site.root).authority, environment)


def certificate(deployed: Deployed, seen: DoorSeen) -> tuple[str, str]:
    outcome = check_certificate(seen, NodeFolder(deployed.site.root).authority, datetime.now(UTC))
    return outcome.light, outcome.found


# Reached.


def test_a_door_that_answers_is_reached_by_its_own_certificate_at_one_time(deployed: Deployed) -> None:
    paths = deployed.coordinator.certificate("proxy"), deployed.coordinator.certificate_key("proxy")
    with door(deployed.port, *paths) as asked:
        seen = looked(deployed)
    assert asked == ["/health"]
    assert check_reached(Address(LOOPBACK, deployed.port), seen).light == "green"
    assert certificate(deployed, seen)[0] == "green"
    assert check_answer(seen).light == "green"
    assert check_clock(seen).light == "green"


def test_a_door_that_nobody_opened_is_red_and_what_hangs_on_it_unknown(deployed: Deployed) -> None:
    seen = looked(deployed)
    outcome = check_reached(Address(LOOPBACK, deployed.port), seen)
    assert (outcome.light, "nothing listens there" in outcome.found) == ("red", True)
    for unknown in (check_answer(seen), check_clock(seen)):
        assert unknown.light == "yellow"
        assert unknown.found.startswith("not known")
    assert certificate(deployed, seen)[0] == "yellow"


def test_a_name_that_no_server_knows_is_red(deployed: Deployed) -> None:
    address = Address("nowhere.invalid", 443)
    outcome = check_reached(address, look_at_door(address, NodeFolder(deployed.site.root).authority, DIRECT))
    assert outcome.light == "red"
    assert "its name is not known here" in outcome.found


def test_a_door_without_a_superlink_behind_it_is_red(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed), status=502):
        outcome = check_answer(looked(deployed))
    assert (outcome.light, "502" in outcome.found) == ("red", True)


def test_a_door_that_hangs_up_before_it_answers_is_red(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed), status=0):
        seen = looked(deployed)
    assert seen.stage == "silent"
    assert check_answer(seen).light == "red"
    assert check_clock(seen).light == "yellow"


# Certificates.


def test_a_certificate_that_expired_is_red(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed, begins=-3, lasts=2)):
        light, found = certificate(deployed, looked(deployed))
    assert light == "red"
    assert "has expired by this machine's clock" in found


def test_a_certificate_that_does_not_hold_yet_is_red(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed, begins=2)):
        light, found = certificate(deployed, looked(deployed))
    assert light == "red"
    assert "does not hold yet" in found


def test_a_certificate_that_ends_within_thirty_days_is_yellow(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed, lasts=29)):
        assert certificate(deployed, looked(deployed))[0] == "yellow"
    with door(deployed.port, *issue_door(deployed, lasts=31)):
        assert certificate(deployed, looked(deployed))[0] == "green"


def test_a_certificate_for_another_name_is_red(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed, hosts=("localhost",))):
        light, found = certificate(deployed, looked(deployed))
    assert light == "red"
    assert "for another" in found


def test_a_certificate_by_another_authority_is_red_and_nothing_is_asked(deployed: Deployed, tmp_path: Path) -> None:
    now, paths = datetime.now(UTC), (tmp_path / "other.crt", tmp_path / "other.key")
    issue(make_authority("other", 9, now), [LOOPBACK], 9, now).write(*paths)
    with door(deployed.port, *paths) as asked:
        seen = looked(deployed)
    light, found = certificate(deployed, seen)
    assert (light, asked) == ("red", [])
    assert "signed by another authority" in found


def test_an_authority_that_ends_is_told_before_its_certificates_do(deployed: Deployed) -> None:
    with door(deployed.port, *issue_door(deployed)):
        seen = looked(deployed)
    late = datetime.now(UTC) + timedelta(days=10 * 365 - 5)
    later = DoorSeen("answered", expires=late + timedelta(days=400), status=200, skew_s=0.0)
    assert check_certificate(seen, NodeFolder(deployed.site.root).authority, datetime.now(UTC)).light == "green"
    outcome = check_certificate(later, NodeFolder(deployed.site.root).authority, late)
    assert outcome.light == "yellow"
    assert "authority itself ends" in outcome.fix


def test_what_does_not_speak_tls_is_red(deployed: Deployed) -> None:
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer((LOOPBACK, 0), Plain) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        light, found = certificate(deployed, looked(deployed, port=server.server_address[1]))
    assert light == "red"
    assert "does not speak TLS" in found


# Clocks.


@pytest.mark.parametrize(
    ("skew_s", "light", "words"),
    [
        (0, "green", "0 s"),
        (25, "green", "25 s behind"),
        (40, "yellow", "40 s behind"),
        (-40, "yellow", "40 s ahead of"),
        (290, "red", "290 s behind"),
        (-86400, "red", "86400 s ahead of"),
    ],
)
def test_a_clock_that_differs_is_told_by_the_coordinators_date(
    deployed: Deployed, skew_s: float, light: str, words: str
) -> None:
    with door(deployed.port, *issue_door(deployed), skew_s=skew_s):
        seen = looked(deployed)
    assert seen.skew_s == pytest.approx(skew_s, abs=1.5)
    # The header counts whole seconds.
    outcome = check_clock(DoorSeen("answered", skew_s=float(round(seen.skew_s / 5) * 5)))
    assert outcome.light == light
    assert words in outcome.found
    assert (outcome.fix == "") == (light == "green")


# HTTP proxies.


class Tunnel(socketserver.ThreadingTCPServer):
    """An HTTP proxy that knows CONNECT alone."""

    daemon_threads = allow_reuse_address = True

    def __init__(self) -> None:
        self.heads: list[str] = []
        super().__init__((LOOPBACK, 0), _Connect)


class _Connect(socketserver.StreamRequestHandler):
    server: Tunnel

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.readline()
        self.server.heads.append(head.decode())
        host, port = head.split()[1].decode().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=self._carry, args=(there, self.connection), daemon=True).start()
            self._carry(self.connection, there)

    @staticmethod
    def _carry(here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := here.recv(65536):
                there.sendall(content)


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    with Tunnel() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def test_the_door_is_reached_through_the_proxy_that_the_environment_names(deployed: Deployed, tunnel: Tunnel) -> None:
    proxy = f"http://me:secret%20word@{LOOPBACK}:{tunnel.server_address[1]}"
    with door(deployed.port, *issue_door(deployed)):
        seen = looked(deployed, {"HTTPS_PROXY": proxy})
    (head,) = tunnel.heads
    assert head.startswith(f"CONNECT {LOOPBACK}:{deployed.port} ")
    assert base64.b64encode(b"me:secret word").decode() in head
    outcome = check_reached(Address(LOOPBACK, deployed.port), seen)
    assert outcome.light == "green"
    assert "through the HTTP proxy" in outcome.found
    assert certificate(deployed, seen)[0] == "green"


def test_a_proxy_that_is_gone_is_told_as_such_without_its_address(deployed: Deployed) -> None:
    (port,) = free_ports(1)
    seen = looked(deployed, {"https_proxy": f"http://me:secret@{LOOPBACK}:{port}"})
    outcome = check_reached(Address("fed.example.org", 443), seen)
    assert outcome.light == "red"
    assert "the HTTP proxy refuses connections" in outcome.found
    assert "secret" not in outcome.found
    assert str(port) not in outcome.found


def test_an_address_that_no_proxy_has_is_told(deployed: Deployed) -> None:
    seen = looked(deployed, {"HTTPS_PROXY": "socks5://127.0.0.1:1"})
    assert "HTTPS_PROXY is not the address of an HTTP proxy" in check_reached(Address("a.org", 443), seen).found


def test_a_proxy_is_green_where_the_loopback_goes_past_it_yellow_and_red_where_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, proxied = Address("fed.example.org", 443), {"HTTPS_PROXY": "http://proxy:3128"}
    past = {**proxied, "NO_PROXY": "127.0.0.1,localhost"}
    assert check_proxy(address, {}, {}).light == "green"
    assert check_proxy(address, past, past).light == "green"
    assert check_proxy(address, proxied, past).light == "yellow"
    assert check_proxy(address, proxied, proxied).light == "red"
    assert "is passed by" in check_proxy(Address("127.0.0.1", 443), past, past).found
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    node = flower_environment(tmp_path)
    assert check_proxy(address, proxied, node).light == "yellow"  # never red: the node's own environment sees to it


def test_an_authority_that_is_no_certificate_is_told(deployed: Deployed, tmp_path: Path) -> None:
    (tmp_path / "authority.crt").write_text("nothing")
    seen = look_at_door(Address(LOOPBACK, deployed.port), tmp_path / "authority.crt", DIRECT)
    assert seen.stage == "untrusted"
    assert "cannot be read" in seen.why
