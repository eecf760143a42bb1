"""`runspan init`."""

from pathlib import Path
from typing import Annotated

import typer

from runspan.config.example import example
from runspan.errors import ConfigError
from runspan.sources import platforms


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it; - for standard output.")] = Path("config.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration in which every key is explained."""
    text = example(platforms())
    if path == Path("-"):
        typer.echo(text, nl=False)
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already: name another file, or replace it with --force") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    typer.echo(f"{path} written: set name, platform and api_key of its source, then try `runspan check -c {path}`")
