"""The command line: one module per command, named as the command is.

A command's module is imported when the command runs, not before, so that `--help` answers at once.
"""

import contextlib
import errno
import importlib
import importlib.metadata
import io
import logging
import os
import resource
import sys
import traceback
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from runspan import exits
from runspan.errors import RunspanError, said
from runspan.secrets import mask
from runspan.terminal import plain

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

MOST_OPEN_FILES = 65_536
_OUTPUT_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What standard output fails with where it is a file. Files of our own have errors of their own."""


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
    _open_missing_streams()
    _print_what_can_be()
    _set_limits()
    code = _run()
    lost = _lost(sys.stdout)
    if lost and not isinstance(lost, BrokenPipeError):
        _say(_cannot_print(lost))
    _lost(sys.stderr)
    sys.exit(code or (exits.INCOMPLETE if lost else 0))


def _run() -> int:
    """Run the command, say what went wrong, and return the exit code."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except RunspanError as error:
        # Names from the command line and paths stand in it as they were given.
        _say("\n".join(plain(line) for line in mask(str(error)).split("\n")))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; a complaint would be noise.
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_FULL and error.filename is None:
            _lost(sys.stdout)
            _say(_cannot_print(error))
        else:
            # As Python would, but without the error's own words, which may be a body's.
            _say("".join([*traceback.format_tb(error.__traceback__), said(error)]))
        return 1
    return 0


def _open_missing_streams() -> None:
    """Give standard streams that were closed (`>&-`) to /dev/null: whoever closed them wants to hear nothing."""
    # In this order each gets its own number again, so that no ledger or socket becomes what libraries write to.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _print_what_can_be() -> None:
    """Print a `?`, which keeps columns, for what the encoding of standard output lacks, rather than fail."""
    # Standard error never fails so; but what stands for a closed one is a file like others.
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _set_limits() -> None:
    # A core dump would hold every key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Many connections to the status page, half-open ones too, must leave some for the exports.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # A system may allow fewer than it says; then it stays as it was.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _say(text: str) -> None:
    """One message on standard error, behind the logs; where that cannot be written, there is nobody to tell."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _cannot_print(error: OSError) -> str:
    return f"cannot write standard output: {error.strerror}; what was printed is not whole, give it a place with room"


def _lost(stream: TextIO) -> OSError | None:
    """Why the rest of what was printed cannot be written; None where it has been."""
    try:
        stream.flush()
    except OSError as error:
        # Python would try again at its exit, complain by itself, and end with 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return error
    return None
