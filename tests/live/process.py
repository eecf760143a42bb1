"""Starting a real server beside the tests: free ports, a deadline for its health, and a clean end."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class Unavailable(Exception):
    """The server cannot be had on this machine; the message says what is missing and how to get it."""


def cache_dir() -> Path:
    """Where big downloads and builds are kept between test runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runspan"


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that were free a moment ago."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def server(
    command: Sequence[str],
    *,
    health_url: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline_seconds: float = 60,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; its output goes to `log`.

    Raises RuntimeError with the log's tail when it dies or is not healthy within the deadline.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=cwd
        )
    try:
        _wait_healthy(process, health_url, log, deadline_seconds)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_healthy(process: subprocess.Popen[bytes], url: str, log: Path, deadline_seconds: float) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + deadline_seconds
    problem = "never answered"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}")
        try:
            with opener.open(url, timeout=2):
                return
        except OSError as error:
            problem = str(error)
        time.sleep(0.05)
    raise RuntimeError(f"{url} not healthy after {deadline_seconds:g} s ({problem}):\n{_tail(log)}")


def _tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
