"""The demo: the simulated platforms, and the real daemon beside them.

Nothing is cut short for the demo: the bridge is configured as it would be for the vendors, and speaks to the simulator
over HTTP. Only its intervals are small, so that one can watch.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runspan.config import Config, loader
from runspan.daemon import daemon
from runspan.demo import samples
from runspan.demo.platforms.flowyble import Flowyble, ListShape
from runspan.demo.simulator import Simulator
from runspan.demo.world import World
from runspan.ledger import Ledger, RowState
from runspan.pipeline.outbox import Parcel
from runspan.secrets import Secret
from runspan.sources import platforms
from runspan.trace import Trace

ONCE_DEADLINE_SECONDS = 90.0
LOOK_SECONDS = 0.2
PACE = {"poll_every": "2s", "settle": "2s", "start": "24h"}
RATES = {"flowyble": "90/min", "runtype": "240/min", "elizaos": "240/min", "casedev": "180/min"}
"""Below what the simulated platforms allow, as it has to be; above our defaults, which spare real ones."""
LARGEST_SHOWN = 16
FLOWYBLE_LIST = {"path": "/agents/{agentId}/runs", "items_path": "items"}


@dataclass(slots=True)
class Shown:
    """What the bridge has exported so far, and one trace of each platform to look at: rich, and failed if it can be."""

    runs: int = 0
    missing: Sequence[str] = ()
    """Runs that have ended and are not accounted for."""
    traces: dict[str, Trace] = field(default_factory=dict[str, Trace])

    def add(self, parcel: Parcel, state: RowState) -> None:
        """Take in a run that was marked."""
        if state is not RowState.EXPORTED:
            return
        self.runs += 1
        trace = parcel.encoded.trace
        platform = trace.ref.platform
        if platform not in self.traces or _worth(trace) > _worth(self.traces[platform]):
            self.traces[platform] = trace


def _worth(trace: Trace) -> tuple[bool, bool, int]:
    fits = len(trace.spans) <= LARGEST_SHOWN
    return fits, any(span.error is not None for span in trace.spans), len(trace.spans)


@contextlib.asynccontextmanager
async def simulated() -> AsyncGenerator[Simulator]:
    """The four platforms with a company's runs, some of them still going on."""
    world = World()
    samples.populate(world)
    simulator = Simulator(world)
    flowyble = simulator.platforms["flowyble"]
    assert isinstance(flowyble, Flowyble)
    flowyble.list_shape = ListShape("items")
    async with simulator:
        yield simulator


def configure(simulator: Simulator, destination: Mapping[str, Any], folder: Path, listen: str) -> Config:
    """The configuration of a bridge to the simulator."""
    sources: list[dict[str, Any]] = []
    for name, url in simulator.urls.items():
        key = simulator.keys[name]
        source: dict[str, Any] = {
            "name": f"{name}-demo",
            "platform": name,
            "base_url": url,
            "rate": RATES[name],
            **PACE,
        }
        if key:
            source["api_key"] = Secret.known(key, "DEMO_KEY")
        if name == "flowyble":
            agents = [agent.agent_id for agent in simulator.world.agents(name)]
            source |= {"list": FLOWYBLE_LIST, "agents": agents}
        sources.append(source)
    overrides: dict[str, Any] = {
        "ledger": {"url": f"sqlite:///{folder / 'ledger.db'}"},
        "destination": destination,
        "web": {"listen": listen},
        "source": sources,
    }
    return loader.load(None, platforms=platforms(), environ={}, overrides=overrides)


async def run(config: Config, simulator: Simulator, shown: Shown, *, once: bool) -> signal.Signals | None:
    """Run the daemon until a signal ends it (which is given), or with `once` until all runs that end are accounted for.

    `shown` tells what was exported and what was not.
    """
    with Ledger.open(config.ledger.url) as ledger:
        stop = asyncio.Event()
        watch = asyncio.create_task(_watch(ledger, simulator.world, stop)) if once else None
        ended_by = await daemon.run(config, ledger, stop=stop, on_marked=shown.add)
        if watch is not None:
            watch.cancel()
            shown.missing = missing(ledger, simulator.world)
        return ended_by


def missing(ledger: Ledger, world: World) -> Sequence[str]:
    """Runs that have ended or are about to, and are neither exported nor stand in the ledger with their reason."""
    done = {row.ref.run_id for row in ledger.runs() if row.state not in (RowState.OPEN, RowState.DUE)}
    ending = [run.run_id for name in platforms() for run in world.runs(name) if run.ended_at_ns is not None]
    return [run_id for run_id in ending if run_id not in done]


async def _watch(ledger: Ledger, world: World, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ONCE_DEADLINE_SECONDS):
            while await asyncio.to_thread(missing, ledger, world):  # noqa: ASYNC110 - the ledger has no event to wait for
                await asyncio.sleep(LOOK_SECONDS)
    stop.set()
