"""Every sample run of the simulator, fetched over real HTTP, becomes a valid trace."""

import pytest

from runspan.config import bind
from runspan.demo.samples import populate
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World
from runspan.http import Connection
from runspan.model import Locator, RunRef
from runspan.otlp.encode import encode
from runspan.projection import ProjectionSettings, project
from runspan.rate import Limiter
from runspan.sources import platforms, registry
from runspan.sources.client import Client
from tests.integration.test_sources_conformance import NOW_NS, NoQuota, no_sleep
from tests.otlp_validator import Rules, faults

LATER_NS = NOW_NS + 3600 * SECOND_NS


@pytest.mark.parametrize("platform", registry())
async def test_every_sample_run_becomes_a_valid_trace(platform: str) -> None:
    clock = [NOW_NS]
    world = World(now=lambda: clock[0])
    populate(world)
    clock[0] = LATER_NS
    async with Simulator(world, rate_limited=False) as simulator:
        url = simulator.urls[platform]
        entry = {"name": "s", "platform": platform, "base_url": url}
        config = bind(platforms())(source=[entry]).source[0]
        kind = registry()[platform]
        client = Client(
            Connection(url, timeout_seconds=5, max_body_bytes=10_000_000),
            name="s",
            limiter=Limiter(NoQuota(), "", 0),
            headers=lambda: kind.auth_headers(simulator.platforms[platform].key),
            sleep=no_sleep,
        )
        source = kind(config, client)
        runs = world.runs(platform)
        for run in runs:
            ref = RunRef(platform, source.tenant, run.run_id, Locator(agent_id=run.agent_id, agent_name=run.agent_name))
            read = source.read(await source.fetch(ref, with_content=True))
            for with_content in (False, True):
                trace = project(read, ProjectionSettings(source="s", capture_content=with_content))
                rules = Rules(with_content=with_content, resource={"service.name": "s"})
                assert faults(encode(trace).payload, rules) == []
        await client.close()
    assert len(runs) >= 8
