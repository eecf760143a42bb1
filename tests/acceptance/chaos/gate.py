"""A relay between the program and whatever it speaks to: it knows every boundary of a request before it is crossed.

    with Gate("store", store.http_port, kind_of=lambda target: "export", crossing=killer.crossing) as gate:
        gate.url

`crossing(place, point)` is called in the relay's thread and holds the traffic meanwhile, so who kills the program there
kills it exactly then: a request is complete and was not passed on, an answer is given and was not passed on, or the
answer has been passed on whole.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Self

RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time at all: closing sends RST."""
LARGEST_READ_BYTES = 1 << 16


class Point(StrEnum):
    """Where a request is."""

    ASKED = "asked"
    """Here, and not yet at its server."""
    ANSWERED = "answered"
    """Its server has done what it does, and the program does not know."""
    TOLD = "told"
    """The program has the answer and may act on it."""


Crossing = Callable[[str, Point], None]


class Gate:
    """Relays HTTP/1.1 on a port of its own to `port` of this machine. `kind_of` names a request by its target."""

    def __init__(self, port: int, *, kind_of: Callable[[str], str], crossing: Crossing) -> None:
        self._server_port = port
        self._kind_of = kind_of
        self.crossing = crossing
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A blocked accept() does not notice a close, but a shutdown.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def hang_up(self) -> None:
        """Reset every connection there is; new ones are welcome."""
        while self._open:
            with contextlib.suppress(OSError):
                client = self._open.pop()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, _Ended):
            self._open.add(client)
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                for connection in (client, server):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                asking, answering = _Reader(client), _Reader(server)
                while True:
                    head, body = asking.message(is_answer=False)
                    kind = self._kind_of(head.split(b" ", 2)[1].decode())
                    self.crossing(kind, Point.ASKED)
                    server.sendall(head + body)
                    try:
                        head, body = answering.message(is_answer=True)
                    except _Ended as ended:
                        # Half an answer is passed on as half an answer.
                        client.sendall(ended.so_far)
                        return
                    self.crossing(kind, Point.ANSWERED)
                    client.sendall(head + body)
                    self.crossing(kind, Point.TOLD)


class _Ended(Exception):
    """The other side has closed; `so_far` is what came of the message."""

    def __init__(self, so_far: bytes) -> None:
        self.so_far = so_far


class _Reader:
    """Whole HTTP/1.1 messages off a socket: those with a content length, answers without one up to the close."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def message(self, *, is_answer: bool) -> tuple[bytes, bytes]:
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        head += b"\r\n\r\n"
        names = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")[1:]}
        assert b"transfer-encoding" not in names, "neither the simulator nor the store sends chunks"
        length = names.get(b"content-length")
        if length is None and is_answer and head.split(b" ", 2)[1] not in (b"204", b"304"):
            with contextlib.suppress(_Ended):
                while True:
                    self._read()
            raise _Ended(head + self._buffer)
        size = int(length or 0)
        try:
            while len(self._buffer) < size:
                self._read()
        except _Ended:
            raise _Ended(head + self._buffer) from None
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return head, body

    def _read(self) -> None:
        data = self._connection.recv(LARGEST_READ_BYTES)
        if not data:
            raise _Ended(self._buffer)
        self._buffer += data
