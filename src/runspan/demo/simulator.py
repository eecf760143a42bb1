"""The four agent platforms over real HTTP, in this process.

    world = World()
    samples.populate(world)
    async with Simulator(world) as simulator:
        simulator.urls["casedev"], simulator.keys["casedev"]

It knows nothing of the bridge, so that it can be the witness in its tests: what was asked stands in `requests`, what
shall go wrong in `faults`, what a platform does oddly in `platforms[name].quirks`.
"""

import asyncio
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import uvicorn
from anyio.from_thread import start_blocking_portal
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from runspan.demo.door import Door, RecordedRequest
from runspan.demo.faults import Effect, Fault
from runspan.demo.platforms import PLATFORMS, Platform
from runspan.demo.world import SECOND_NS, World

HOST = "127.0.0.1"


class Simulator:
    """The four platforms as servers on the loopback interface, from `async with` to its end.

    `ports` fixes ports by platform; the others are free ones. Without `rate_limited` nobody is ever told to slow down.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        ports: Mapping[str, int] | None = None,
        rate_limited: bool = True,
        seed: int = 0,
    ) -> None:
        self.world = world or World()
        self.platforms: dict[str, Platform] = {kind.name: kind(self.world, seed=seed) for kind in PLATFORMS}
        self.urls: dict[str, str] = {}
        """Base URLs as a source's configuration wants them, once the servers run."""
        self.requests: list[RecordedRequest] = []
        self.faults: list[Fault] = []
        self._ports = ports or {}
        self._servers: list[asyncio.Server] = []
        self._state = ServerState()
        if not rate_limited:
            for platform in self.platforms.values():
                platform.limit = None

    @property
    def keys(self) -> dict[str, str | None]:
        """The API key of each platform, None where it asks for none."""
        return {name: platform.key for name, platform in self.platforms.items()}

    def fault(self, platform: str, path: str, effect: Effect, times: float = float("inf")) -> Fault:
        """Add a fault and return it, for `faults.remove`."""
        fault = Fault(platform, path, effect, times)
        self.faults.append(fault)
        return fault

    def asked(self, platform: str, path: str = "") -> list[RecordedRequest]:
        """The requests to a platform whose path contains `path`."""
        return [request for request in self.requests if request.platform == platform and path in request.path]

    def busiest(self, platform: str, window_seconds: float) -> int:
        """The most requests to a platform that lay in any window of this length."""
        window_ns = int(window_seconds * SECOND_NS)
        window: deque[int] = deque()
        most = 0
        for request in self.asked(platform):
            window.append(request.time_ns)
            while window[0] <= request.time_ns - window_ns:
                window.popleft()
            most = max(most, len(window))
        return most

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for platform in self.platforms.values():
            server = await loop.create_server(self._protocol(platform), HOST, self._ports.get(platform.name, 0))
            self._servers.append(server)
            port: int = server.sockets[0].getsockname()[1]
            self.urls[platform.name] = f"http://{HOST}:{port}{platform.base_path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            assert isinstance(connection, H11Protocol)
            connection.transport.abort()
        # Their connections gone, requests that were left to hang or to wait come to their end.
        await asyncio.gather(*self._state.tasks)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    @contextmanager
    def in_thread(self) -> Generator[Self]:
        """The same for code without an event loop: the servers run in a thread of their own."""
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self):
            yield self

    def _protocol(self, platform: Platform) -> Any:
        # uvicorn's protocol without uvicorn's Server: no signal handlers, and no ticks to wait for at the stop.
        door = Door(platform, self.requests, self.faults)
        config = uvicorn.Config(
            door, lifespan="off", log_config=None, access_log=False, ws="none", timeout_keep_alive=60
        )
        return lambda: _Protocol(config, self._state, {})


class _Protocol(H11Protocol):
    """Lets the application at its own connection, so that it can break it off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.app_state = {"transport": transport}
