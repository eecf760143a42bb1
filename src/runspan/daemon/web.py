"""The daemon's window: /healthz, /readyz, /metrics and a page for people. It only shows; nothing here accepts data."""

import asyncio
import contextlib
import html
import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from runspan.config import WebConfig, is_loopback
from runspan.daemon.connection import MOST_CONNECTIONS, Connection
from runspan.errors import ConfigError, said
from runspan.ledger import Count
from runspan.metrics import Metrics
from runspan.pipeline.assembly import Pipeline

log = structlog.get_logger()

MOST_REASONS = 5
"""Shown of each state."""

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<title>runspan</title><style>body{{font:15px system-ui;margin:2rem}}table{{border-collapse:collapse}}
td,th{{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}}.bad{{color:#b00}}</style></head><body>
<h1>runspan</h1><p>Destination <code>{endpoint}</code>: {destination}</p>
<table><tr><th>source</th><th>platform</th><th>state</th><th>last answer</th><th>runs</th></tr>{rows}</table>
</body></html>"""


HEADERS = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
    ("connection", "close"),
]
"""Of every answer: names of agents and reasons of errors are on the page, and come from outside. One on each
connection: answers to requests that were sent all at once would pile up for a peer that reads none."""

Endpoint = Callable[[Request], Awaitable[Response]]


@contextlib.asynccontextmanager
async def serve(config: WebConfig, pipeline: Pipeline, metrics: Metrics) -> AsyncGenerator[str]:
    """Serve while the context lasts; gives the page's URL. Raises ConfigError where the address cannot be had."""
    settings = uvicorn.Config(
        app(pipeline, metrics, only_local=is_loopback(config.host)),
        host=config.host,
        port=config.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        headers=HEADERS,
        http=Connection,
        backlog=MOST_CONNECTIONS,
    )
    server = _Server(settings)
    try:
        socket = settings.bind_socket()
        socket.listen()  # the URL is told before the server's task has run
    except SystemExit as ended:
        # So uvicorn ends what it is told by the system.
        why = getattr(ended.__context__, "strerror", None) or "it cannot be had"
        raise ConfigError(
            f"web.listen: cannot listen on {config.listen} ({why}): write an address of this machine and a free port"
        ) from None
    serving = asyncio.create_task(server.serve(sockets=[socket]))
    try:
        host = f"[{config.host}]" if ":" in config.host else config.host
        yield f"http://{host}:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the daemon stops in one place and in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def app(pipeline: Pipeline, metrics: Metrics, *, only_local: bool) -> Starlette:
    """The ASGI application. `only_local`: it answers to names of this machine alone."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        troubles = list(_troubles(pipeline))
        return JSONResponse({"ready": not troubles, "troubles": troubles}, status_code=503 if troubles else 200)

    async def show_metrics(request: Request) -> Response:
        text, media_type = await asyncio.to_thread(metrics.expose, request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    async def status(request: Request) -> Response:
        return HTMLResponse(await asyncio.to_thread(_page, pipeline))

    paths = {"/": status, "/healthz": healthz, "/readyz": readyz, "/metrics": show_metrics}
    made = Starlette(
        routes=[Route(path, _guarded(endpoint, only_local=only_local)) for path, endpoint in paths.items()]
    )
    made.router.redirect_slashes = False  # the address would be made of the request's Host
    return made


def _guarded(endpoint: Endpoint, *, only_local: bool) -> Endpoint:
    async def answer(request: Request) -> Response:
        # A page of a stranger can let its own name mean 127.0.0.1, and would then read ours (DNS rebinding).
        if only_local and not _is_local(request.headers.get("host", "localhost")):
            return PlainTextResponse("this is for localhost alone: see [web] listen\n", status_code=403)
        try:
            return await endpoint(request)
        except Exception as error:
            log.error(said(error), action="page_failed", path=request.url.path)
            return PlainTextResponse("this failed; the log says why\n", status_code=500)

    return answer


def _is_local(host: str) -> bool:
    try:
        return is_loopback(urllib.parse.urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _troubles(pipeline: Pipeline) -> Iterator[str]:
    delivery = pipeline.outbox.delivery
    if not delivery.healthy:
        yield f"destination: {delivery.last_error}"
    for line in pipeline.lines:
        if failing := line.failing:
            yield f"source {line.name}: {failing.last_error}"
        elif line.source.lists and line.listing.last_success_ns is None:
            yield f"source {line.name}: not read yet"


def _page(pipeline: Pipeline) -> str:
    counts = _counts(pipeline.ledger.counts())
    rows: list[str] = []
    for line in pipeline.lines:
        failing = line.failing
        state = f'<span class="bad">{html.escape(failing.last_error or "")}</span>' if failing else "well"
        answered = _instant(line.last_success_ns)
        runs = html.escape(counts.get(line.name, "none yet"))
        cells = (html.escape(line.name), line.source.platform, state, answered, runs)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    delivery = pipeline.outbox.delivery
    destination = "well" if delivery.healthy else f'<span class="bad">{html.escape(delivery.last_error or "")}</span>'
    endpoint = html.escape(pipeline.config.destination.endpoint)
    return PAGE.format(endpoint=endpoint, destination=destination, rows="".join(rows))


def _counts(counts: Sequence[Count]) -> dict[str, str]:
    """By source, how many of its runs stand where; of the reasons, of which each run may have its own, the first."""
    by_state: dict[tuple[str, str], list[Count]] = {}
    for count in counts:
        by_state.setdefault((count.source, count.state.value), []).append(count)
    words: dict[str, list[str]] = {}
    for (source, state), of_state in sorted(by_state.items()):
        of_state.sort(key=lambda count: -count.rows)
        numbers = [f"{count.rows} " if len(of_state) > 1 else "" for count in of_state]
        shown = list(zip(numbers, of_state, strict=True))[:MOST_REASONS]
        reasons = [f"{number}{count.reason}" for number, count in shown if count.reason]
        if len(of_state) > MOST_REASONS:
            reasons.append("...")
        told = f" ({'; '.join(reasons)})" if reasons else ""
        words.setdefault(source, []).append(f"{sum(count.rows for count in of_state)} {state}{told}")
    return {source: ", ".join(some) for source, some in words.items()}


def _instant(time_ns: int | None) -> str:
    return "-" if time_ns is None else datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
