import logging
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from tests.figures import SOAK

# Whoever starts the tests in the background may have these ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# A machine that is busy with other tests is no failure.
settings.register_profile("runspan", deadline=None, print_blob=True)
settings.register_profile("soak", settings.get_profile("runspan"), max_examples=400)
settings.load_profile("soak" if SOAK else "runspan")


@pytest.fixture
def logs_restored() -> Iterator[None]:
    """For a test that sets up logs in this process: afterwards they are as before."""
    loggers = [logging.getLogger(name) for name in (None, "runspan", "apscheduler")]
    before = [(logger.handlers, logger.level) for logger in loggers]
    yield
    logging.getLogger("asyncio").filters = []
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)
    structlog.reset_defaults()
