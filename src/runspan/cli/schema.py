"""`runspan schema`."""

import json

import typer


def schema() -> None:
    """Print the JSON schema of the configuration, for editors; each platform's own keys are in it."""
    from runspan import config_file, sources

    typer.echo(json.dumps(config_file.schema(sources.platforms()), indent=2))
