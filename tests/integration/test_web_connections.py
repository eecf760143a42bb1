"""Who asks the daemon's window and does not read what it says, on real connections."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, cast

import pytest

from runspan.config import WebConfig
from runspan.daemon.web import serve

ASKED = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
DEADLINE_SECONDS = 20.0


class Figures:
    """More of them than all buffers between two sockets hold, or few."""

    def __init__(self, size_bytes: int = 16_000_000) -> None:
        self.text = b"x" * size_bytes
        self.told = 0

    def expose(self, accept: str) -> tuple[bytes, str]:
        self.told += 1
        return self.text, "text/plain"


@asynccontextmanager
async def window(figures: Figures) -> AsyncGenerator[int]:
    """The port of a window that shows these figures."""
    async with serve(WebConfig(listen="127.0.0.1:0"), cast("Any", None), cast("Any", figures)) as url:
        yield int(url.rpartition(":")[2])


async def ask(port: int, request: bytes = ASKED) -> socket.socket:
    """A connection that has asked, and has room for little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, request)
    return connection


async def read(connection: socket.socket, most_bytes: int = 65536) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, most_bytes), DEADLINE_SECONDS)


async def read_all(connection: socket.socket) -> bytes:
    """To the end of the connection, however it ends."""
    got = b""
    with suppress(ConnectionError):
        while part := await read(connection):
            got += part
    connection.close()
    return got


async def is_well(port: int) -> bool:
    with suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), DEADLINE_SECONDS)
        writer.close()
        return answer.endswith(b"ok\n")
    return False


async def test_an_answer_that_nobody_takes_gives_its_place_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runspan.daemon.connection.MOST_CONNECTIONS", 3)
    monkeypatch.setattr("runspan.daemon.connection.IDLE_SECONDS", 0.3)
    async with window(Figures()) as port:
        with ExitStack() as stack:
            silent = [stack.enter_context(await ask(port, ASKED * 2)) for _ in range(3)]
            # Each has got the beginning of its answer, so all places are taken by answers.
            assert [await read(one, 9) for one in silent] == [b"HTTP/1.1 "] * 3
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not await is_well(port):
                    pass


async def test_what_is_asked_behind_a_first_request_is_not_answered():
    figures = Figures(size_bytes=10)
    async with window(figures) as port:
        answer = await read_all(await ask(port, ASKED * 400))
        assert await is_well(port)
    assert answer.count(b"HTTP/1.1 200") <= 1
    assert figures.told == 1


async def test_an_answer_says_that_it_is_the_only_one():
    async with window(Figures(size_bytes=10)) as port:
        answer = await read_all(await ask(port))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert body == b"x" * 10


async def test_who_reads_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runspan.daemon.connection.IDLE_SECONDS", 0.5)
    figures = Figures()
    part_bytes = len(figures.text) // 20
    began = time.monotonic()
    async with window(figures) as port:
        connection = await ask(port)
        got, rest_until = 0, part_bytes
        while part := await read(connection):
            got += len(part)
            if got >= rest_until:
                rest_until += part_bytes
                await asyncio.sleep(0.1)
        connection.close()
    assert got > len(figures.text)
    assert time.monotonic() - began > 4 * 0.5


async def test_who_sips_is_cut_off_in_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runspan.daemon.connection.MOST_CONNECTIONS", 1)
    monkeypatch.setattr("runspan.daemon.connection.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("runspan.daemon.connection.LONGEST_SECONDS", 1.0)
    async with window(Figures()) as port:
        connection = await ask(port)
        assert await read(connection, 9) == b"HTTP/1.1 "
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await is_well(port):
                await read(connection, 10_000)
        connection.close()


async def test_who_does_not_read_holds_up_no_stop():
    async with window(Figures()) as port:
        connection = await ask(port)
        assert await read(connection, 9) == b"HTTP/1.1 "
        began = time.monotonic()
    # Its patience with a peer is ten seconds, else.
    assert time.monotonic() - began < 8
    connection.close()
