"""Standard output: a terminal, or a pipe that wants its lines whole."""

import sys

from rich.console import Console

PIPE_COLUMNS = 500
"""Nobody wants a folded id or reason in a pipe."""


def output() -> Console:
    """Standard output, as wide as the terminal; elsewhere wide enough that no line is folded.

    Ids and reasons come from outside: what looks like markup in them is text.
    """
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(width=width, markup=False, emoji=False, highlight=False)
