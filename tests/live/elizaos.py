"""A real elizaOS 1.7.2 server with a stub model, and runs driven through it."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.live.process import Unavailable, cache_dir, free_ports, server

PACKAGE = Path(__file__).parent / "elizaos_server"
AGENT_ID = "5c9f0a1e-2b7d-4c3e-8f6a-0d1b2c3e4f50"
AGENT_NAME = "Stub Agent"
API_KEY = "live-test-key"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over on the server, and what its message's sender was told."""

    run_id: str
    room_id: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Elizaos:
    """Where a running server listens, and how to make it work."""

    base_url: str
    control_url: str
    api_key: str = API_KEY
    agent_id: str = AGENT_ID

    def run(self, scenario: str, *, as_agent: bool = False) -> Run:
        """Send one message in a room of its own and wait until its run is over.

        Scenarios: simple (one model call), lookup (actions, one with a model call of its own),
        broken (an action that reports a failure), ignore, fail (the model throws).
        A message sent as the agent itself ends in status `self`.
        """
        body = json.dumps({"text": f"Please. [{scenario}]", "asAgent": as_agent}).encode()
        answer = _json(urllib.request.Request(self.control_url, data=body))
        return Run(answer["runId"], answer["roomId"], answer["error"])

    def get(self, path: str) -> Any:
        """The JSON document at a path of the server's own API."""
        return _json(urllib.request.Request(self.base_url + path, headers={"X-API-KEY": self.api_key}))


def _json(request: urllib.request.Request) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return json.load(response)


def find() -> Path | None:
    """The folder with the installed server, where there is one."""
    folder = _folder()
    return folder if folder.exists() and shutil.which("node") else None


def find_or_install() -> Path:
    """The folder with the installed server, installed with npm (446 MB) when it is not there.

    Raises Unavailable.
    """
    folder = _folder()
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Unavailable("elizaOS needs node and npm on PATH: install Node.js 20 or newer")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            _install(npm, folder)
    return folder


def _folder() -> Path:
    lock = (PACKAGE / "package-lock.json").read_bytes()
    return cache_dir() / f"elizaos-{hashlib.sha256(lock).hexdigest()[:12]}"


def _install(npm: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        work = Path(made) / "package"
        shutil.copytree(PACKAGE, work)
        # Install scripts would fetch prebuilt binaries from elsewhere; the server runs without them.
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        result = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if result.returncode:
            raise Unavailable(f"`npm ci` for elizaOS failed: {result.stderr.strip()[-1000:]}")
        work.replace(folder)


@contextlib.contextmanager
def running(installed: Path, folder: Path) -> Iterator[Elizaos]:
    """A server that answers until the block ends; its database and log go to `folder`."""
    # Node looks for packages from the script's folder upwards, so the script is brought to them.
    script = installed / f"server-{os.getpid()}.mjs"
    shutil.copyfile(PACKAGE / "server.mjs", script)
    port, control_port = free_ports(2)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LOG_LEVEL": "warn",
        "AGENT_ID": AGENT_ID,
        "CONTROL_PORT": str(control_port),
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(port),
        "ELIZA_SERVER_AUTH_TOKEN": API_KEY,
        "ELIZA_UI_ENABLE": "false",
        "PGLITE_DATA_DIR": str(folder / "pglite"),
        # An empty value would fall back to the vendor's own address.
        "SENTRY_DSN": "http://nobody@127.0.0.1:9/1",
    }
    control_url = f"http://127.0.0.1:{control_port}"
    try:
        with server(["node", str(script)], health_url=control_url, log=folder / "elizaos.log", env=env, cwd=folder):
            yield Elizaos(f"http://127.0.0.1:{port}", control_url)
    finally:
        script.unlink()
