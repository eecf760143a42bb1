"""What commands have in common: `-c`, and the configuration behind it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from runspan.config import Config

ConfigOption = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The configuration.")]
"""For a command that needs a configuration; give it the default `DEFAULT_CONFIG`."""

DEFAULT_CONFIG = Path("config.toml")


def load(path: Path | None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> "Config":
    """The configuration of this process, with logs set up as it says. Raises ConfigError."""
    import structlog

    from runspan import config_file, environment, logs, sources

    config = config_file.load(path, platforms=sources.platforms(), environ=os.environ, overrides=overrides)
    logs.set_up(config.log)
    log = structlog.get_logger()
    for name in environment.unknown_variables(os.environ):
        log.warning(f"the environment variable {name} sets nothing", action="unknown_variable", variable=name)
    return config
