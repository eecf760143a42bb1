"""Options that several commands share, and the configuration behind `-c`."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import structlog
import typer

from runspan import logs
from runspan.config import Config, environment, loader
from runspan.errors import ConfigError
from runspan.quantities import Start
from runspan.sources import platforms

log = structlog.get_logger()

MOST_RUNS = 1_000_000_000
"""Of `--limit`: more than any ledger has, and a number that SQLite can hold."""

ConfigFile: TypeAlias = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The configuration.")]
OptionalConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="The configuration.")
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Runs created then or later: 2026-01-31, 2026-01-31T08:00:00Z, or 7d (ago)."),
]
Until: TypeAlias = Annotated[str | None, typer.Option(metavar="TIME", help="Runs created before then.")]


def instant_ns(text: str | None, option: str) -> int | None:
    """The instant that `--since` or `--until` names, in nanoseconds since the epoch. Raises ConfigError."""
    if text is None:
        return None
    try:
        return Start.parse(text).instant_ns(time.time_ns())
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def load_config(path: Path | None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """The configuration of this process, with logs set up as it says. Raises ConfigError.

    `overrides` are tables that flags set; they go before the file and the environment.
    """
    config = loader.load(path, platforms=platforms(), environ=os.environ, overrides=overrides)
    logs.set_up(config.log)
    for name in environment.unknown_variables(os.environ):
        log.warning(f"the environment variable {name} sets nothing", action="unknown_variable", variable=name)
    return config
