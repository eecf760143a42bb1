"""`runspan schema`."""

import json

import typer


def schema() -> None:
    """Print the JSON schema of the configuration, for editors; each platform's own keys are in it."""
    from runspan import sources
    from runspan.config import loader

    typer.echo(json.dumps(loader.schema(sources.platforms()), indent=2))
