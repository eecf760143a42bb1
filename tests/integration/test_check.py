"""`runspan check` against the four platforms and an OTLP receiver."""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runspan import cli
from runspan.demo.faults import Reply
from runspan.demo.samples import populate
from runspan.demo.simulator import Simulator
from runspan.demo.world import World
from tests.otlp_store import OtlpStore

pytestmark = pytest.mark.usefixtures("logs_restored")
PLATFORMS = ["flowyble", "runtype", "elizaos", "casedev"]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    world = World()
    populate(world)
    with Simulator(world, rate_limited=False).in_thread() as running:
        yield running


@pytest.fixture
def store() -> Iterator[OtlpStore]:
    with OtlpStore() as running:
        yield running


@pytest.fixture
def check(simulator: Simulator, store: OtlpStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def check(*flags: str, destination: str = "", keys: dict[str, str] | None = None) -> Result:
        text = f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n[destination]\nendpoint = "{store.http_endpoint}"\n'
        text += destination
        for platform in PLATFORMS:
            key = {**simulator.keys, **(keys or {})}[platform]
            text += f'\n[[source]]\nname = "{platform}-1"\nplatform = "{platform}"\nrate = "50/s"\n'
            text += f'base_url = "{simulator.urls[platform]}"\n'
            if key:
                monkeypatch.setenv(f"{platform.upper()}_KEY", key)
                text += f'api_key = "env:{platform.upper()}_KEY"\n'
        (tmp_path / "config.toml").write_text(text)
        return CliRunner().invoke(cli.app, ["check", "-c", str(tmp_path / "config.toml"), *flags])

    return check


def findings(result: Result) -> dict[str, str]:
    """The mark of each line, by what was tried."""
    return {what: mark for mark, what in re.findall(r"^(ok|failed) +(\S+(?: \S+)?)  ", result.stdout, re.MULTILINE)}


@contextmanager
def query_api(shown: bool) -> Iterator[str]:
    """A query API that shows every trace, or none."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"result": {}}).encode()
            self.send_response(200 if shown else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_everything_is_well(check, store: OtlpStore, tmp_path: Path) -> None:
    result = check()
    assert result.exit_code == 0, result.output
    assert findings(result) == dict.fromkeys(
        ["config", "ledger", "destination", *(f"source {platform}-1" for platform in PLATFORMS)], "ok"
    )
    assert not store.traces
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_wrong_key_is_told_of_its_source_alone(platform: str, check, simulator: Simulator) -> None:
    # elizaOS asks for a key only where its operator has set one.
    fault = simulator.fault(platform, "", Reply(401))
    result = check(keys={platform: "swordfish-83"})
    simulator.faults.remove(fault)
    assert result.exit_code == 3, result.output
    assert [what for what, mark in findings(result).items() if mark == "failed"] == [f"source {platform}-1"]
    assert "401" in result.output
    assert "swordfish" not in result.output


def test_a_destination_that_does_not_answer(check, store: OtlpStore) -> None:
    store.down()
    result = check()
    assert result.exit_code == 3
    assert findings(result)["destination"] == "failed"


def test_a_test_trace_is_sent(check, store: OtlpStore) -> None:
    result = check("--send-test-trace", destination='trace_url = "http://j/trace/{trace_id}"\n')
    assert result.exit_code == 0, result.output
    (trace_id, spans), *others = store.traces.items()
    assert not others
    assert len(spans) == 2
    assert f"{trace_id} taken, not read back: query_url is not set http://j/trace/{trace_id}" in result.output


def test_a_test_trace_is_read_back(check) -> None:
    with query_api(shown=True) as url:
        result = check("--send-test-trace", destination=f'query_url = "{url}"\n')
    assert result.exit_code == 0, result.output
    assert "taken and read back" in result.output


def test_a_test_trace_that_is_not_shown_is_a_failure(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runspan.cli.check.PATIENCE_SECONDS", 0.01)
    with query_api(shown=False) as url:
        result = check("--send-test-trace", destination=f'query_url = "{url}"\n')
    assert result.exit_code == 3
    assert findings(result)["test trace"] == "failed"


@pytest.mark.parametrize(("version", "mark"), [("", "ok"), ("==0.0.1", "failed")])
def test_published_prices_are_tried_where_they_are_wanted(check, version: str, mark: str) -> None:
    result = check(destination=f'[prices]\nuse = "genai-prices{version}"\n')
    assert findings(result)["prices"] == mark
    assert result.exit_code == (0 if mark == "ok" else 2)
    assert "prices" not in findings(check())


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("traces.jsonl", None),
        ("there.jsonl", None),
        ("/dev/null", None),
        ("", "is no file"),
        ("pipe", "is no file"),
        ("none/traces.jsonl", "there is no folder"),
        ("there.jsonl/traces.jsonl", "Not a directory"),
        ("a" * 300, "File name too long"),
        ("mine.jsonl", "cannot be read and written"),
        ("mine/traces.jsonl", "cannot create it"),
    ],
)
def test_a_file_destination_is_one_that_can_be_written(
    endpoint: str, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.jsonl").touch()
    (tmp_path / "mine.jsonl").touch()
    (tmp_path / "mine").mkdir()
    os.mkfifo(tmp_path / "pipe")
    # Whoever runs the tests as root may do everything.
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).startswith(str(tmp_path / "mine")))
    path = tmp_path / endpoint
    (tmp_path / "config.toml").write_text(
        f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n[destination]\nprotocol = "file"\nendpoint = "{path}"\n'
    )
    result = CliRunner().invoke(cli.app, ["check", "-c", str(tmp_path / "config.toml")])
    assert findings(result)["destination"] == ("failed" if reason else "ok")
    assert result.exit_code == (3 if reason else 0)
    assert (reason or "") in result.output
    assert not (tmp_path / "traces.jsonl").exists()
