"""The command line: one module per command, named as the command is.

A command's module is imported when the command runs, not before, so that `--help` answers at once.
"""

import importlib
import importlib.metadata
import resource
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from runspan.errors import ConfigError, DeliveryRefused, LedgerUnusable, RunspanError, SourceUnavailable, said
from runspan.secrets import mask

COMMANDS = {
    "demo": "Simulate the four platforms with the bridge beside them.",
    "init": "Write a commented configuration.",
    "check": "Try the configuration: keys, endpoints, ledger.",
    "run": "Run the daemon.",
    "backfill": "Export the runs of a stretch of time.",
    "show": "Draw one run as a trace; nothing is exported.",
    "runs": "List what the ledger knows.",
    "retry": "Put quarantined runs back in line.",
    "id": "Print the trace id that a run has.",
    "schema": "Print the configuration's JSON schema.",
}
"""Each is the function of its own name in the module `runspan.cli.<name>`."""

EXIT_CODES: dict[type[RunspanError], int] = {
    ConfigError: 2,
    SourceUnavailable: 3,
    DeliveryRefused: 3,
    LedgerUnusable: 4,
}
EXIT_INCOMPLETE = 1
"""Some runs were quarantined, gone or expired."""
EXIT_INTERRUPTED = 130


class _Commands(TyperGroup):
    """Lists the commands without importing them; imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        module = importlib.import_module(f"runspan.cli.{name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(name)(getattr(module, str(name)))
        return name, typer.main.get_command(single), rest


app = typer.Typer(cls=_Commands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"runspan {importlib.metadata.version('runspan')}")
        raise typer.Exit


@app.callback()
def _runspan(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finished AI agent runs as OpenTelemetry traces: one run, one trace, never lost, never doubled."""


def main() -> None:
    """The program `runspan`."""
    # A core dump would hold every key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        app()
    except RunspanError as error:
        print(mask(str(error)), file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; a second complaint at exit would be noise.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        # As Python would, but without the error's own words, which may be a body's.
        traceback.print_tb(error.__traceback__)
        print(said(error), file=sys.stderr)
        sys.exit(1)


def exit_code(error: RunspanError) -> int:
    """What the program ends with after this error; 1 for one that concerns a single run."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), EXIT_INCOMPLETE)
