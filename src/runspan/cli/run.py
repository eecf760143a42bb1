"""`runspan run`."""

import asyncio

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
        asyncio.run(daemon.run(loaded, ledger))
