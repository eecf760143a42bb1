"""`runspan schema`."""

import json

import typer

from runspan.config import loader
from runspan.sources import platforms


def schema() -> None:
    """Print the JSON schema of the configuration, for editors; each platform's own keys are in it."""
    typer.echo(json.dumps(loader.schema(platforms()), indent=2))
