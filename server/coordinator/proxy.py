"""nginx in front of the SuperLink: the one door that sites reach, and what may pass through it.

Flower's Control API has no authentication: whoever reaches it may start runs and register keys. So the SuperLink
listens on the loopback alone, and this proxy passes on exactly the ten requests that an authenticated SuperNode makes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.errors import ConfigError
from ...common.storage import storage_errors

FLEET_REQUESTS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "pull-object",
    "push-object",
    "confirm-message-received",
)
"""What an enrolled SuperNode asks (flwr 1.41); registering is not among it: that is done here, by a person."""

LARGEST_BODY_MB = 8
"""Parameters travel in pieces of 5 MiB, one request each: this is enough for a model of any size."""


CONNECTIONS = 8192
"""Held at once. Those that have not said a word yet are counted for no address (``limit_conn`` counts requests), and
cost nothing but their place, for ten seconds: whoever can open so many from one address shuts the door to others."""


@dataclass(frozen=True)
class Proxy:
    """Where the proxy lies and listens.

    Attributes:
        folder: Its configuration, log and temporary files.
        listen: Addresses ``host:port`` that sites reach.
        superlink_port: Of the SuperLink, on loopback.
        certificate: Shown to sites, PEM.
        key: Its key.
        internal_authority: Certificate of the authority that the SuperLink's own is signed by.
    """

    folder: Path
    listen: tuple[str, ...]
    superlink_port: int
    certificate: Path
    key: Path
    internal_authority: Path

    def prepare(self) -> None:
        """Write the configuration and make the folders that it names.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        with storage_errors():
            for name in ("run", "tmp"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "nginx.conf", self.configuration().encode())

    def command(self) -> Sequence[str]:
        """The program and its arguments; it stays in the foreground.

        Raises:
            ConfigError: nginx is not installed.
        """
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise ConfigError(
                "nginx is not installed",
                expected="the distribution's nginx, 1.22 or newer: sites reach the SuperLink through it alone",
                remedy="Install it (Debian, Ubuntu: apt install nginx), then start the coordinator again.",
            )
        return program, "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"

    def configuration(self) -> str:
        """The text of ``nginx.conf``; every path in it absolute or below its folder."""
        listen = "\n".join(f"        listen {address} ssl;" for address in self.listen)
        return f"""\
# Written by 'fedphantom server start'; changes are overwritten.
worker_processes 1;
worker_rlimit_nofile {2 * CONNECTIONS + 256};
pid run/nginx.pid;
error_log stderr warn;  # what nginx says is written, and rotated, by its keeper
events {{ worker_connections {2 * CONNECTIONS}; }}  # one in, one out

http {{
    server_tokens off;
    # No header and no body is logged: what travels is nobody's business but the two ends'.
    log_format fleet '$time_iso8601 $remote_addr $request_method $uri $status in=$request_length out=$bytes_sent';
    access_log /dev/stdout fleet;

    client_max_body_size     {LARGEST_BODY_MB}m;
    client_body_buffer_size  {LARGEST_BODY_MB}m;        # all of it stays in memory: no parameters in temporary files
    proxy_buffering          on;
    proxy_buffers            96 64k;    # 6 MiB: a piece in the other direction
    proxy_buffer_size        64k;
    proxy_busy_buffers_size  128k;
    proxy_max_temp_file_size 0;
    client_body_temp_path    tmp/body;
    proxy_temp_path          tmp/proxy;
    fastcgi_temp_path        tmp/fastcgi;
    uwsgi_temp_path          tmp/uwsgi;
    scgi_temp_path           tmp/scgi;

    client_header_timeout 10s;
    client_body_timeout   30s;
    send_timeout          30s;
    keepalive_timeout     75s;
    keepalive_requests    100000;

    # Over the limit the answer must be 503: SuperNodes try again after 502, 503 and 504. They take 429 and 413 for the
    # end of a message, 403 for the end of a run, 401 for their own.
    limit_req_zone  $binary_remote_addr zone=fleet:1m rate=50r/s;
    limit_conn_zone $binary_remote_addr zone=connections:1m;
    limit_req_status 503;
    limit_conn_status 503;

    # The SuperLink drops idle connections after 5 s; a request on one that it just dropped would be lost.
    upstream superlink {{ server 127.0.0.1:{self.superlink_port}; keepalive 8; keepalive_timeout 3s; }}

    server {{
{listen}
        ssl_certificate     {_quoted(self.certificate)};
        ssl_certificate_key {_quoted(self.key)};
        ssl_protocols       TLSv1.2 TLSv1.3;
        ssl_session_cache   shared:tls:2m;

        limit_conn connections 32;

        proxy_http_version            1.1;
        proxy_set_header              Connection "";
        proxy_set_header              Host $host;
        proxy_set_header              X-Forwarded-For $remote_addr;
        proxy_set_header              X-Forwarded-Proto https;
        proxy_ssl_verify              on;
        proxy_ssl_trusted_certificate {_quoted(self.internal_authority)};
        proxy_ssl_name                localhost;
        proxy_ssl_server_name         on;
        proxy_connect_timeout         5s;
        proxy_read_timeout            60s;
        proxy_send_timeout            60s;
        proxy_next_upstream           off;

        location ~ ^/v1/fleet/({"|".join(FLEET_REQUESTS)})$ {{
            limit_except POST {{ deny all; }}
            limit_req zone=fleet burst=200 nodelay;
            # The name that matched, never the address as it came.
            proxy_pass https://superlink/v1/fleet/$1;
            # A SuperNode tries again after 503, and not after what nginx says where it has no room.
            error_page 500 =503 @busy;
        }}
        location = /health {{
            limit_except GET {{ deny all; }}
            proxy_pass https://superlink/health;
            access_log off;
        }}
        location @busy {{ return 503; }}
        location / {{ return 404; }}
    }}
}}
"""


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
