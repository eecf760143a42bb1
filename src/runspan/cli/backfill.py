"""`runspan backfill`."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from runspan import exits, files
from runspan.cli import screen
from runspan.cli.look import ledger_to_look_at
from runspan.cli.options import MOST_RUNS, ConfigFile, Since, Until, instant_ns, load_config
from runspan.config import Config
from runspan.errors import ConfigError
from runspan.ledger import Ledger
from runspan.model import Locator
from runspan.otlp.discard import DiscardExporter
from runspan.pipeline.assembly import pipeline
from runspan.pipeline.backfill import Backfill
from runspan.pipeline.report import Report
from runspan.pipeline.request import Request
from runspan.rate import MemoryBudget
from runspan.stop import on_signal
from runspan.terminal import plain

log = structlog.get_logger()

LOG_EVERY_SECONDS = 10.0
MAX_IDS_BYTES = 64 * 1024 * 1024
"""Over a million ids."""
MOST_LINES = 20
"""Of reasons, and of problems: each run may have its own."""


def backfill(
    config: ConfigFile,
    source: Annotated[str, typer.Option(help="The source whose runs to export.")],
    since: Since = None,
    until: Until = None,
    ids_file: Annotated[
        Path | None,
        typer.Option(help='Run ids, one a line: ID or {"id": …, "agent": …, "room": …}; - reads standard input.'),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fetch and project, but send and note nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=MOST_RUNS, help="At most so many runs.")] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also send runs that were exported before, or that the backend may not show."),
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every trace back by destination.query_url.")] = False,
) -> None:
    """Export the runs of a stretch of time, or those of a file; start it again to go on after a stop."""
    loaded = load_config(config)
    if since is None and ids_file is None:
        raise ConfigError("say what to backfill: --since INSTANT [--until INSTANT], or --ids-file FILE")
    if verify and dry_run:
        raise ConfigError("--verify reads back what was sent, and --dry-run sends nothing: leave one of them out")
    if verify and not loaded.destination.query_url:
        raise ConfigError("--verify reads traces back, so it needs destination.query_url in the configuration")
    since_ns, until_ns = instant_ns(since, "--since"), instant_ns(until, "--until")
    if since_ns is not None and until_ns is not None and until_ns <= since_ns:
        raise ConfigError(f"--until {until} is not after --since {since}: nothing lies between them")
    request = Request(
        since=since,
        until=until,
        since_ns=since_ns,
        until_ns=until_ns,
        ids=None if ids_file is None else read_ids(ids_file),
        limit=limit,
        force=force,
        verify=verify,
        dry_run=dry_run,
    )
    try:
        report = asyncio.run(_backfill(loaded, source, request))
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("stopped; start the same command again to go on", err=True)
        raise typer.Exit(exits.INTERRUPTED) from None
    screen.output().print(table(report, dry_run=dry_run))
    if not report.complete:
        raise typer.Exit(exits.INCOMPLETE)


async def _backfill(config: Config, name: str, request: Request) -> Report:
    this = asyncio.current_task()
    assert this is not None
    with ExitStack() as stack:
        # As asyncio does on Ctrl-C: what is under way is sent and marked first.
        stack.enter_context(on_signal(lambda _: this.cancel(), (signal.SIGTERM, signal.SIGHUP)))
        known_in = None
        if request.dry_run:
            # Only its rate budget is written: a platform counts these requests too.
            known_in = stack.enter_context(ledger_to_look_at(config.ledger.url))
        async with pipeline(
            config,
            stack.enter_context(Ledger.open("sqlite://" if request.dry_run else config.ledger.url)),
            only=name,
            budget=(known_in or MemoryBudget()) if request.dry_run else None,
            exporter=DiscardExporter() if request.dry_run else None,
        ) as assembled:
            with progress() as report_progress:
                job = Backfill(assembled, assembled.lines[0], request, known_in=known_in, on_progress=report_progress)
                report = await job.run()
                report_progress(report.listed - report.known, report.listed - report.known)
                return report


def read_ids(file: Path) -> tuple[tuple[str, Locator], ...]:
    """The ids of a file: bare, or as JSON objects with `id`, `agent`, `room`. Raises ConfigError with the line."""
    try:
        text = files.read_input(file, MAX_IDS_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read --ids-file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--ids-file {file} is not UTF-8 text") from None
    found: dict[str, Locator] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            where = f"--ids-file {file} line {number}"
            run_id, locator = _id_of(line.strip(), where)
            if not all(text.isprintable() for text in (run_id, locator.agent_id, locator.room) if text):
                raise ConfigError(f"{where}: holds control characters or broken ones, which no id can have")
            found[run_id] = locator
    if not found:
        raise ConfigError(f"--ids-file {file} holds no run id")
    return tuple(found.items())


def _id_of(line: str, where: str) -> tuple[str, Locator]:
    if not line.startswith(("{", '"')):
        return line, Locator()
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: not JSON; write a bare id, or an object with id, agent and room") from None
    if isinstance(entry, str):
        entry = {"id": entry}
    known = {name: entry.pop(name, None) for name in ("id", "agent", "room")}
    if entry or not known["id"] or not all(value is None or isinstance(value, str) for value in known.values()):
        raise ConfigError(f"{where}: write a bare id, or an object with id, agent and room, all of them texts")
    return cast("str", known["id"]), Locator(agent_id=known["agent"], room=known["room"])


@contextmanager
def progress() -> Generator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a log line every ten seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last_seconds = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last_seconds
        if time.monotonic() - last_seconds >= LOG_EVERY_SECONDS:
            last_seconds = time.monotonic()
            log.info("backfill goes on", action="backfill_progress", done=done, listed=total)

    yield tell


def table(report: Report, *, dry_run: bool) -> Table:
    """The closing table; lines that would say 0 are left out where they are not asked for."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(justify="right")
    drawn.add_column(overflow="fold")
    always = [
        (report.listed, "listed"),
        (report.exported, "would be exported" if dry_run else "exported"),
        (report.known, "already known"),
        (report.still_open, "still open"),
        (report.quarantined, "quarantined"),
    ]
    sometimes = [
        (report.skipped, "skipped"),
        (report.failing, "failing: start the same command again, or leave them to a daemon"),
        (report.gone, "gone"),
        (report.expired, "expired"),
        (report.unverified, "exported, but not shown by the backend"),
    ]
    for number, text in [*always, *(line for line in sometimes if line[0])]:
        drawn.add_row(str(number), text)
    reasons = sorted(report.reasons.items(), key=lambda counted: (-counted[1], counted[0]))
    for (state, reason), number in reasons[:MOST_LINES]:
        drawn.add_row(str(number), plain(f"{state.value}: {reason}"), style="dim")
    if others := sum(number for _, number in reasons[MOST_LINES:]):
        drawn.add_row(str(others), "for other reasons: runspan runs tells them", style="dim")
    for problem in report.problems[:MOST_LINES]:
        drawn.add_row("!", plain(problem), style="red")
    return drawn
