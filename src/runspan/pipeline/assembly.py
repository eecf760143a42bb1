"""From a configuration to a pipeline that can run: sources, outbox and destination, wired once for every command."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from runspan import otlp
from runspan.config import Config, ContentConfig, PricesConfig, SourceConfig
from runspan.errors import ConfigError
from runspan.http import Connection, ConnectionFailed
from runspan.in_flight import InFlight
from runspan.ledger import Ledger, RowState
from runspan.otlp.base import Exporter
from runspan.otlp.delivery import Delivery
from runspan.otlp.presets import preset_for
from runspan.pipeline.age import OldRuns, age_limit
from runspan.pipeline.line import Health, Line
from runspan.pipeline.outbox import Outbox, Parcel
from runspan.projection.capture import ContentRules, KeyRules
from runspan.projection.prices import ModelPrice, Prices
from runspan.projection.settings import ProjectionSettings
from runspan.published_prices import published
from runspan.rate import Budget, Limiter, jitter_seconds, spacing_ns
from runspan.sources import registry
from runspan.sources.base import Source
from runspan.sources.client import LONGEST_INLINE_WAIT_SECONDS, Client

SOURCE_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything that a run passes on its way, ready to be driven by a daemon or a backfill."""

    config: Config
    ledger: Ledger
    lines: Sequence[Line]
    outbox: Outbox
    now: Callable[[], int]


@asynccontextmanager
async def pipeline(
    config: Config,
    ledger: Ledger,
    *,
    budget: Budget | None = None,
    only: str | None = None,
    exporter: Exporter | None = None,
    on_marked: Callable[[Parcel, RowState], None] = lambda parcel, state: None,
    now: Callable[[], int] = time.time_ns,
) -> AsyncGenerator[Pipeline]:
    """A pipeline over the configured sources (or `only` the one of that name), closed at the end.

    `budget` takes the ledger's place where none may be written. `exporter` takes the destination's place. Raises
    ConfigError for a source that does not exist, a destination that cannot be, or a tenant that has changed.
    """
    chosen = [select(config, only)] if only else list(config.source)
    async with AsyncExitStack() as stack:
        lines: list[Line] = []
        for source_config in chosen:
            stopping = asyncio.Event()
            source, limiter = open_source(config, source_config, budget or ledger, now=now, stopping=stopping)
            stack.push_async_callback(source.http.close)
            ledger.pin_tenant(source_config.name, source.platform, source.tenant)
            lines.append(
                Line(
                    source=source,
                    config=source_config,
                    projection=projection_settings(config, source_config),
                    open_limiter=limiter,
                    listing=Health(source_config.name, "lists", now),
                    fetching=Health(source_config.name, "runs", now),
                    retention=config.ledger.retention,
                    stopping=stopping,
                )
            )
        if exporter is None:
            exporter = otlp.exporter(config.destination)
        stack.push_async_callback(exporter.close)
        outbox = Outbox(
            ledger,
            Delivery(exporter, now_ns=now),
            now=now,
            in_flight=InFlight(config.limits.max_in_flight),
            old_runs=OldRuns(age_limit(config.destination), now),
            on_marked=on_marked,
        )
        yield Pipeline(config, ledger, lines, outbox, now)


def select(config: Config, name: str) -> SourceConfig:
    """The source of that name. Raises ConfigError with the names there are."""
    for source in config.source:
        if source.name == name:
            return source
    names = ", ".join(source.name for source in config.source) or "none"
    raise ConfigError(f"no source is named {name} (configured: {names})")


def open_source(
    config: Config,
    source_config: SourceConfig,
    budget: Budget,
    *,
    now: Callable[[], int] = time.time_ns,
    stopping: asyncio.Event | None = None,
) -> tuple[Source, Limiter]:
    """The source with its door opened, and the limiter for its open runs (half the rate, out of the whole)."""
    kind = registry()[source_config.platform]
    try:
        connection = Connection(
            source_config.base_url,
            timeout_seconds=SOURCE_TIMEOUT_SECONDS,
            max_body_bytes=config.limits.max_body,
        )
    except ConnectionFailed as failed:
        raise ConfigError(f"source {source_config.name}: {failed.reason}") from None
    key = f"{kind.platform} {source_config.tenant_or_origin}"
    interval_ns = spacing_ns(source_config.rate)
    secret = source_config.api_key

    def headers() -> Mapping[str, str]:
        return kind.auth_headers(secret.reveal() if secret else None)

    limiter = Limiter(
        budget,
        key,
        interval_ns,
        jitter_ns=int(jitter_seconds(source_config.rate) * 1e9),
        longest_pause_seconds=LONGEST_INLINE_WAIT_SECONDS,
        over=stopping,
        now=now,
    )
    client = Client(connection, name=source_config.name, limiter=limiter, headers=headers)
    of_open = Limiter(budget, f"{key} open", interval_ns * 2, pace_of=limiter, over=stopping, now=now)
    return kind(source_config, client), of_open


def projection_settings(config: Config, source_config: SourceConfig) -> ProjectionSettings:
    """What the traces of one source depend on besides the runs themselves."""
    destination, content = config.destination, source_config.content_over(config.content)
    return ProjectionSettings(
        source=source_config.name,
        service_name=config.resource.service_name,
        service_namespace=config.resource.service_namespace,
        resource=config.resource.attributes,
        currency=source_config.currency,
        cancelled_is_error=source_config.cancelled_is_error,
        capture_content=content.capture,
        content=content_rules(content),
        prices=prices(config.prices),
        credit_rate=source_config.credit_rate,
        agent_names=source_config.agent_names,
        preset=preset_for(destination.preset, protocol=destination.protocol, conventions=destination.conventions),
    )


def content_rules(content: ContentConfig) -> ContentRules:
    """What `[content]` lets through."""
    return ContentRules(
        prompts=content.prompts,
        messages=content.messages,
        reasoning=content.reasoning,
        arguments=content.arguments,
        results=content.results,
        logs=content.logs,
        keys=KeyRules(
            allowed=frozenset(key.casefold() for key in content.allow_keys),
            denied=frozenset(key.casefold() for key in content.deny_keys),
        ),
        masks=content.mask,
        max_bytes=content.max_bytes,
    )


def prices(config: PricesConfig) -> Prices:
    """The prices of `[prices]`. Raises ConfigError where those of a package are wanted that is not there."""
    table = {
        model: ModelPrice(
            currency=price.currency or config.currency,
            input=price.input,
            output=price.output,
            cache_read=price.cache_read,
            cache_write=price.cache_write,
            reasoning=price.reasoning,
        )
        for model, price in config.models.items()
    }
    return Prices(table=table, published=published(config.use))
