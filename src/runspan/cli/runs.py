"""`runspan runs`."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from runspan.cli import screen
from runspan.cli.options import MOST_RUNS, ConfigFile, Since, Until, instant_ns, load_config
from runspan.ledger import Ledger, RowState, RunRow
from runspan.terminal import plain

STYLES = {RowState.EXPORTED: "green", RowState.QUARANTINED: "red", RowState.GONE: "yellow", RowState.EXPIRED: "yellow"}


def runs(
    config: ConfigFile,
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Only the run with this id.")] = None,
    source: Annotated[str | None, typer.Option(help="Only runs of this source.")] = None,
    state: Annotated[RowState | None, typer.Option(help="Only runs in this state.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent, by id or name.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="At most so many runs, the youngest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what the ledger knows of runs, and how many stand in which state."""
    loaded = load_config(config)
    with Ledger.open(loaded.ledger.url, read_only=True, must_exist=True) as ledger:
        if run_id is not None:
            rows = ledger.find(run_id)
        else:
            rows = ledger.runs(
                source=source,
                state=state,
                agent=agent,
                since_ns=instant_ns(since, "--since"),
                until_ns=instant_ns(until, "--until"),
                limit=limit,
            )
        counts = ledger.counts()
    if as_json:
        for row in rows:
            typer.echo(json.dumps(document(row)))
        return
    console = screen.output()
    console.print(_table(rows))
    totals: dict[RowState, int] = {}
    for count in counts:
        totals[count.state] = totals.get(count.state, 0) + count.rows
    console.print("in all: " + (", ".join(f"{number} {state.value}" for state, number in totals.items()) or "no runs"))


def _table(rows: list[RunRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "source", "agent", "state", "status", "started", "trace or reason"):
        table.add_column(column, overflow="fold")
    for row in rows:
        summary = row.summary
        agent = (summary and (summary.agent_name or summary.agent_id)) or row.ref.locator.agent_name or ""
        state = row.state.value + (" (retryable)" if row.state is RowState.QUARANTINED and row.retryable else "")
        table.add_row(
            plain(row.ref.run_id),
            row.source,
            plain(agent),
            Text(state, style=STYLES.get(row.state, "default")),
            (summary.error_type or summary.status) if summary else plain(row.raw_status or ""),
            _time(summary.started_ns if summary else row.ref.locator.created_ns),
            plain(row.reason or (summary.trace_id if summary else "") or ""),
        )
    return table


def _time(time_ns: int | None) -> str:
    return "" if time_ns is None else datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def document(row: RunRow) -> dict[str, Any]:
    """A row as `--json` prints it: one flat object."""
    told: dict[str, Any] = asdict(row)
    ref = told.pop("ref")
    locator = ref.pop("locator")
    summary: dict[str, Any] = told.pop("summary") or {}
    return {**ref, **locator, **told, **summary}
