"""A source's door over real sockets: what leaves, and what every kind of answer comes to."""

import asyncio
import email.utils
import gzip
import json
import time
import traceback
import tracemalloc
import urllib.parse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from runspan.errors import (
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
from runspan.http import HELD_AT_ONCE_BYTES, Connection, environment_proxy
from runspan.in_flight import InFlight
from runspan.rate import Limiter
from runspan.sources.client import ATTEMPTS, Client, encode_path
from runspan.sources.fields import Fields
from runspan.waits import FOREVER_SECONDS, pause_asked, retry_after_seconds
from tests.pipelines import until

NOW = 1_780_000_000.0
KEY = "flw_key_canary_5d1f"
BODY_CANARY = "body-canary-81aa"
QUERY_CANARY = "query-canary-77c0"
Answer = Callable[["Request"], bytes | None]


@dataclass(slots=True)
class Request:
    target: str
    headers: dict[str, str]


@dataclass
class Server:
    """Answers with the very bytes it is told, and keeps what it was asked; None: it hangs up without a word."""

    answer: Answer
    requests: list[Request] = field(default_factory=list[Request])
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                request = Request(first.split(" ")[1], headers)
                self.requests.append(request)
                reply = self.answer(request)
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
                if b"connection: close" in reply:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


class OpenBudget:
    """Grants everything; keeps the pauses that were asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def debit(self, key: str, interval_ns: int) -> int:
        return 0

    def delay(self, key: str, by_ns: int) -> None:
        pass

    def pause(self, key: str, until_ns: int) -> None:
        self.pauses.append(until_ns / 1e9 - NOW)


@dataclass
class Door:
    client: Client
    budget: OpenBudget
    slept: list[float]


@asynccontextmanager
async def door(base_url: str, *, max_body_bytes: int = 100_000, timeout_seconds: float = 5.0) -> AsyncIterator[Door]:
    budget, slept = OpenBudget(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    client = Client(
        Connection(base_url, timeout_seconds=timeout_seconds, max_body_bytes=max_body_bytes),
        name="acme",
        limiter=Limiter(budget, "k", 1, now=lambda: int(NOW * 1e9)),
        headers=lambda: {"X-API-Key": KEY},
        sleep=sleep,
    )
    try:
        yield Door(client, budget, slept)
    finally:
        await client.close()


def reply(status: int = 200, body: bytes | str = b"{}", **headers: Any) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    lines = {"content-length": len(body), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body


def chunked(body: bytes, **headers: Any) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    pieces = [body[start : start + 8000] for start in range(0, len(body), 8000)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{lines}\r\n".encode() + coded + b"0\r\n\r\n"


def always(answer: bytes | None) -> Answer:
    return lambda request: answer


async def error_from(answer: bytes | None, **settings: Any) -> tuple[RunspanError, Server, Door]:
    async with serving(always(answer)) as server, door(server.url, **settings) as opened:
        with pytest.raises(RunspanError) as raised:
            await opened.client.get_json(["runs", "r1"], {"cursor": QUERY_CANARY})
        return raised.value, server, opened


NO_URLS = [
    "http:foo",
    "https:foo",
    "foo:bar",
    "mailto:x",
    "javascript:alert(1)",
    "data:,x",
    "http:\\\\x",
    "//[",
    "\x7f",
]


# What leaves


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed_and_the_key_stays_home(status: int):
    async with serving(always(reply())) as elsewhere:
        error, server, _ = await error_from(reply(status, location=f"{elsewhere.url}/runs/r1"))
        assert isinstance(error, SourceUnavailable)
        assert "redirect" in str(error)
        assert server.requests[0].headers["x-api-key"] == KEY
        assert elsewhere.requests == []


@pytest.mark.parametrize("location", ["http:foo", "foo:bar", "mailto:x", "data:,x", "http:\\\\x", "//[", "\x7f"])
async def test_a_redirect_to_what_is_no_url_is_a_redirect(location: str):
    error, _, _ = await error_from(reply(302, location=location))
    assert isinstance(error, SourceUnavailable)
    assert "302, a redirect" in str(error)


@pytest.mark.parametrize(
    ("segment", "sent"),
    [
        ("run-1", "run-1"),
        ("a/b", "a%2Fb"),
        ("/", "%2F"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("a;b=c&d", "a;b=c&d"),
        ("..\\..", "..%5C.."),
        ("Umeå", "Ume%C3%A5"),
        ("\x00\r\n", "%00%0D%0A"),
        ("...", "..."),
    ],
)
async def test_an_id_is_one_segment_of_the_path(segment: str, sent: str):
    async with serving(always(reply())) as server, door(f"{server.url}/v1/") as opened:
        await opened.client.get_json(["runs", segment, "details"])
        assert server.requests[0].target == f"/v1/runs/{sent}/details"


@pytest.mark.parametrize("segment", ["", ".", "..", "\ud800"])
async def test_an_id_that_cannot_be_a_segment_is_not_asked_for(segment: str):
    async with serving(always(reply())) as server, door(server.url) as opened:
        with pytest.raises(RunUnreadable):
            await opened.client.get_json(["runs", segment])
        assert server.requests == []


async def test_parameters_arrive_as_they_were_meant():
    params = {"cursor": "a&b=c +%2F;ä#", "limit": 50, "room": None}
    async with serving(always(reply())) as server, door(server.url) as opened:
        await opened.client.get_json(["runs"], params)
        query = urllib.parse.urlsplit(server.requests[0].target).query
        assert urllib.parse.parse_qs(query) == {"cursor": ["a&b=c +%2F;ä#"], "limit": ["50"]}


async def test_cookies_are_forgotten():
    async with serving(always(reply(set_cookie="session=1; Path=/"))) as server, door(server.url) as opened:
        for _ in range(2):
            await opened.client.get_json(["runs"])
        assert "cookie" not in server.requests[1].headers


async def test_a_key_that_cannot_be_read_now_pauses_the_source_and_sends_nothing():
    def headers() -> dict[str, str]:
        raise ConfigError("cannot read file:/run/key: No such file or directory")

    async with serving(always(reply())) as server:
        connection = Connection(server.url, timeout_seconds=5, max_body_bytes=1000)
        client = Client(connection, name="acme", limiter=Limiter(OpenBudget(), "k", 1), headers=headers)
        with pytest.raises(SourceRefused, match="source acme: cannot read file:/run/key"):
            await client.get_json(["runs"])
        await client.close()
        assert server.requests == []


# What comes


async def test_json_comes_packed_or_not():
    document = {"runs": ["ä" * 5000]}
    body = json.dumps(document).encode()
    for answer in (reply(200, body), chunked(body), reply(200, gzip.compress(body), content_encoding="gzip")):
        async with serving(always(answer)) as server, door(server.url) as opened:
            assert await opened.client.get_json(["runs"]) == document


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply(200, b'"' + b"x" * 2000 + b'"'), id="told by its length"),
        pytest.param(chunked(b'"' + b"x" * 2000 + b'"'), id="chunked"),
        pytest.param(reply(200, gzip.compress(b"x" * 2000), content_encoding="gzip"), id="packed"),
    ],
)
async def test_a_body_over_the_cap_is_not_read(answer: bytes):
    error, server, _ = await error_from(answer, max_body_bytes=1000)
    assert isinstance(error, RunUnreadable)
    assert not error.retryable
    assert "max_body" in str(error)
    assert len(server.requests) == 1


async def test_a_body_of_just_the_cap_is_read():
    body = b'"' + b"x" * 998 + b'"'
    async with serving(always(reply(200, body))) as server, door(server.url, max_body_bytes=1000) as opened:
        assert await opened.client.get_json(["runs"]) == "x" * 998


@pytest.mark.parametrize("times", [1, 2])
async def test_a_bomb_does_not_go_off(times: int):
    bomb = b"\0" * 200_000_000
    for _ in range(times):
        bomb = gzip.compress(bomb, 9)
    encoding = ", ".join(["gzip"] * times)
    tracemalloc.start()
    try:
        error, _, _ = await error_from(reply(200, bomb, content_encoding=encoding), max_body_bytes=1_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, RunUnreadable)
    assert peak_bytes < 60_000_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("<!DOCTYPE html><html>login</html>", id="HTML"),
        pytest.param('{"runs": [{"id": "a"', id="cut off"),
        pytest.param("", id="empty"),
        pytest.param(b"\xff\xfe\xfd", id="no text at all"),
        pytest.param("[" * 200_000, id="deep"),
        pytest.param('{"a":' * 50_000 + "1" + "}" * 49_000, id="deep and cut off"),
    ],
)
async def test_an_answer_that_is_no_json_is_garbled(body: str | bytes):
    error, server, _ = await error_from(reply(200, body), max_body_bytes=1_000_000)
    assert type(error) is SourceGarbled
    assert len(server.requests) == ATTEMPTS


async def test_a_value_of_any_depth_costs_itself_and_not_its_page():
    body = f'{{"runs": [{{"id": "a", "in": {"[" * 50_000}"]}}"{"]" * 50_000}}}, {{"id": "b", "in": [[3]]}}]}}'
    async with serving(always(reply(200, body))) as server, door(server.url, max_body_bytes=1_000_000) as opened:
        [deep, sound] = (await opened.client.get_json(["runs"]))["runs"]
    assert deep["id"] == "a"
    assert sound == {"id": "b", "in": [[3]]}


@pytest.mark.parametrize("digits", [4300, 4301, 900_000])
async def test_a_number_without_end_costs_itself_and_not_its_page(digits: int):
    body = (
        f'{{"runs": [{{"id": "a", "n": {"9" * digits}}}, {{"id": "b", "n": -{"9" * digits}}}, {{"id": "c", "n": 3}}]}}'
    )
    begun = time.monotonic()
    async with serving(always(reply(200, body))) as server, door(server.url, max_body_bytes=2_000_000) as opened:
        runs = (await opened.client.get_json(["runs"]))["runs"]
    assert time.monotonic() - begun < 2
    assert [run["id"] for run in runs] == ["a", "b", "c"]
    assert runs[2]["n"] == 3
    assert [Fields(run, []).integer("n") for run in runs] == [None, None, 3]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(reply(200, b'{"a": 1', content_length=500, connection="close"), "broke off", id="half a body"),
        pytest.param(None, "", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "", id="no HTTP"),
        pytest.param(reply(200, b"xx", content_encoding="gzip"), "", id="not packed as it says"),
    ],
)
async def test_an_answer_that_breaks_off_is_asked_for_again(answer: bytes | None, words: str):
    error, server, opened = await error_from(answer, timeout_seconds=0.3)
    assert type(error) is SourceUnavailable
    assert words in str(error)
    assert len(server.requests) >= ATTEMPTS
    assert len(opened.slept) == ATTEMPTS - 1
    assert opened.slept == sorted(opened.slept)


async def test_more_than_the_content_length_is_not_read():
    error, _, _ = await error_from(reply(200, b'{"a": 1}', content_length=4))
    assert isinstance(error, SourceUnavailable)


async def test_nobody_there():
    async with serving(always(reply())) as server:
        url = server.url
    async with door(url) as opened:
        with pytest.raises(
            SourceUnavailable, match=r"source acme: GET http://127.0.0.1:.* failed \(Connection refused"
        ):
            await opened.client.get_json(["runs"])


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"], ids=["nothing", "half a head"])
async def test_no_answer_ever(answer: bytes):
    """Asked again at once, a few such runs would hold up all others for minutes."""
    error, server, _ = await error_from(answer, timeout_seconds=0.1)
    assert type(error) is SourceSilent
    assert "no answer in time" in str(error)
    assert len(server.requests) == 1


async def test_trouble_that_passes_is_not_seen():
    answers = [reply(503, retry_after="3"), reply(200, "<html>"), reply(200, '{"a": 1}')]
    async with serving(lambda request: answers.pop(0)) as server, door(server.url) as opened:
        assert await opened.client.get_json(["runs"]) == {"a": 1}
        assert opened.slept[0] == 3.0


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        (204, SourceUnavailable, ATTEMPTS),
        (206, SourceUnavailable, ATTEMPTS),
        (400, RunUnreadable, 1),
        (402, SourceUnavailable, ATTEMPTS),
        (401, SourceRefused, 1),
        (403, SourceRefused, 1),
        (404, RunGone, 1),
        (405, RunUnreadable, 1),
        (407, SourceUnavailable, ATTEMPTS),
        (408, SourceUnavailable, ATTEMPTS),
        (410, RunGone, 1),
        (421, SourceUnavailable, ATTEMPTS),
        (422, RunUnreadable, 1),
        (423, SourceUnavailable, ATTEMPTS),
        (425, SourceUnavailable, ATTEMPTS),
        (429, SourceBusy, ATTEMPTS),
        (500, SourceUnavailable, ATTEMPTS),
        (502, SourceUnavailable, ATTEMPTS),
        (503, SourceUnavailable, ATTEMPTS),
        (504, SourceUnavailable, ATTEMPTS),
    ],
)
async def test_statuses(status: int, kind: type[RunspanError], requests: int):
    body = b"" if status == 204 else json.dumps({"error": BODY_CANARY}).encode()
    error, server, _ = await error_from(reply(status, body))
    assert type(error) is kind
    assert f"source acme: GET {server.url}/runs/r1 answered {status}" in str(error)
    assert len(server.requests) == requests
    if isinstance(error, RunUnreadable):
        assert error.retryable


@pytest.mark.parametrize(
    "answer",
    [
        *(reply(status, BODY_CANARY) for status in (200, 302, 400, 401, 404, 429, 500)),
        reply(200, f'{{"{BODY_CANARY}": 1', content_length=500, connection="close"),
        reply(200, f'["{BODY_CANARY}"]' + "x" * 2000),
        f"HTTP/1.1 {BODY_CANARY}\r\n\r\n".encode(),
        b"",
    ],
)
async def test_no_error_tells_a_key_a_parameter_or_a_body(answer: bytes):
    error, server, _ = await error_from(answer, max_body_bytes=1000, timeout_seconds=0.2)
    assert QUERY_CANARY in server.requests[0].target
    told = str(error) + "".join(traceback.format_exception(error))
    assert not [canary for canary in (KEY, BODY_CANARY, QUERY_CANARY) if canary in told]
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HTTP_PROXY": "foo://u:canary@h"}, "HTTP_PROXY"),
        ({"HTTP_PROXY": "http://h:1", "http_proxy": "foo://u:canary@h"}, "http_proxy"),
        ({"ALL_PROXY": "http://u:canary@h:x"}, "ALL_PROXY"),
        ({"HTTPS_PROXY": "foo://u:canary@h"}, None),
        ({"HTTP_PROXY": "foo://u:canary@h", "NO_PROXY": "a.example"}, None),
        ({"HTTP_PROXY": "h:3128"}, None),
    ],
)
def test_a_wrong_proxy_is_told_by_its_variable_alone(
    variables: dict[str, str], named: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if named is None:
        assert environment_proxy("http://a.example:1") in (None, "http://h:3128")
        return
    with pytest.raises(ConfigError) as refused:
        environment_proxy("http://a.example:1")
    assert str(refused.value) == f"the environment variable {named} is no proxy's URL: write http://host:port"


# Being told to wait


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": email.utils.formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": time.asctime(time.gmtime(NOW + 90))}, 90.0),
        ({"retry-after": time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(NOW + 90))}, 90.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, FOREVER_SECONDS),
        ({"retry-after": "999999999"}, 999999999.0),
        ({"retry-after": "1000000000000"}, FOREVER_SECONDS),
        ({"retry-after": "9" * 5000}, FOREVER_SECONDS),
        ({"retry-after-ms": "9" * 5000}, FOREVER_SECONDS),
        ({"retry-after-ms": "10000000000"}, 10_000_000.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
        ({"retry-after": "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"}, None),
        ({"retry-after": "Mon, 99 Abc 2026 99:99:99 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch):
    for zone in ("America/New_York", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert retry_after_seconds(headers, NOW) == seconds


async def test_refusals_slow_the_rate_down_and_it_comes_back():
    """Others may use the same quota, or it may be smaller than its page says."""
    answers = [reply(429, retry_after="0") for _ in range(2)] + [reply(200) for _ in range(40)]
    async with serving(lambda request: answers.pop(0)) as server:
        connection = Connection(server.url, timeout_seconds=5, max_body_bytes=1000)
        limiter = Limiter(OpenBudget(), "k", 1000)
        client = Client(connection, name="acme", limiter=limiter, headers=dict)
        with capture_logs() as logs:
            await client.get_json(["runs"])
        assert 1900 <= limiter.spacing_ns <= 2000, "one document counts once"
        for _ in range(39):
            await client.get_json(["runs"])
        assert limiter.spacing_ns == 1000
        await client.close()
    lowered = [entry for entry in logs if entry["action"] == "rate_lowered"]
    assert [(entry["log_level"], entry["source"]) for entry in lowered] == [("warning", "acme")]


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (200, {}, None),
        (200, {"ratelimit-remaining": "1", "ratelimit-reset": "60"}, None),
        (200, {"ratelimit-remaining": "0", "ratelimit-reset": "60"}, 60.0),
        (200, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "45s"}, 45.0),
        (200, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, 90.0),
        (200, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "250ms"}, 0.25),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 30)}, 30.0),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{int(NOW) + 30}000"}, 30.0),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "whenever"}, None),
        (200, {"ratelimit": "limit=10, remaining=0, reset=5"}, 5.0),
        (200, {"ratelimit": "limit=10, remaining=3, reset=5"}, None),
        (200, {"ratelimit": '"default";r=0;t=5'}, 5.0),
        (200, {"ratelimit": '"default";r=10;t=5'}, None),
        (200, {"ratelimit": "remaining=0"}, None),
        (429, {"ratelimit-remaining": "0", "ratelimit-reset": "60", "retry-after": "7"}, 7.0),
        (429, {"ratelimit-remaining": "0", "ratelimit-reset": "60"}, 60.0),
        (429, {}, 5.0),
        (429, {"retry-after": "999999999"}, 3600.0),
        (429, {"retry-after": "9" * 5000}, 3600.0),
        (200, {"ratelimit-remaining": "0", "ratelimit-reset": "9" * 5000}, 3600.0),
        (200, {"ratelimit-remaining": "0", "ratelimit-reset": "999999"}, 3600.0),
    ],
)
def test_the_platform_says_when_to_be_quiet(status: int, headers: dict[str, str], seconds: float | None):
    assert pause_asked(status, headers, NOW) == seconds


async def test_a_used_up_window_pauses_everybody_who_shares_it():
    spent = {"RateLimit-Remaining": "0", "RateLimit-Reset": "12"}
    async with serving(always(reply(200, b"{}", **spent))) as server, door(server.url) as opened:
        await opened.client.get_json(["runs"])
        assert opened.budget.pauses == [pytest.approx(12, abs=0.01)]


async def test_a_long_wait_is_left_to_the_caller_and_has_an_end():
    error, server, opened = await error_from(reply(429, retry_after="999999999"))
    assert isinstance(error, SourceUnavailable)
    assert error.retry_after_seconds == 3600
    assert opened.budget.pauses == [pytest.approx(3600, abs=0.01)]
    assert len(server.requests) == 1
    assert opened.slept == []


async def test_a_body_that_comes_slowly_holds_no_more_than_has_come():
    """Few platforms tell a size beforehand. Were it the largest one, two slow answers would stop every source."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    in_flight = InFlight(200_000_000)
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connection = Connection(url, timeout_seconds=30, max_body_bytes=100_000_000)

        async def ask() -> None:
            async with in_flight.hold():
                await connection.request("GET", "/run")

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: in_flight.held_bytes > 0)
        assert in_flight.held_bytes <= 3 * HELD_AT_ONCE_BYTES
        assert not in_flight.full
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await connection.close()
    assert in_flight.held_bytes == 0


@pytest.mark.parametrize("run_id", ["x" * 4001, "ä" * 700])
async def test_an_id_that_is_too_long_is_not_asked_for(run_id: str):
    with pytest.raises(RunUnreadable, match="4000 characters"):
        encode_path(["run", run_id])
    assert encode_path(["x" * 4000])
