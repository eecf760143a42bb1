"""Strings that stand nowhere else, planted where a secret or a stranger's text is, and looked for where none may be.

canaries = Canaries()
simulator.platforms["casedev"].key = canaries.plant("key", "casedev")
...
assert canaries.found("key", in_=daemon.stderr) == set()
"""

import base64
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

Written = Mapping[str, bytes]
"""What a program wrote, by the place where it did."""


class Canaries:
    """Planted strings by their kind: what may be said of each is a question of its kind."""

    def __init__(self) -> None:
        self._planted: dict[str, set[str]] = {}

    def plant(self, kind: str, place: str) -> str:
        """A new canary, which tells where it was planted; the same one for the same place."""
        canary = f"cnry_{kind}_{place}_q7".replace("-", "_")
        self._planted.setdefault(kind, set()).add(canary)
        return canary

    def found(self, *kinds: str, in_: bytes | str) -> set[str]:
        """Those of these kinds that stand in it, as they are or in base64."""
        data = in_.encode() if isinstance(in_, str) else in_
        canaries = {canary for kind in kinds for canary in self._planted.get(kind, ())}
        return {c for c in canaries if c.encode() in data or any(form in data for form in _base64_forms(c))}

    def leaks(self, *kinds: str, in_: Written) -> set[tuple[str, str]]:
        """The (place, canary) of everything of these kinds that was written."""
        return {(place, canary) for place, data in in_.items() for canary in self.found(*kinds, in_=data)}


def _base64_forms(text: str) -> Iterator[bytes]:
    """What base64 makes of a text inside a longer one, at each place it may begin, less its uncertain edges."""
    for shift in range(3):
        yield base64.b64encode(b"\0" * shift + text.encode())[4:-4]


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and its name."""
    found: dict[str, bytes] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path)] = str(path).encode() + path.read_bytes()
    return found


def process(pid: int) -> dict[str, bytes]:
    """What every user of the machine can see of a process."""
    return {f"/proc/{pid}/{name}": Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "comm", "status")}


def with_canaries(value: Any, keys: Mapping[str, str], inside: str | None = None) -> Any:
    """A body in which each text below one of `keys` is that key's canary; what looks like JSON stays so."""
    if isinstance(value, dict):
        return {key: with_canaries(each, keys, keys.get(key, inside)) for key, each in value.items()}
    if isinstance(value, list):
        return [with_canaries(each, keys, inside) for each in value]
    if inside is None or not isinstance(value, str):
        return value
    return f'{{"said": "{inside}"}}' if value.startswith("{") else inside


Answer = Callable[[str, str], bytes]
"""From the path and the head of a request to the bytes of the answer."""


class RawServer:
    """Answers each request with the very bytes it is told, then closes the connection: for answers no library gives."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.paths: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # close() alone does not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                request = b""
                while b"\r\n\r\n" not in request and (part := connection.recv(65536)):
                    request += part
                head = request.partition(b"\r\n\r\n")[0].decode("latin-1")
                if not head:
                    return
                path = head.split(" ")[1]
                self.paths.append(path)
                connection.sendall(self._answer(path, head))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                return
