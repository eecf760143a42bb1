"""The installed program between the simulator and an OTLP store: its configuration, its commands, what they leave.

program = Program(tmp_path, destination=store.http_endpoint, sources=[source(simulator, "casedev")])
program.run("backfill", "--source", "casedev", "--since", "1d")     # to its end
with program.start("run") as daemon:                                # beside the test; killed at the end
    wait_until(lambda: "exported" in daemon.actions, "the first export")
program.rows()                                                      # what `runspan runs` tells
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runspan.cli.runs import document
from runspan.demo.simulator import Simulator
from runspan.ledger import Ledger
from tests import otlp_validator
from tests.otlp_store import OtlpStore

RUNSPAN = Path(sys.executable).with_name("runspan")
DEADLINE_SECONDS = 45.0
COMMAND_SECONDS = 120.0
"""A backfill with runs that fail waits for half a minute by itself."""
LOOK_SECONDS = 0.01

Settings = Mapping[str, Any]
Row = dict[str, Any]


def wait_until(condition: Callable[[], object], what: str, timeout_seconds: float = DEADLINE_SECONDS) -> None:
    """Return as soon as the condition holds; fails after the timeout, naming what was waited for."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(LOOK_SECONDS)


def source(simulator: Simulator, platform: str, **settings: Any) -> Settings:
    """A [[source]] for one simulated platform, as quick as it may be; `settings` add and overwrite keys."""
    keys: dict[str, Any] = {
        "name": platform,
        "platform": platform,
        "base_url": simulator.urls[platform],
        "api_key": f"env:{platform.upper()}_KEY",
        "poll_every": "300ms",
        "settle": "1s",
        "rate": "1000/s",
    }
    if platform == "flowyble":
        agents = [agent.agent_id for agent in simulator.world.agents(platform)]
        keys |= {"agents": agents, "list": {"path": "/agents/{agentId}/runs", "items_path": "items"}}
    return keys | settings


class Program:
    """One installation: a configuration and a ledger in a folder, and the keys in the environment."""

    def __init__(
        self,
        folder: Path,
        *,
        destination: str,
        sources: Sequence[Settings],
        keys: Mapping[str, str | None],
        tables: Mapping[str, Settings] | None = None,
    ) -> None:
        self.folder = folder
        self.ledger = folder / "state" / "ledger.db"
        self.config = folder / "config.toml"
        self.working_folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RUNSPAN_", "OTEL_", "FORCE_COLOR"))}
        own = {"XDG_STATE_HOME": str(folder), "NO_PROXY": "*", "TERM": "xterm"}
        self.environ = inherited | own | {f"{name.upper()}_KEY": key for name, key in keys.items() if key}
        self._starts = 0
        defaults: dict[str, Settings] = {
            "ledger": {"url": f"sqlite:///{self.ledger}"},
            "destination": {"endpoint": destination},
            "web": {"listen": "127.0.0.1:0"},
        }
        texts = [
            *(_table(name, table) for name, table in (defaults | dict(tables or {})).items()),
            *(_table("[source]", settings) for settings in sources),
        ]
        self.config.write_text("\n".join(texts))

    @classmethod
    def between(
        cls, simulator: Simulator, store: OtlpStore, folder: Path, *sources: Settings, **tables: Settings
    ) -> Self:
        """From the simulator (default: case.dev alone) to the store."""
        return cls(
            folder,
            destination=store.http_endpoint,
            sources=sources or [source(simulator, "casedev")],
            keys=simulator.keys,
            tables=tables,
        )

    def run(self, command: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self.arguments(command, *arguments),
            env=self.environ,
            cwd=self.working_folder,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def start(self, command: str, *arguments: str) -> "Started":
        """A command beside the test, to be used as a context."""
        self._starts += 1
        return Started(self, self.arguments(command, *arguments), self.folder / f"start-{self._starts}")

    def arguments(self, command: str, *arguments: str) -> list[str]:
        """The command line."""
        return [str(RUNSPAN), command, "-c", str(self.config), *arguments]

    def rows(self) -> dict[str, Row]:
        """What `runspan runs --json` prints, by run id, without starting it; nothing before there is a ledger."""
        if not self.ledger.exists():
            return {}
        with Ledger.open(f"sqlite:///{self.ledger}", read_only=True) as ledger:
            return {row.ref.run_id: json.loads(json.dumps(document(row))) for row in ledger.runs()}

    def states(self) -> dict[str, int]:
        """How many runs stand in which state."""
        return dict(Counter(row["state"] for row in self.rows().values()))


class Started:
    """A program that runs. What it writes can be read while it does; leaving the context kills what is left of it."""

    def __init__(self, program: Program, arguments: Sequence[str], log: Path) -> None:
        self._stdout, self._stderr = log.with_suffix(".out"), log.with_suffix(".err")
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                arguments,
                env=program.environ,
                cwd=program.working_folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def stdout(self) -> str:
        """What it has written to standard output so far."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return self._stderr.read_text()

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The whole log lines so far."""
        whole, _, _ = self.stderr.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def logged(self, action: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines with this action and these fields."""
        wanted = {"action": action} | fields
        return [line for line in self.logs if line.items() >= wanted.items()]

    def wait_logged(self, action: str, **fields: Any) -> dict[str, Any]:
        """The first such line, as soon as it is there."""
        wait_until(lambda: self.logged(action, **fields) or self.process.poll() is not None, f"{action} {fields}")
        lines = self.logged(action, **fields)
        assert lines, f"ended with {self.process.returncode} and never logged {action}:\n{self.stderr[-3000:]}"
        return lines[0]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def signalled(self, number: signal.Signals) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(DEADLINE_SECONDS)


def closing_table(stdout: str) -> dict[str, int]:
    """The lines of a backfill's closing table: `{"listed": 60, "exported": 58, ...}`."""
    return {text.strip(): int(number) for number, text in re.findall(r"^\s*(\d+)  ?(\S.*)$", stdout, re.MULTILINE)}


def exactly_once(store: OtlpStore) -> dict[str, set[str]]:
    """The span ids of each run in the store, its copies proven to be the same bytes: run id to span ids."""
    spans: dict[str, set[str]] = {}
    for trace_id, copies in store.traces.items():
        for span_id, raw in copies.items():
            assert len(set(raw)) == 1, f"copies of span {span_id} of trace {trace_id} differ"
    for span in store.spans:
        spans.setdefault(span.attributes["runspan.run.id"], set()).add(span.span_id)
    for request in store.requests:
        for run_id in request.run_ids & set(spans):
            sent = {span.span_id for span in request.spans if span.attributes["runspan.run.id"] == run_id}
            assert sent == spans[run_id], f"run {run_id} was sent again with other spans"
    owners = {(span.trace_id, span.span_id): span.attributes["runspan.run.id"] for span in store.spans}
    assert len({span_id for _, span_id in owners}) == len(owners), "two runs share a span id"
    assert len({trace_id for trace_id, _ in owners}) == len(spans), "a run has two traces, or a trace two runs"
    return spans


def unsound(store: OtlpStore) -> dict[str, list[str]]:
    """What the strict validator says of the traces in the store, by run id; empty where all are sound."""
    payloads: dict[str, ExportTraceServiceRequest] = {}
    seen: set[tuple[str, str]] = set()
    for span in store.spans:
        if (span.trace_id, span.span_id) in seen:
            continue
        seen.add((span.trace_id, span.span_id))
        alone = ExportTraceServiceRequest.FromString(span.raw)
        payload = payloads.setdefault(span.attributes["runspan.run.id"], alone)
        if payload is not alone:
            payload.resource_spans[0].scope_spans[0].spans.extend(alone.resource_spans[0].scope_spans[0].spans)
    found = {run_id: otlp_validator.faults(payload.SerializeToString()) for run_id, payload in payloads.items()}
    return {run_id: faults for run_id, faults in found.items() if faults}


def answered(simulator: Simulator, platform: str, path: str) -> int:
    """How many requests of that kind have got an answer."""
    return sum(request.status is not None for request in simulator.asked(platform, path))


def _table(name: str, settings: Settings) -> str:
    lines = [f"{key} = {_toml(value)}" for key, value in settings.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
