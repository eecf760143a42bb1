"""The daemon's window against whoever knocks at it: it shows, takes nothing, and does not break."""

import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runspan.config import WebConfig
from runspan.daemon.connection import MOST_CONNECTIONS
from runspan.demo.samples.builders import casedev_run
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldAgent
from tests.acceptance.program import Program, Started, wait_until
from tests.otlp_store import OtlpStore

PATHS = ("/", "/healthz", "/readyz", "/metrics")
WITH_DATA = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
BODY = b'{"id": "r1"}'


@dataclass
class Window:
    port: int
    daemon: Started

    def send(self, data: bytes, *, then_leave: bool = False) -> bytes:
        """What comes back on a connection of its own, until it is closed."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection, contextlib.suppress(OSError):
            connection.sendall(data)
            if then_leave:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        return answer

    def ask(self, method: str, target: str, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        head = [f"{method} {target} HTTP/1.1", *(lines or ("host: localhost",)), "connection: close"]
        answer = self.send("\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode("latin-1") + body)
        first, _, rest = answer.partition(b"\r\n")
        headers, _, content = rest.partition(b"\r\n\r\n")
        pairs = (line.split(": ", 1) for line in headers.decode().split("\r\n"))
        return int(first.split(b" ")[1]), {name.lower(): value for name, value in pairs}, content


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    world = World()
    agent = WorldAgent(agent_id="<script>alert(1)</script>", name="</td><img src=x onerror=alert(1)>")
    world.add(casedev_run(1, created_at_ns=time.time_ns() - 7200 * SECOND_NS, agent=agent))
    folder = tmp_path_factory.mktemp("web")
    with (
        Simulator(world, rate_limited=False).in_thread() as simulator,
        OtlpStore() as store,
        Program.between(simulator, store, folder).start("run") as daemon,
    ):
        url = daemon.wait_logged("web_started")["url"]
        daemon.wait_logged("exported")
        yield Window(int(url.rpartition(":")[2]), daemon)
        assert daemon.signalled(signal.SIGTERM) == 0
        assert {line["action"] for line in daemon.logs} & {"library", "page_failed"} == set()
        assert daemon.stdout == ""


def test_it_is_there_for_this_machine_only(window: Window) -> None:
    assert WebConfig().host == "127.0.0.1"
    listening = re.findall(
        rf"^ *\d+: (\w+):{window.port:04X} 0+:0000 0A ", Path("/proc/net/tcp").read_text(), re.MULTILINE
    )
    assert listening == ["0100007F"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", WITH_DATA)
def test_it_takes_no_data(window: Window, method: str, path: str) -> None:
    status, headers, _ = window.ask(method, path, body=BODY)
    assert (status, headers["allow"].replace("HEAD", "").strip(", ")) == (405, "GET")


@pytest.mark.parametrize("path", PATHS)
def test_each_answer_keeps_browsers_from_mischief(window: Window, path: str) -> None:
    status, headers, content = window.ask("GET", path)
    assert status == 200
    assert content
    assert headers["content-security-policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers
    assert "set-cookie" not in headers
    assert not [name for name in headers if name.startswith("access-control-")]


def test_what_a_platform_calls_its_agents_is_text(window: Window) -> None:
    for path in PATHS:
        _, headers, content = window.ask("GET", path)
        is_page = headers["content-type"].startswith("text/html")
        assert is_page == (path == "/")
        assert not (is_page and (b"<img" in content or b"<script" in content))


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("//", 404),
        ("/../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/healthz/", 404),
        ("/healthz/../metrics", 404),
        ("/%00", 404),
        ("/%ff%fe", 404),
        ("/metrics%0d%0ax-evil: 1", 400),
        ("/metrics?name[]=../../etc/passwd", 200),
        ("/?next=http://evil.example/", 200),
        ("/feed", 404),
        ("/" + "a" * 20_000, 404),
        ("*", 404),
        ("http://evil.example/", 404),
    ],
)
def test_an_odd_path_is_not_found(window: Window, target: str, status: int) -> None:
    told, headers, content = window.ask("GET", target)
    assert told == status
    assert "location" not in headers
    assert b"evil" not in content
    assert b"root:" not in content


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:99999", "", "a b", "\x7f", "[::1", "x" * 8000, "<script>"]
)
@pytest.mark.parametrize("path", PATHS)
def test_an_odd_host_is_not_repeated(window: Window, path: str, host: str) -> None:
    status, _, content = window.ask("GET", path, f"host: {host}")
    assert status in (400, 403)
    assert not host or host.encode() not in content


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:4318", "[::1]:4318", "LOCALHOST:1", "a.localhost"])
@pytest.mark.parametrize("path", PATHS)
def test_names_of_this_machine_are_answered(window: Window, path: str, host: str) -> None:
    assert window.ask("GET", path, f"host: {host}")[0] == 200


def test_a_strangers_name_that_means_this_machine_reads_nothing(window: Window) -> None:
    """DNS rebinding: the browser takes the answer for one of the stranger's."""
    status, _, content = window.ask("GET", "/metrics", f"host: rebound.example:{window.port}")
    assert (status, b"runspan_" in content) == (403, False)
    assert window.ask("GET", "/healthz", f"host: 127.0.0.1.example:{window.port}")[0] == 403


GARBAGE = {
    "nothing": b"",
    "half a line": b"GET /hea",
    "no version": b"GET /\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "version 9": b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
    "binary": bytes(range(256)) * 20,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "endless header": b"GET / HTTP/1.1\r\nx: " + b"y" * 300_000,
    "many headers": b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    "broken chunks": b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nx\r\n",
    "smuggling": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET",
    "negative length": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\nx",
    "websocket": b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "many at once": b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n" * 200,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_does_it_no_harm(window: Window, name: str) -> None:
    answer = window.send(GARBAGE[name], then_leave=True)
    assert b" 500 " not in answer
    assert b"101 " not in answer[:20]
    assert window.ask("GET", "/healthz")[2] == b"ok\n"
    assert json.loads(window.ask("GET", "/readyz")[2]) == {"ready": True, "troubles": []}


def test_who_asks_over_and_over_and_never_reads_takes_no_place(window: Window) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            connection = socket.socket()
            stack.callback(connection.close)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", window.port))
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * 400)
        wait_until(lambda: b"ok\n" in window.send(b"GET /healthz HTTP/1.0\r\n\r\n"), "a place", timeout_seconds=25)
