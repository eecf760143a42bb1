"""How the program is stopped from outside: SIGTERM, Ctrl-C, or a terminal that is closed."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import structlog

from runspan import exits, logs

log = structlog.get_logger()

LAST_RESORT_SECONDS = 9.5
"""Container runtimes send SIGKILL after ten."""
LAST_WORDS_SECONDS = 0.3
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def on_signal(stop: Callable[[signal.Signals], object], signals: Sequence[signal.Signals] = SIGNALS) -> Generator[None]:
    """Lets each of these signals call `stop` on the running loop, but for SIGHUP where it is ignored (nohup).

    Whatever hangs then, the program ends after `LAST_RESORT_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    heeded = [number for number in signals if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    last_resort = threading.Timer(LAST_RESORT_SECONDS, _give_up)
    last_resort.daemon = True

    def came(number: signal.Signals) -> None:
        if last_resort.ident is None:
            # A thread that hangs (a lock on a file, an SDK exporter) can be neither cancelled nor left behind.
            last_resort.start()
        stop(number)

    for number in heeded:
        loop.add_signal_handler(number, came, number)
    try:
        yield
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


def _give_up() -> None:
    log.error("something does not let go, so it is left as it is; the rest stays due", action="stop_forced")
    logs.flush(LAST_WORDS_SECONDS)
    os._exit(exits.INTERRUPTED)
