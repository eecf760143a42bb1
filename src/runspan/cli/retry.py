"""`runspan retry`."""

from typing import Annotated

import typer

from runspan.cli.options import ConfigFile, load_config
from runspan.ledger import Ledger


def retry(
    config: ConfigFile,
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Only these runs.")] = None,
    source: Annotated[str | None, typer.Option(help="Only runs of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only runs whose reason holds this text.")] = None,
) -> None:
    """Put quarantined runs back, to be fetched and sent again by the daemon or the next backfill.

    Runs that are named are put back where they are gone, too.
    """
    loaded = load_config(config)
    with Ledger.open(loaded.ledger.url, must_exist=True) as ledger:
        number = ledger.retry(source=source, run_ids=run_ids or None, reason_like=reason)
    typer.echo(f"{number} {'run is' if number == 1 else 'runs are'} due again")
