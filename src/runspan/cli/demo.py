"""`runspan demo`."""

import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from runspan import exits, logs
from runspan.cli.waterfall import print_trace
from runspan.config import LogConfig
from runspan.demo import bridge
from runspan.errors import SourceUnavailable
from runspan.otlp.file import writable_file
from runspan.paths import expanded


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop when all runs are exported, and draw one a platform.")
    ] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="An OTLP receiver, such as http://localhost:4318, in place of the file.")
    ] = None,
    protocol: Annotated[Literal["http/protobuf", "grpc"], typer.Option(help="With --endpoint.")] = "http/protobuf",
    output: Annotated[Path, typer.Option(help="The file of OTLP JSON lines to write.")] = Path("demo-traces.jsonl"),
    listen: Annotated[str, typer.Option(help="Where the status page is; port 0 takes a free one.")] = "127.0.0.1:0",
) -> None:
    """Simulate the four platforms and run the bridge beside them: every finished run becomes a trace."""
    logs.set_up(LogConfig())
    destination: dict[str, Any] = (
        {"protocol": protocol, "endpoint": endpoint} if endpoint else {"protocol": "file", "endpoint": str(output)}
    )
    if endpoint is None:
        writable_file(expanded(str(output)))
    shown = bridge.Shown()
    ended_by = asyncio.run(_demo(destination, listen, shown, once=once))
    console = Console()
    if once:
        for trace in shown.traces.values():
            console.print(f"\n[bold]{trace.ref.platform}[/bold]")
            print_trace(trace)
    typer.echo(f"\n{shown.runs} runs became traces in {endpoint or output}")
    if ended_by is signal.SIGINT:
        raise typer.Exit(exits.INTERRUPTED)
    if shown.missing:
        raise SourceUnavailable("not every run could be exported in time; the log above says why")


async def _demo(destination: dict[str, Any], listen: str, shown: bridge.Shown, *, once: bool) -> signal.Signals | None:
    with tempfile.TemporaryDirectory(prefix="runspan-demo-") as folder:
        async with bridge.simulated() as simulator:
            config = bridge.configure(simulator, destination, Path(folder), listen)
            print("simulated platforms:", ", ".join(simulator.urls.values()), file=sys.stderr)
            return await bridge.run(config, simulator, shown, once=once)
