"""A platform's door: every request is written down there, meets its fault, shows its key, and is counted."""

import math
import socket
import struct
import time
from asyncio import Transport, wait_for
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from runspan.demo.faults import Close, CutOff, Delay, Fault, Hang, Reply, Reset
from runspan.demo.platforms.base import Platform, RateLimit

SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie"})
RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time at all: closing sends RST."""


@dataclass(slots=True)
class RecordedRequest:
    """A request as it arrived. `status` is what it was answered with, None while or where there was no answer."""

    platform: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Without those that carry secrets."""
    time_ns: int
    status: int | None = None


class SlidingWindow:
    """Counts the admitted requests of the last window; refused ones do not count."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()

    def admit(self, limit: RateLimit) -> tuple[bool, int, int]:
        """Whether one more request fits, how many are left then, and the whole seconds until the next place."""
        now = time.monotonic()
        while self._admitted and self._admitted[0] <= now - limit.window_seconds:
            self._admitted.popleft()
        admitted = len(self._admitted) < limit.requests
        if admitted:
            self._admitted.append(now)
        oldest = self._admitted[0] if self._admitted else now
        return admitted, limit.requests - len(self._admitted), math.ceil(oldest + limit.window_seconds - now)


class Door:
    """The ASGI application in front of one platform."""

    def __init__(self, platform: Platform, requests: list[RecordedRequest], faults: list[Fault]) -> None:
        self._platform = platform
        self._requests = requests
        self._faults = faults
        self._window = SlidingWindow()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request: with its fault, with a refusal, or with what the platform says."""
        headers = Headers(scope=scope)
        record = RecordedRequest(
            platform=self._platform.name,
            method=scope["method"],
            path=scope["path"],
            query=dict(QueryParams(scope["query_string"])),
            headers={name: value for name, value in headers.items() if name not in SECRET_HEADERS},
            time_ns=time.time_ns(),
        )
        self._requests.append(record)

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        target = scope["path"] + "?" + scope["query_string"].decode()
        effect = next((fault.effect for fault in self._faults if fault.takes(self._platform.name, target)), None)
        match effect:
            case None:
                await self._answer(scope, receive, send_recorded)
            case Reply():
                await Response(effect.body, effect.status, effect.headers)(scope, receive, send_recorded)
            case Delay():
                if not await _left_within(receive, effect.seconds):
                    await self._answer(scope, receive, send_recorded)
            case Hang():
                await _left(receive)
            case Close() | Reset():
                await _break_off(scope, receive, reset=isinstance(effect, Reset))
            case CutOff():
                await self._answer_half(scope, receive, send_recorded, honest_length=effect.honest_length)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        platform = self._platform
        headers = Headers(scope=scope)
        if platform.key is not None and platform.presented_key(headers) != platform.key:
            await platform.unauthorized()(scope, receive, send)
            return
        if platform.limit is None:
            await platform.app(scope, receive, send)
            return
        admitted, remaining, reset_seconds = self._window.admit(platform.limit)
        rate_headers = platform.rate_headers(platform.limit, remaining, reset_seconds)

        async def send_with_rate(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rate_headers)
            await send(message)

        app = platform.app if admitted else platform.too_many(reset_seconds)
        await app(scope, receive, send_with_rate)

    async def _answer_half(self, scope: Scope, receive: Receive, send: Send, *, honest_length: bool) -> None:
        start: Message = {}
        body = b""

        async def keep(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            else:
                body += message.get("body", b"")

        await self._answer(scope, receive, keep)
        half = body[: len(body) // 2]
        if honest_length:
            MutableHeaders(scope=start)["content-length"] = str(len(half))
        await send(start)
        await send({"type": "http.response.body", "body": half, "more_body": not honest_length})
        if not honest_length:
            await _break_off(scope, receive, reset=False)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _left_within(receive: Receive, seconds: float) -> bool:
    try:
        await wait_for(_left(receive), seconds)
    except TimeoutError:
        return False
    return True


async def _break_off(scope: Scope, receive: Receive, *, reset: bool) -> None:
    transport: Transport = scope["state"]["transport"]
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
    await _left(receive)
