"""Logs: one line per event on standard error, as JSON or for a reader's eyes.

Every event of ours carries a stable `action` that an alert can match; its text is for people. What libraries log
through the standard library comes out in the same form, with `action` = `library`.
"""

import logging
import sys
import traceback
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runspan.config import LogConfig
from runspan.errors import said
from runspan.secrets import mask


def set_up(config: LogConfig) -> None:
    """Send all logs of this process to standard error. A second call replaces the first."""
    level = logging.getLevelNamesMapping()[config.level.upper()]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_MaskingFormatter(foreign_pre_chain=[*common, _of_library], processors=_renderers(config)))
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries tell of every request and job at INFO: that is for whoever asked for everything.
    root.setLevel(logging.INFO if config.level == "debug" else max(level, logging.WARNING))
    logging.getLogger("runspan").setLevel(level)
    # A poll that outlasts its interval, as it does under a small quota, is no news at every tick.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # Its line for each request quotes the platform: the reason phrase is anything a stranger likes.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Whoever can reach the port could fill the log with what is wrong with his requests.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


class _MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def _renderers(config: LogConfig) -> list[Processor]:
    terminal = sys.stderr.isatty()
    if config.format == "json" or (config.format == "auto" and not terminal):
        last: list[Processor] = [structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        last = [_printable, structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=plain)]
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _without_words, *last]


def _without_words(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """An exception as its stack and `said`: its own words, and the values of variables, may be a secret or a prompt."""
    exc_info = event.pop("exc_info", None)
    if isinstance(exc_info, tuple):
        error = cast("tuple[Any, Any, Any]", exc_info)[1]
    else:
        error = sys.exception() if exc_info is True else exc_info
    if isinstance(error, BaseException):
        event["exception"] = "".join([*traceback.format_tb(error.__traceback__), said(error)])
    return event


def _printable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Ids and reasons come from outside; a terminal would obey the escape sequences in them."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = "".join(character if character.isprintable() else "\ufffd" for character in value)
    return event


def _of_library(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["action"] = "library"
    # What asyncio adds in further lines quotes the error that it tells of.
    event["event"] = str(event["event"]).partition("\n")[0]
    event["logger"] = event["_record"].name
    return event
