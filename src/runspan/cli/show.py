"""`runspan show`."""

import asyncio
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from runspan import files
from runspan.cli.look import ledger_to_look_at
from runspan.cli.options import OptionalConfigFile, load_config
from runspan.cli.waterfall import print_trace
from runspan.config import Config, loader
from runspan.document import parsed
from runspan.errors import ConfigError
from runspan.model import Json, Locator, Run, RunBody, RunRef, RunStatus
from runspan.otlp.encode import encode
from runspan.otlp.file import otlp_json
from runspan.pipeline.assembly import open_source, projection_settings, select
from runspan.projection import project
from runspan.projection.settings import ProjectionSettings
from runspan.rate import MemoryBudget
from runspan.sources import platforms
from runspan.sources.answers import unwrapped
from runspan.terminal import plain
from runspan.trace import Trace

MAX_FILE_BYTES = 128_000_000
"""As much as all the bodies of one run may have together."""
SELF_HOSTED = "http://localhost:3000"
ID_NAMES = ("runId", "executionId", "id")
"""Under which of these names the vendors' answers hold the run's id: at the top, in an envelope, in its summary."""


class Format(StrEnum):
    """How a trace is printed."""

    WATERFALL = "waterfall"
    OTLP_JSON = "otlp-json"


def show(
    config: OptionalConfigFile = None,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run's id.")] = None,
    source: Annotated[str | None, typer.Option(help="The source that has the run.")] = None,
    agent: Annotated[str | None, typer.Option(help="The run's agent, where its platform wants to know.")] = None,
    room: Annotated[str | None, typer.Option(help="The run's room (elizaOS).")] = None,
    platform: Annotated[str | None, typer.Option(help="With --file: the platform the body came from.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A platform's answer, or all of a run by name; - for stdin.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the trace.")] = Format.WATERFALL,
) -> None:
    """Draw one run as the trace it becomes, fetched from a source or read from a file; nothing is exported."""
    if file is not None:
        if platform is None:
            raise ConfigError(f"--file needs --platform: one of {', '.join(platforms())}")
        trace = of_file(file, platform, run)
    elif run is None or source is None or config is None:
        raise ConfigError("name a run with -c FILE --source NAME RUN, or a body with --platform NAME --file FILE")
    else:
        trace = asyncio.run(_fetched(load_config(config), source, run, Locator(agent_id=agent, room=room)))
    if form is Format.OTLP_JSON:
        typer.echo(json.dumps(otlp_json(encode(trace).payload), indent=2))
    else:
        print_trace(trace)


def of_file(file: Path, platform: str, run_id: str | None = None) -> Trace:
    """The trace of a bare vendor body. Raises ConfigError for what is no JSON, RunUnreadable for what is no run."""
    try:
        document = parsed(files.read_input(file, MAX_FILE_BYTES))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{file} is not JSON: give a platform's answer for one run") from None
    known = platforms()
    if platform not in known:
        raise ConfigError(f"unknown platform {platform}; known are {', '.join(known)}")
    account = {"name": platform, "platform": platform, "base_url": known[platform].default_base_url or SELF_HOSTED}
    config = loader.load(None, platforms=known, environ={}, overrides={"source": [account]})  # pyright: ignore[reportArgumentType]
    source, _ = open_source(config, config.source[0], MemoryBudget())
    documents = _documents(document)
    known_id = run_id or _id_in(documents["detail"])
    if known_id is None:
        told = "the body does not tell the run's id, so the ids shown are not those it is exported with: name it as RUN"
        typer.echo(told, err=True)
    run = source.read(RunBody(RunRef(platform, source.tenant, known_id or "unknown"), documents))
    _warn(run)
    return project(run, ProjectionSettings(source=platform))


def _warn(run: Run) -> None:
    """Say why this trace is not, or not yet, one that would be exported."""
    if run.status is RunStatus.OPEN:
        typer.echo(plain(f"the run has not ended yet ({run.raw_status}); this is what there is of it"), err=True)
    elif run.skip_reason is not None:
        typer.echo(plain(f"the run would be skipped: {run.skip_reason}"), err=True)


def _documents(document: Json) -> Mapping[str, Json]:
    """A bare body; or all documents of a run by their names, `detail`, `tools` and `tool/<id>`."""
    if isinstance(document, dict) and "detail" in document:
        named = cast("dict[str, Json]", document)
        if all(name in ("detail", "tools") or name.startswith("tool/") for name in named):
            return named
    return {"detail": document}


def _id_in(detail: Json) -> str | None:
    body = unwrapped(detail)
    fields: dict[str, Json] = cast("dict[str, Json]", body) if isinstance(body, dict) else {}
    for holder in (fields.get("summary"), fields):
        for name in ID_NAMES:
            found = cast("dict[str, Json]", holder).get(name) if isinstance(holder, dict) else None
            if isinstance(found, str) and found:
                return found
    return None


async def _fetched(config: Config, name: str, run_id: str, locator: Locator) -> Trace:
    source_config = select(config, name)
    settings = projection_settings(config, source_config)
    with ledger_to_look_at(config.ledger.url) as ledger:
        # A look counts against the same quota as the daemon's requests.
        source, _ = open_source(config, source_config, ledger or MemoryBudget())
        if ledger and locator == Locator():
            known = [
                row.ref for row in ledger.find(run_id) if row.ref == RunRef(source.platform, source.tenant, run_id)
            ]
            locator = known[0].locator if known else locator
        try:
            ref = RunRef(source.platform, source.tenant, run_id, locator)
            body = await source.fetch(ref, with_content=settings.tool_content)
        finally:
            await source.http.close()
    run = source.read(body)
    _warn(run)
    return encode(project(run, settings), trace_bytes=settings.preset.trace_bytes).trace
