"""HTTP as this program speaks it; the one module that imports httpx.

`Connection` is one pinned origin: redirects are never followed (a hop to another origin would carry `X-API-Key`
along), answers are capped before they are parsed, and the environment's proxies and CA bundle hold, which httpx by
itself forgets once it is given a transport.
"""

import asyncio
import contextlib
import ipaddress
import os
import re
import ssl
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport

from runspan.errors import ConfigError
from runspan.in_flight import Hold, current_hold
from runspan.origin import origin_of

log = structlog.get_logger()

USER_AGENT = "runspan"
LONGEST_HEADER_BYTES = 64 * 1024
"""Gateways with a content security policy of their own pass the 8 KiB that clients stand by default."""
HELD_AT_ONCE_BYTES = 64 * 1024
"""A body takes its share of memory by such pieces while it comes: few platforms tell its size beforehand, and one that
sends it slowly must not hold up others."""


class ConnectionFailed(Exception):
    """No answer came: DNS, connection, TLS, time-out, or it broke off.

    `tls`: a certificate or the handshake. `timed_out`: it was waited for as long as anything is.
    """

    def __init__(self, reason: str, *, tls: bool = False, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tls = tls
        self.timed_out = timed_out


class BodyTooLarge(Exception):
    """The answer's body passed the cap; it was not read to its end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read whole. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Answer(aiohttp.ClientResponse):
    """An answer without the words beside its status: nobody reads them, and httpx stands no other than ASCII."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        await super().start(connection)
        self.reason = None
        return self


async def _forget_location(response: httpx.Response) -> None:
    """httpx reads it also where it follows no redirect, and raises for what is no URL."""
    response.headers.pop("location", None)


class Connection:
    """One origin, spoken to over kept-alive connections.

    `timeout_seconds` bounds connecting and each pause between bytes; `total_seconds` bounds a whole request.
    `ca_file` replaces the trusted CAs; `client_cert` and `client_key` are PEM files for mutual TLS.
    Raises ConnectionFailed where a CA or client certificate cannot be loaded.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float,
        max_body_bytes: int,
        total_seconds: float = 300.0,
        ca_file: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(base_url)
        self.origin = origin_of(base_url)
        self.base_url = self.origin + parts.path.rstrip("/")
        self._max_body_bytes = max_body_bytes
        self._total_seconds = total_seconds
        context = _tls_context(ca_file, client_cert, client_key)
        proxy = environment_proxy(base_url)
        via = httpx.Proxy(proxy) if proxy else None
        self._way = f"through the proxy {via.url.netloc.decode()}: " if via else ""

        # Both httpx and aiohttp would carry one answer's cookies into the next request.
        def session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=100, ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_Answer,
                max_line_size=LONGEST_HEADER_BYTES,
                max_field_size=LONGEST_HEADER_BYTES,
            )

        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(verify=context, proxy=via, client=session),
            timeout=httpx.Timeout(timeout_seconds),
            headers={"user-agent": USER_AGENT},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            event_hooks={"response": [_forget_location]},
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
        on_answer: Callable[[], Awaitable[None]] | None = None,
    ) -> Reply:
        """One request, one answer. `path` is already encoded and goes behind the base URL's path.

        `on_answer` is awaited when the answer begins. A body that cannot be read hides no status but a good one: with
        any other it is taken for empty. Raises ConnectionFailed, BodyTooLarge.
        """
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        url = f"{self.base_url}{path}{query}"
        try:
            async with (
                asyncio.timeout(self._total_seconds) as deadline,
                self._client.stream(method, url, headers=dict(headers or {}), content=content) as response,
            ):
                if on_answer:
                    await on_answer()
                try:
                    body = await self._read(response, deadline)
                except (BodyTooLarge, httpx.HTTPError, aiohttp.ClientError):
                    if response.is_success:
                        raise
                    body = b""
                reply = Reply(response.status_code, dict(response.headers), body)
        except (httpx.HTTPError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            tls, timed_out = _is_tls(error), _is_timeout(error)
            raise ConnectionFailed(self._way + _describe(error), tls=tls, timed_out=timed_out) from None
        log.debug(
            f"{method} {self.base_url}{path} answered {reply.status}",
            action="request_answered",
            status=reply.status,
            body_bytes=len(reply.body),
        )
        return reply

    async def _read(self, response: httpx.Response, deadline: asyncio.Timeout) -> bytes:
        if "," in response.headers.get("content-encoding", ""):
            # Packed twice, a few kilobytes unpack to more than memory holds before the cap can see them.
            raise BodyTooLarge
        hold = current_hold()
        piece_bytes = min(HELD_AT_ONCE_BYTES, told_size(response.headers) or HELD_AT_ONCE_BYTES)
        chunks: list[bytes] = []
        size_bytes = held_bytes = kept_bytes = 0
        try:
            async for chunk in response.aiter_bytes():
                size_bytes += len(chunk)
                if size_bytes > self._max_body_bytes:
                    raise BodyTooLarge
                if hold and size_bytes > held_bytes:
                    missing_bytes = max(piece_bytes, size_bytes - held_bytes)
                    await _take(hold, missing_bytes, deadline)
                    held_bytes += missing_bytes
                chunks.append(chunk)
            kept_bytes = size_bytes
        finally:
            if hold:
                await hold.give_back(held_bytes - kept_bytes)
        return b"".join(chunks)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def told_size(headers: Mapping[str, str]) -> int | None:
    """How many bytes a body has by its headers; None where they do not say, or it is packed."""
    length = headers.get("content-length", "")
    is_packed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    return int(length) if re.fullmatch(r"\d{1,18}", length) and not is_packed else None


async def _take(hold: Hold, size_bytes: int, deadline: asyncio.Timeout) -> None:
    """Wait for room; that is no fault of the platform, so it does not count against its time."""
    loop, ends_at = asyncio.get_running_loop(), deadline.when()
    begun_at = loop.time()
    deadline.reschedule(None)
    await hold.take(size_bytes)
    deadline.reschedule(ends_at and ends_at + loop.time() - begun_at)


def _tls_context(ca_file: Path | None, client_cert: Path | None, client_key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context(trust_env=True)
        if client_cert:
            context.load_cert_chain(client_cert, client_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in (ca_file, client_cert, client_key) if file)
        # What Python raises of a file without a certificate or its key says neither.
        is_no_pem = isinstance(error, ssl.SSLError) and not error.reason
        why = "no certificate with its key in PEM form" if is_no_pem else _describe(error)
        raise ConnectionFailed(f"cannot load {files or 'SSL_CERT_FILE'}: {why}", tls=True) from None
    return context


def environment_proxy(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name for a URL's scheme and host, if any.

    Raises ConfigError for one that is no http(s) URL; it names the variable, never its value: that may hold a password.
    """
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    host = parts.hostname or ""
    # proxy_bypass honours NO_PROXY with and without a port, but knows no networks.
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(parts.netloc):
        return None
    if _is_in_network(host, proxies.get("no", "")):
        return None
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(kind)
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_proxy(proxy):
        # As urllib does: the variable in small letters goes before the one in capitals.
        variable = f"{kind}_proxy" if os.environ.get(f"{kind}_proxy") else f"{kind}_proxy".upper()
        raise ConfigError(f"the environment variable {variable} is no proxy's URL: write http://host:port")
    return proxy


def _is_in_network(host: str, networks: str) -> bool:
    """Whether a host is an address of one of the networks, such as `10.0.0.0/8,fd00::/8`; no name is looked up."""
    for network in networks.split(","):
        with contextlib.suppress(ValueError):
            if "/" in network and ipaddress.ip_address(host) in ipaddress.ip_network(network.strip(), strict=False):
                return True
    return False


def _is_proxy(url: str) -> bool:
    try:
        parts = httpx.Proxy(url).url
        _ = urllib.parse.urlsplit(url).port  # raises ValueError for what is too high
    except (httpx.InvalidURL, ValueError):
        return False
    return parts.scheme in ("http", "https") and bool(parts.host)


def _is_tls(error: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLError | aiohttp.ClientSSLError) for cause in _causes(error))


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _describe(error: BaseException) -> str:
    """What went wrong in a few words that hold no URL: libraries put query strings into their messages."""
    if _is_timeout(error):
        return "no answer in time"
    causes = [*_causes(error)]
    for cause in causes:
        # aiohttp's own kinds of SSLError lack both; one of their causes has them.
        words = getattr(cause, "verify_message", None) or getattr(cause, "reason", None)
        if isinstance(cause, ssl.SSLError) and words:
            return f"TLS: {words}"
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno) if cause.errno > 0 else "the name does not resolve"
    return {
        "DecodingError": "the answer is not packed as it says",
        "ReadError": "the answer broke off",
        "ConnectTimeout": "the connection broke off",
        "ClientResponseError": "the answer is not HTTP: is this the right port?",
    }.get(type(error).__name__, type(error).__name__)
