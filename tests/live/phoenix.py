"""A real Phoenix with an empty database, for the live tests."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.live.process import Unavailable, cache_dir, free_ports, server

VERSION = "20.26.1"
_SECONDS_TO_START = 120
"""Twelve on an idle machine."""


@dataclass(frozen=True, slots=True)
class Phoenix:
    """Where a running Phoenix listens on loopback: one port for OTLP over HTTP and for its APIs."""

    port: int
    otlp_grpc_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def otlp_grpc(self) -> str:
        return f"http://127.0.0.1:{self.otlp_grpc_port}"

    def spans(self, trace_ids: Sequence[bytes] = ()) -> list[Any]:
        """Spans by its REST API, of these traces or all, each with its attributes flattened."""
        found: list[Any] = []
        query: list[tuple[str, str]] = [("limit", "1000"), *(("trace_id", each.hex()) for each in trace_ids)]
        cursor: str | None = ""
        while cursor is not None:
            more = [("cursor", cursor)] if cursor else []
            try:
                page = _json(f"{self.url}/v1/projects/default/spans?{urllib.parse.urlencode([*query, *more])}")
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                return []  # there is no project before its first trace
            found += page["data"]
            cursor = page["next_cursor"]
        return found

    def graphql(self, query: str) -> Any:
        """The answer's `data`. Raises AssertionError where the answer tells errors."""
        answer = _json(f"{self.url}/graphql", {"query": query})
        assert "errors" not in answer, answer
        return answer["data"]


def _json(url: str, body: Any = None) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    with opener.open(request, timeout=30) as response:
        return json.load(response)


def find() -> Path | None:
    """The folder with the installed server, where there is one."""
    return _folder() if _folder().exists() else None


def find_or_install() -> Path:
    """The folder with the installed server, installed with pip (824 MB) when it is not there.

    Raises Unavailable.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            _install(folder)
    return folder


def _folder() -> Path:
    return cache_dir() / f"phoenix-{VERSION}"


def _install(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        venv = Path(made) / "venv"
        for command in (
            [sys.executable, "-m", "venv", str(venv)],
            [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", f"arize-phoenix=={VERSION}"],
        ):
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise Unavailable(f"`{' '.join(command)}` failed: {result.stderr.strip()[-1000:]}")
        # Moved as a whole, what pip wrote into bin no longer runs; the interpreter itself does.
        venv.replace(folder)


@contextlib.contextmanager
def running(installed: Path, folder: Path) -> Iterator[Phoenix]:
    """A server that answers until the block ends; its database and log go to `folder`."""
    phoenix = Phoenix(*free_ports(2))
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(phoenix.port),
        "PHOENIX_GRPC_PORT": str(phoenix.otlp_grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PHOENIX_ENABLE_MCP_SERVER": "false",
    }
    with server(
        [str(installed / "bin/python"), "-m", "phoenix.server.main", "serve"],
        health_url=f"{phoenix.url}/healthz",
        log=folder / "phoenix.log",
        env=env,
        cwd=folder,
        deadline_seconds=_SECONDS_TO_START,
    ):
        yield phoenix
    shutil.rmtree(folder / "phoenix")
