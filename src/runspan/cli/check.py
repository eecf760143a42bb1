"""`runspan check`."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from typing import Annotated

import typer

from runspan import otlp
from runspan.cli.options import ConfigFile, load_config
from runspan.config import Config, DestinationConfig, LedgerConfig, SourceConfig
from runspan.errors import DeliveryRefused, LedgerOlder, LedgerUnusable, RunGone, RunspanError, RunUnreadable
from runspan.ledger import Ledger
from runspan.ledger.store import is_there, is_writable, path_of
from runspan.model import Locator, RunRef
from runspan.otlp.base import AnswerKind
from runspan.otlp.encode import encode
from runspan.otlp.file import writable_file
from runspan.paths import expanded
from runspan.pipeline.assembly import open_source
from runspan.projection import ids
from runspan.published_prices import published
from runspan.rate import Budget, MemoryBudget
from runspan.readback import wait_for_trace
from runspan.secrets import Secret
from runspan.sources.base import Window
from runspan.terminal import plain
from runspan.trace import Span, SpanKind, Trace

PATIENCE_SECONDS = 30.0
"""How long a backend may take to show a trace that it took."""
LOOK_BACK_NS = 60 * 1_000_000_000
"""One page of a list is asked for, and it is to be a short one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried, what came of it, and the error if it failed."""

    what: str
    detail: str
    error: RunspanError | None = None


def check(
    config: ConfigFile,
    send_test_trace: Annotated[
        bool, typer.Option("--send-test-trace", help="Send a small trace, and read it back where query_url is set.")
    ] = False,
) -> None:
    """Try the configuration: its secrets, every source and its key, the destination, the ledger. Changes nothing."""
    settings = load_config(config)
    remark = "" if settings.source else ", but has no [[source]]"
    findings = [Finding("config", f"{config} is sound{remark}")]
    findings += asyncio.run(_try_all(settings, send_test_trace=send_test_trace))
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = typer.style("failed", fg="red") if finding.error else typer.style("ok    ", fg="green")
        typer.echo(f"{mark}  {finding.what:<{width}}  {plain(str(finding.error or finding.detail))}")
    raise typer.Exit(max((finding.error.exit_code for finding in findings if finding.error), default=0))


async def _try_all(config: Config, *, send_test_trace: bool) -> list[Finding]:
    with _budget(config) as budget:
        trials = [
            _try("ledger", asyncio.to_thread(_ledger, config.ledger)),
            _try("destination", _destination(config.destination)),
        ]
        if config.web.token:
            trials.append(_try("web token", asyncio.to_thread(_secret, config.web.token)))
        if config.prices.use:
            trials.append(_try("prices", asyncio.to_thread(_prices, config.prices.use)))
        trials += [_try(f"source {source.name}", _source(config, source, budget)) for source in config.source]
        findings = list(await asyncio.gather(*trials))
        if send_test_trace:
            findings.append(await _try("test trace", _test_trace(config.destination)))
        return findings


@contextlib.contextmanager
def _budget(config: Config) -> Generator[Budget]:
    """The ledger's where there is one, so that our questions count against the same quota as the daemon's."""
    with contextlib.ExitStack() as stack:
        ledger = None
        # What is wrong with the ledger has a line of its own.
        with contextlib.suppress(LedgerUnusable):
            ledger = stack.enter_context(Ledger.open_if_there(config.ledger.url))
        yield ledger or MemoryBudget()


async def _try(what: str, trial: Awaitable[str]) -> Finding:
    try:
        return Finding(what, await trial)
    except RunspanError as error:
        return Finding(what, "", error)


def _secret(secret: Secret) -> str:
    secret.reveal()
    return f"{secret.reference} is there"


def _prices(wanted: str) -> str:
    published(wanted)
    return f"{wanted} is installed"


def _ledger(config: LedgerConfig) -> str:
    path = path_of(config.url)
    if path and not is_there(path):
        folder = next(parent for parent in path.parents if parent.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise LedgerUnusable(f"{path} does not exist, and this user cannot create it in {folder}")
        return f"{path} does not exist yet: the first start creates it"
    if path and not is_writable(path):
        raise LedgerUnusable(f"{path} cannot be written by this user")
    try:
        with Ledger.open(config.url, read_only=True) as ledger:
            return f"{ledger.path or config.url} is sound"
    except LedgerOlder:
        return f"{path} is sound, and of an older runspan: the next start brings it up to date"


async def _destination(config: DestinationConfig) -> str:
    config.revealed_headers()
    if config.protocol == "file":
        return writable_file(expanded(config.endpoint))
    exporter = otlp.exporter(config)
    try:
        answer = await exporter.send(())
    finally:
        await exporter.close()
    if answer.kind is not AnswerKind.ACCEPTED:
        raise DeliveryRefused(answer.reason)
    return f"{config.protocol} {config.endpoint} takes requests"


async def _source(config: Config, source_config: SourceConfig, budget: Budget) -> str:
    if source_config.api_key:
        source_config.api_key.reveal()
    source, _ = open_source(config, source_config, budget)
    origin = source.http.origin
    try:
        if not source.lists:
            ref = RunRef(source.platform, source.tenant, "runspan-check", Locator())
            # Whoever is let in is told that there is no such run.
            with contextlib.suppress(RunGone, RunUnreadable):
                await source.fetch(ref)
            return f"{source.platform} {origin} takes the key; it has no list, so run ids must be given"
        scopes = (await source.scopes()).found
        for scope in scopes[:1]:
            await source.page(scope, Window(time.time_ns() - LOOK_BACK_NS), None)
        agents = sum(1 for scope in scopes if scope.key)
        return f"{source.platform} {origin} takes the key" + (f", {agents} agents" if agents else "")
    finally:
        await source.http.close()


async def _test_trace(destination: DestinationConfig) -> str:
    now_ns = time.time_ns()
    ref = RunRef("runspan", "check", str(now_ns))
    trace_id = ids.trace_id(ref.platform, ref.tenant, ref.run_id)
    root_id = ids.root_span_id(trace_id)
    root = Span(
        span_id=root_id,
        parent_id=None,
        name="runspan check",
        kind=SpanKind.CLIENT,
        start_ns=now_ns - 1_000_000_000,
        end_ns=now_ns,
        attributes={"runspan.run.id": ref.run_id},
    )
    child = Span(
        span_id=ids.span_id(trace_id, ("child",)),
        parent_id=root_id,
        name="a span inside it",
        kind=SpanKind.INTERNAL,
        start_ns=now_ns - 800_000_000,
        end_ns=now_ns - 200_000_000,
        attributes={"runspan.run.id": ref.run_id},
    )
    trace = Trace(ref=ref, trace_id=trace_id, resource={"service.name": "runspan-check"}, spans=(root, child))
    exporter = otlp.exporter(destination)
    try:
        answer = await exporter.send([encode(trace)])
    finally:
        await exporter.close()
    if answer.kind is not AnswerKind.ACCEPTED:
        raise DeliveryRefused(answer.reason)
    url = destination.url_of_trace(trace_id) or ""
    if destination.query_url is None:
        return f"{trace_id.hex()} taken, not read back: query_url is not set {url}".rstrip()
    if not await wait_for_trace(destination, trace_id, patience_seconds=PATIENCE_SECONDS):
        raise DeliveryRefused(
            f"{trace_id.hex()} was taken, but {destination.query_url} does not show it within {PATIENCE_SECONDS:g} s"
        )
    return f"{trace_id.hex()} taken and read back {url}".rstrip()
