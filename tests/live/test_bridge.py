"""The program between real servers: `run` from elizaOS and `backfill` from the simulator, into Jaeger."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runspan.config import loader
from runspan.demo import bridge
from runspan.model import RunRef
from runspan.pipeline.assembly import open_source, projection_settings
from runspan.projection import project
from runspan.rate import MemoryBudget
from runspan.sources import platforms
from runspan.trace import Trace
from tests.live.elizaos import Elizaos, Run
from tests.live.jaeger import Jaeger
from tests.live.readback import differences, from_jaeger

RUNSPAN = Path(sys.executable).with_name("runspan")
DEADLINE_SECONDS = 60


def write_config(folder: Path, jaeger: Jaeger, source: str) -> Path:
    file = folder / "config.toml"
    file.write_text(f"""
[ledger]
url = "sqlite:///{folder}/ledger.db"
[destination]
endpoint = "{jaeger.otlp_http}"
query_url = "{jaeger.query}"
[web]
listen = "127.0.0.1:0"
[[source]]
{source}
""")
    return file


def environment() -> dict[str, str]:
    return {**os.environ, "LIVE_KEY": "live-test-key", "DEMO_KEY": "", "NO_PROXY": "*"}


def runspan(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUNSPAN, *arguments], env=environment() | env, capture_output=True, text=True, check=False, timeout=120
    )


@contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([RUNSPAN, "run", "-c", config], env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0, log


def ledger_of(config: Path) -> dict[str, dict[str, Any]]:
    listed = runspan("runs", "-c", config, "--json", "--limit", "1000")
    return {row["run_id"]: row for row in map(json.loads, listed.stdout.splitlines())}


async def projected(config: Path, refs: list[RunRef]) -> list[Trace]:
    """What the bridge should have sent: the bodies fetched anew, in this process."""
    settings = loader.load(config, platforms=platforms(), environ=environment())
    source, _ = open_source(settings, settings.source[0], MemoryBudget())
    try:
        bodies = [await source.fetch(ref) for ref in refs]
    finally:
        await source.http.close()
    return [project(source.read(body), projection_settings(settings, settings.source[0])) for body in bodies]


def test_the_daemon_brings_every_run_of_a_real_elizaos_into_jaeger(
    elizaos: Elizaos, elizaos_runs: dict[str, Run], jaeger: Jaeger, tmp_path: Path
) -> None:
    source = f"""name = "eliza"
platform = "elizaos"
base_url = "{elizaos.base_url}"
api_key = "env:LIVE_KEY"
poll_every = "1s"
settle = "2s"
rate = "20/s"
"""
    os.environ["LIVE_KEY"] = elizaos.api_key
    config = write_config(tmp_path, jaeger, source)
    expected = {name: run.run_id for name, run in elizaos_runs.items()}
    with daemon(config):
        deadline = time.monotonic() + DEADLINE_SECONDS * 2
        rows: dict[str, dict[str, Any]] = {}
        while time.monotonic() < deadline:
            rows = ledger_of(config) if (tmp_path / "ledger.db").exists() else {}
            if all(rows.get(run_id, {}).get("state") in ("exported", "skipped") for run_id in expected.values()):
                break
            time.sleep(0.2)

    assert {name: rows[run_id]["state"] for name, run_id in expected.items()} == {
        "simple": "exported",
        "lookup": "exported",
        "broken": "exported",
        "ignore": "exported",
        "fail": "exported",
        "self": "skipped",
    }
    assert rows[expected["fail"]]["error_type"] == "failed"
    assert rows[expected["self"]]["reason"] == "self"
    tenant = elizaos.base_url
    refs = [RunRef("elizaos", tenant, run_id) for name, run_id in expected.items() if name != "self"]
    refs = [RunRef(r.platform, r.tenant, r.run_id, _locator(rows[r.run_id])) for r in refs]
    traces = asyncio.run(projected(config, refs))
    for trace in traces:
        assert differences(trace, from_jaeger(jaeger.query, trace.trace_id)) == []
    assert any(len(trace.spans) > 3 for trace in traces)


def _locator(row: dict[str, Any]) -> Any:
    from runspan.model import Locator

    return Locator(
        agent_id=row["agent_id"], agent_name=row["agent_name"], room=row["room"], created_ns=row["created_ns"]
    )


async def test_a_backfill_from_the_simulator_can_be_read_back_in_jaeger(jaeger: Jaeger, tmp_path: Path) -> None:
    async with bridge.simulated() as simulator:
        key = simulator.keys["casedev"]
        config = write_config(
            tmp_path,
            jaeger,
            f'name = "case"\nplatform = "casedev"\nbase_url = "{simulator.urls["casedev"]}"\n'
            'api_key = "env:LIVE_KEY"\nrate = "3/s"\n',
        )
        ended = await asyncio.to_thread(
            runspan, "backfill", "-c", config, "--source", "case", "--since", "3h", "--verify", LIVE_KEY=str(key)
        )
        assert ended.returncode == 0, ended.stderr + ended.stdout
        rows = await asyncio.to_thread(ledger_of, config)
        exported = [row for row in rows.values() if row["state"] == "exported"]
        # Two of the ten are still going on when the demo's world begins.
        assert len(exported) >= 8
        for row in exported:
            from_jaeger(jaeger.query, bytes.fromhex(row["trace_id"]))
