"""What commands that only look have of the ledger."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import structlog

from runspan.errors import LedgerOlder, LedgerReadOnly
from runspan.ledger import Ledger

log = structlog.get_logger()


@contextmanager
def ledger_to_look_at(url: str) -> Generator[Ledger | None]:
    """The ledger at `url`, for its rate budget and for what it knows; None where there is none.

    None, with a warning, also where it would have to be migrated for that, or cannot be written. Raises LedgerUnusable.
    """
    with ExitStack() as stack:
        ledger = None
        try:
            ledger = stack.enter_context(Ledger.open_if_there(url))
        except (LedgerOlder, LedgerReadOnly) as error:
            log.warning(
                f"goes on without the ledger, so what it knows is left out, and its other users' requests are not "
                f"counted: {error}",
                action="ledger_left_out",
            )
        yield ledger
