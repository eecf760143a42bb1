"""`runspan run`."""

import asyncio
import signal

import typer

from runspan import exits
from runspan.cli.options import ConfigFile, load_config
from runspan.daemon import daemon
from runspan.errors import ConfigError
from runspan.ledger import Ledger


def run(config: ConfigFile) -> None:
    """Poll the configured sources and export each finished run once, until stopped."""
    loaded = load_config(config)
    if not loaded.source:
        raise ConfigError(f"{config}: there is no [[source]], so there is nothing to do; `runspan init` shows one")
    with Ledger.open(loaded.ledger.url) as ledger:
        ended_by = asyncio.run(daemon.run(loaded, ledger))
    if ended_by is signal.SIGINT:
        raise typer.Exit(exits.INTERRUPTED)
