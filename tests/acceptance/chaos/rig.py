"""The whole of it: simulated platforms, the program, an OTLP store, a gate before each, a killer, and the oracles.

    with Rig(tmp_path) as rig:
        rig.traffic()                                       # runs that have ended, that will end, that come late
        rig.live("run", At("detail", Point.ANSWERED))       # one life of the program, ended by the killer
        with rig.start("run"):
            rig.settle()                                    # liveness: what is due comes, and the program is well
        rig.judge()                                         # conservation, no inflation

The oracles read the simulator's stock, the store's spans, and the ledger as the dead program left it; what the spans
have to be is told by a second installation that nobody disturbs.
"""

import itertools
import json
import random
import shutil
import signal
import sqlite3
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Self

from runspan.demo.platforms.flowyble import Flowyble, ListShape
from runspan.demo.samples.builders import (
    CONTRACT_REVIEWER,
    FREJA,
    REPORT_WRITER,
    STOCK_BOT,
    casedev_run,
    elizaos_run,
    flowyble_run,
    runtype_execution,
)
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldRun
from tests import figures
from tests.acceptance.chaos.gate import Gate
from tests.acceptance.chaos.killer import Instant, Killer
from tests.acceptance.program import Program, Started, source, wait_until
from tests.otlp_store import OtlpStore

PLATFORMS = ("casedev", "runtype", "elizaos", "flowyble")
BUILDERS = {
    "casedev": casedev_run, "runtype": runtype_execution, "elizaos": elizaos_run, "flowyble": flowyble_run,
}  # fmt: skip
AGENTS = {"casedev": CONTRACT_REVIEWER, "runtype": REPORT_WRITER, "elizaos": FREJA, "flowyble": STOCK_BOT}
LIFE_SECONDS = 8.0 if figures.SOAK else 30.0
"""How long the program may live if the killer's instant does not come; then it is killed all the same."""
SETTLE_SECONDS = 60.0
SETTLED_REASONS = ("skipped", "gone", "quarantined", "expired")
PACE = {"poll_every": "250ms", "settle": "200ms", "start": "24h", "overlap": "10m"}


def kind_of(target: str) -> str:
    """What a request to a platform is about: `list`, `detail`, or `other` (agents, open runs)."""
    path, _, query = target.partition("?")
    parts = [part for part in path.split("/") if part]
    if "status=" in query or parts[-1] in ("agents", "status"):
        return "other"
    if parts[-1] in ("run", "runs", "executions"):
        return "list"
    return "detail"


@dataclass(slots=True)
class Judgement:
    """What the oracles found. Nothing lost and nothing doubled is how it has to be."""

    runs: int
    lost: list[str] = field(default_factory=list[str])
    """Ended runs that are neither in the store nor in the ledger with their reason."""
    doubled: list[str] = field(default_factory=list[str])
    """Spans that are not the ones that an undisturbed program sends, or copies of one that differ."""
    incomplete: list[str] = field(default_factory=list[str])
    """Runs of which spans are missing."""
    repeats: int = 0
    """Spans that came more than once, the same bytes each time."""

    def check(self) -> None:
        lost = len(self.lost) + len(self.incomplete)
        figures.note(runs=self.runs, lost=lost, doubled=len(self.doubled), repeats=self.repeats)
        assert (self.lost, self.doubled, self.incomplete) == ([], [], [])


class Ending(Enum):
    """How a life of the program ended."""

    STRUCK = "killed at its instant"
    MISSED = "killed, after the instant had not come for a long while"
    DONE = "by itself"


class Rig:
    """See the module's text. `sources` are the platforms used; `settings` go into each of their tables."""

    def __init__(
        self,
        folder: Path,
        sources: Sequence[str] = PLATFORMS,
        *,
        seed: int = 0,
        rate_limited: bool = False,
        environ: Mapping[str, str] | None = None,
        more_sources: Sequence[Mapping[str, Any]] = (),
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.sources = sources
        self.random = random.Random(seed)
        self.simulator = Simulator(World(), rate_limited=rate_limited, seed=seed)
        self.world = self.simulator.world
        self.store = OtlpStore()
        self.killer = Killer(folder / "state")
        self.changed: set[str] = set()
        """Runs whose body the platform has changed after their end: their copies may differ, their ids may not."""
        self.program: Program
        self.gates: dict[str, Gate] = {}
        self._environ = environ or {}
        self._more_sources = more_sources
        self._settings = settings
        self._stack = ExitStack()
        self._keys = itertools.count()
        for platform in sources:
            self.world.add_agent(platform, AGENTS[platform])
        flowyble = self.simulator.platforms["flowyble"]
        assert isinstance(flowyble, Flowyble)
        flowyble.list_shape = ListShape("items")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.simulator.in_thread())
            stack.enter_context(self.store)
            self._tables_of_sources = [self._source(platform, stack) for platform in self.sources]
            self._tables_of_sources += self._more_sources
            export = Gate(self.store.http_port, kind_of=lambda target: "export", crossing=self.killer.crossing)
            self.gates["export"] = stack.enter_context(export)
            self.program = self._installation(self.folder, export.url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _source(self, platform: str, stack: ExitStack) -> dict[str, Any]:
        url = self.simulator.urls[platform]
        port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
        gate = stack.enter_context(Gate(int(port), kind_of=kind_of, crossing=self.killer.crossing))
        self.gates[platform] = gate
        base_url = "/".join(part for part in (gate.url, path) if part)
        return {**source(self.simulator, platform, base_url=base_url), **PACE, **self._settings}

    def _installation(self, folder: Path, destination: str) -> Program:
        folder.mkdir(parents=True, exist_ok=True)
        program = Program(folder, destination=destination, sources=self._tables_of_sources, keys=self.simulator.keys)
        program.environ |= self._environ
        return program

    # --- what happens on the platforms ---

    def traffic(self, number: int = 2, *, ended_seconds: float = 120.0) -> list[WorldRun]:
        """On each platform so many runs that ended a while ago, one that will end within seconds, one shown late."""
        now_ns = time.time_ns()
        added: list[WorldRun] = []
        for platform in self.sources:
            build = BUILDERS[platform]
            for _ in range(number):
                created_ns = now_ns - int((ended_seconds + self.random.uniform(0, 300)) * SECOND_NS)
                added.append(build(self._key(), created_at_ns=created_ns, seconds=30.0))
            seconds = self.random.uniform(3, 5)
            added.append(build(self._key(), created_at_ns=now_ns - 3 * SECOND_NS, seconds=seconds))
            shown_ns = now_ns + int(self.random.uniform(0.5, 2) * SECOND_NS)
            late = build(self._key(), created_at_ns=now_ns - 90 * SECOND_NS, seconds=20.0, visible_at_ns=shown_ns)
            added.append(late)
        return [self.world.add(run) for run in added]

    def stock(self, platform: str, number: int) -> list[WorldRun]:
        """So many runs on one platform that ended hours ago, for a backfill."""
        oldest_ns = time.time_ns() - 4 * 3600 * SECOND_NS
        instants_ns = [oldest_ns + int(self.random.uniform(0, 3600) * SECOND_NS) for _ in range(number)]
        return [
            self.world.add(BUILDERS[platform](self._key(), created_at_ns=at_ns, seconds=30.0)) for at_ns in instants_ns
        ]

    def _key(self) -> str:
        return f"chaos {next(self._keys)}"

    # --- the program's lives ---

    def start(self, command: str, *arguments: str) -> Started:
        """The program beside the test, undisturbed until the killer takes aim."""
        return self.program.start(command, *arguments)

    def live(self, instant: Instant, command: str, *arguments: str, besides: Started | None = None) -> Ending:
        """One life of the program, which ends by kill -9 unless it is done before; `besides` stays alive."""
        with self.start(command, *arguments) as started:
            self.killer.aim(started.process, instant)
            struck = self.killer.wait(started.process, LIFE_SECONDS)
            started.kill()
            log = started.stderr
        assert "Traceback" not in log, log
        if started.process.returncode != -signal.SIGKILL:
            # 1: some runs stand in the ledger with a reason. 3: a backfill that was refused, and can go on.
            assert started.process.returncode in (0, 1, 3), log
            return Ending.DONE
        figures.note(kills=1)
        if besides is None:
            self.check_ledger()
        return Ending.STRUCK if struck else Ending.MISSED

    def ledger(self, query: str) -> list[sqlite3.Row]:
        """What the ledger answers, while the program may be working on it; nothing before there is one."""
        if not self.program.ledger.exists():
            return []
        with closing(sqlite3.connect(f"{self.program.ledger.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query).fetchall()

    def check_ledger(self) -> None:
        """What must hold whenever the program has died: the file is sound, and no mark is without its trace."""
        if not self.program.ledger.exists():
            return
        with tempfile.TemporaryDirectory() as folder:
            # A copy, since the first to open the real one would already repair it.
            for name in ("ledger.db", "ledger.db-wal"):
                if (self.program.ledger.parent / name).exists():
                    shutil.copy(self.program.ledger.with_name(name), folder)
            with closing(sqlite3.connect(f"{folder}/ledger.db")) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                marked = connection.execute("SELECT run_id, trace_id FROM runs WHERE state = 'exported'").fetchall()
        traces = self.store.traces
        assert [run_id for run_id, trace_id in marked if trace_id not in traces] == []

    # --- the oracles ---

    @property
    def ended(self) -> dict[str, WorldRun]:
        """The runs that have ended or will: all of them are to be exported."""
        runs = (run for platform in self.sources for run in self.world.runs(platform))
        return {run.run_id: run for run in runs if run.ended_at_ns is not None}

    @property
    def stored(self) -> set[str]:
        """The runs of which the store has spans."""
        return {span.attributes["runspan.run.id"] for span in list(self.store.spans)}

    def settle(self, daemon: Started) -> None:
        """Liveness: everything comes, also what ends only now, and the daemon says that all is well."""
        self.traffic(1)
        deadline = time.monotonic() + SETTLE_SECONDS
        while left := self.ended.keys() - self._accounted():
            assert daemon.process.poll() is None, daemon.stderr
            assert time.monotonic() < deadline, f"waited in vain for {self.rows(left)}"
            time.sleep(0.05)
        url = daemon.wait_logged("web_started")["url"]
        never_well = tuple(f"source {source['name']}:" for source in self._more_sources)
        wait_until(
            lambda: all(trouble.startswith(never_well or "-") for trouble in _troubles(url)),
            "a daemon that is well",
            SETTLE_SECONDS,
        )

    def _accounted(self) -> set[str]:
        stored = self.stored
        return stored if self.ended.keys() <= stored else stored | set(self.reasons())

    def reasons(self) -> dict[str, str]:
        """The runs that stand in the ledger with a reason for not being exported."""
        rows = self.ledger("SELECT run_id, state, reason FROM runs WHERE reason IS NOT NULL")
        return {row["run_id"]: row["reason"] for row in rows if row["state"] in SETTLED_REASONS}

    def rows(self, run_ids: Collection[str]) -> dict[str, dict[str, Any] | None]:
        """What the ledger knows of these runs."""
        found = {row["run_id"]: dict(row) for row in self.ledger("SELECT * FROM runs")}
        return {run_id: found.get(run_id) for run_id in run_ids}

    def states(self) -> Counter[str]:
        """How many rows stand in which state."""
        return Counter(row["state"] for row in self.ledger("SELECT state FROM runs"))

    def judge(self) -> Judgement:
        """Conservation and no inflation, against what an undisturbed installation sends of the same runs."""
        expected = self._undisturbed()
        found, reasons, ended = self.store.traces, self.reasons(), self.ended
        trace_of = {span.attributes["runspan.run.id"]: span.trace_id for span in list(self.store.spans)}
        judgement = Judgement(len(ended))
        judgement.lost = sorted(ended.keys() - trace_of.keys() - reasons.keys())
        changed = {trace_of[run_id] for run_id in self.changed & trace_of.keys()}
        for trace_id, spans in found.items():
            right = expected.get(trace_id, {})
            if missing := right.keys() - spans.keys():
                judgement.incomplete.append(f"trace {trace_id}: {len(missing)} spans are missing")
            for span_id, copies in spans.items():
                judgement.repeats += len(copies) - 1
                if span_id not in right:
                    judgement.doubled.append(f"{trace_id}/{span_id} is nobody's")
                elif trace_id not in changed and set(copies) != {right[span_id]}:
                    judgement.doubled.append(f"{trace_id}/{span_id} has copies that differ")
        return judgement

    def _undisturbed(self) -> dict[str, dict[str, bytes]]:
        """The spans that a new installation sends of the same runs, by trace id and span id."""
        wanted = (self.ended.keys() - self.reasons().keys()) | self.stored
        with OtlpStore() as store:
            control = self._installation(self.folder / "undisturbed", store.http_endpoint)
            with control.start("run"):
                store.wait(
                    lambda: wanted <= {span.attributes["runspan.run.id"] for span in store.spans}, SETTLE_SECONDS
                )
            traces = store.traces
        assert all(len(copies) == 1 for spans in traces.values() for copies in spans.values())
        return {trace: {span: copies[0] for span, copies in spans.items()} for trace, spans in traces.items()}


def _troubles(url: str) -> list[str]:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            told = answer.read()
    except urllib.error.HTTPError as error:
        told = error.read()
    return json.loads(told)["troubles"]
