import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# A machine that is busy with other tests is no failure.
settings.register_profile("runspan", deadline=None)
settings.load_profile("runspan")


@pytest.fixture
def logs_restored() -> Iterator[None]:
    """For a test that sets up logs in this process: afterwards they are as before."""
    loggers = [logging.getLogger(name) for name in (None, "runspan", "apscheduler")]
    before = [(logger.handlers, logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)
    structlog.reset_defaults()
