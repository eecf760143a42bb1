"""A source's door to its platform: a `Connection` with key, quota and retries, JSON out, errors by consequence."""

import asyncio
import random
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeAlias

import structlog
import tenacity

from runspan.document import TooManyValues, parsed
from runspan.errors import (
    AnswerTooLarge,
    ConfigError,
    RunGone,
    RunspanError,
    RunUnreadable,
    SourceBusy,
    SourceGarbled,
    SourceRefused,
    SourceSilent,
    SourceUnavailable,
)
from runspan.http import BodyTooLarge, Connection, ConnectionFailed, Reply
from runspan.model import Json
from runspan.quantities import format_duration
from runspan.rate import Limiter, Paused
from runspan.secrets import mask_body
from runspan.waits import LONGEST_PAUSE_SECONDS, pause_asked, retry_after_seconds

log = structlog.get_logger()

ATTEMPTS = 3
LONGEST_SEGMENT = 4000
"""Of a path: servers take lines of 8 KB or so."""
LONGEST_INLINE_WAIT_SECONDS = 20.0
"""A platform that asks for more than this gets its wait from the caller, who has other work meanwhile."""

NOT_OF_THE_RUN = frozenset({402, 407, 408, 409, 421, 423, 425, 426, 429})
"""Codes below 500 that tell of the account, a proxy or the moment, and not of what was asked for (RFC 9110 15.5, 4918,
8470)."""

Params: TypeAlias = Mapping[str, str | int | None]


class Client:
    """One source's door: `get_json` asks for one document within the source's quota.

    `headers` is called for each request, since keys may be replaced while we run. `name` stands in error texts.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        name: str,
        limiter: Limiter,
        headers: Callable[[], Mapping[str, str]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.origin = connection.origin
        self._connection = connection
        self._name = name
        self._limiter = limiter
        self._headers = headers
        self._retry = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_worth_another_try),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=_wait_seconds,
            sleep=sleep,
            reraise=True,
        )

    async def get_json(self, segments: Sequence[str], params: Params | None = None) -> Json:
        """The JSON at the path made of `segments`, each encoded as one segment; params that are None are left out.

        Raises RunGone (404, 410), SourceRefused (401, 403), SourceBusy (429, or a pause that the platform has asked
        for), SourceUnavailable (5xx, redirects, no answer, no JSON), AnswerTooLarge, RunUnreadable (any other 4xx).
        """
        query = [(key, str(value)) for key, value in (params or {}).items() if value is not None]
        refusals: list[int] = []
        return await self._retry(self._ask, encode_path(segments), query, refusals)

    async def _ask(self, path: str, query: list[tuple[str, str]], refusals: list[int]) -> Json:
        where = f"source {self._name}: GET {self._connection.base_url}{path}"
        try:
            granted_ns = await self._limiter.acquire()
        except Paused as paused:
            left = format_duration(timedelta(seconds=round(paused.seconds)))
            raise SourceBusy(
                f"source {self._name} has asked to be left alone for another {left}; asking again then",
                retry_after_seconds=paused.seconds,
            ) from None
        try:
            headers = {"accept": "application/json", **self._headers()}
        except ConfigError as error:
            raise SourceRefused(f"source {self._name}: {error}") from None
        try:
            reply = await self._connection.request(
                "GET",
                path,
                params=query,
                headers=headers,
                on_answer=lambda: self._limiter.answered(granted_ns),
            )
        except ConnectionFailed as failed:
            kind = SourceSilent if failed.timed_out else SourceUnavailable
            raise kind(f"{where} failed ({failed.reason}); asking again later") from None
        except BodyTooLarge:
            raise AnswerTooLarge(f"{where} answered with more than max_body allows") from None
        if reply.status == 429:
            # One document may be refused whenever it is asked for, and must not slow all others down for that.
            if not refusals:
                self._slow_down(granted_ns)
            refusals.append(granted_ns)
        else:
            self._limiter.welcomed()
        pause_seconds = pause_asked(reply.status, reply.headers, time.time())
        if pause_seconds:
            await self._limiter.pause(pause_seconds)
        if reply.status != 200:
            raise error_of(where, reply, time.time())
        try:
            return parsed(mask_body(reply.body))
        except TooManyValues as error:
            raise AnswerTooLarge(f"{where} answered with {error}") from None
        except ValueError:
            raise SourceGarbled(f"{where} answered 200 with a body that is not JSON; asking again later") from None

    def _slow_down(self, granted_ns: int) -> None:
        if self._limiter.refused(granted_ns):
            every_seconds = self._limiter.spacing_ns / 1e9
            log.warning(
                f"source {self._name} answers 429 to the rate that it is asked at: for now one request in "
                f"{every_seconds:.3g} s; lower `rate` if that goes on",
                action="rate_lowered",
                source=self._name,
                every_seconds=round(every_seconds, 3),
            )

    async def close(self) -> None:
        """Close the connections below."""
        await self._connection.close()


def encode_path(segments: Sequence[str]) -> str:
    """A path of untrusted segments. Raises RunUnreadable for what cannot be one segment (empty, `.`, `..`)."""
    encoded: list[str] = []
    for segment in segments:
        # Percent-encoded dots are still dots to every URL parser, so a run named `..` would ask for its parent folder.
        if segment in ("", ".", ".."):
            raise RunUnreadable("an id that is empty, '.' or '..' cannot be asked for")
        try:
            encoded.append(urllib.parse.quote(segment, safe=""))
        except UnicodeEncodeError:
            raise RunUnreadable("an id with broken characters cannot be asked for") from None
        if len(encoded[-1]) > LONGEST_SEGMENT:
            raise RunUnreadable(f"an id of over {LONGEST_SEGMENT} characters, encoded, cannot be asked for")
    return "/" + "/".join(encoded)


def error_of(where: str, reply: Reply, now_seconds: float) -> RunspanError:
    """The error that an answer other than 200 means. Its text holds the status, never the body."""
    status = reply.status
    if status in (401, 403):
        return SourceRefused(f"{where} answered {status}: check this source's api_key and its rights")
    if status in (404, 410):
        return RunGone(f"{where} answered {status}")
    if 300 <= status < 400:
        return SourceUnavailable(
            f"{where} answered {status}, a redirect, which is not followed: set base_url to where the API lives"
        )
    if status in NOT_OF_THE_RUN or status >= 500 or status < 300:
        asked_seconds = retry_after_seconds(reply.headers, now_seconds)
        return (SourceBusy if status == 429 else SourceUnavailable)(
            f"{where} answered {status}; asking again later",
            retry_after_seconds=asked_seconds and min(asked_seconds, LONGEST_PAUSE_SECONDS),
        )
    return RunUnreadable(f"{where} answered {status}", retryable=True)


def _worth_another_try(error: BaseException) -> bool:
    if not isinstance(error, SourceUnavailable) or isinstance(error, SourceRefused | SourceSilent):
        return False
    return (error.retry_after_seconds or 0.0) <= LONGEST_INLINE_WAIT_SECONDS


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, SourceUnavailable) else None
    if asked is not None:
        return asked
    return min(8.0, 0.5 * 2 ** (state.attempt_number - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
