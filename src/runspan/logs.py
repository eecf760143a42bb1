"""Logs: one line per event on standard error, as JSON or for a reader's eyes.

Every event of ours carries a stable `action` that an alert can match; its text is for people. What libraries log
through the standard library comes out in the same form, with `action` = `library`.

A thread of its own writes them. Standard error may be a pipe whose reader stands still (a log driver, a pager), and who
writes to a full pipe stands still too.
"""

import contextlib
import logging
import os
import queue
import select
import sys
import threading
import time
import traceback
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runspan.config import LogConfig
from runspan.errors import said
from runspan.secrets import mask
from runspan.terminal import plain

log = structlog.get_logger()

MOST_WAITING = 5_000
"""Lines that wait to be written; while so many wait, further ones are lost, and counted."""
MOST_AT_ONCE = 100
FLUSH_SECONDS = 1.0
"""How long the end of the program waits for what is still to be written."""
SELDOM_SECONDS = 60.0


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
    handler = _handler(sys.stderr)
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
    # Whoever can reach the port could fill the log with what is wrong with his requests, or that there are too many.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").filters = [_Seldom()]


def flush(within_seconds: float = FLUSH_SECONDS) -> None:
    """Return when all that was logged is written, or after so long if nobody reads it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Writer):
            handler.flush_within(within_seconds)
        else:
            handler.flush()


def _handler(stream: TextIO) -> logging.Handler:
    try:
        return _Writer(stream.fileno(), stream.encoding)
    except OSError:  # a stream in memory
        return logging.StreamHandler(stream)


class _Writer(logging.Handler):
    """Hands lines to a thread that writes them to a file descriptor."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._encoding = encoding
        self._lines: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self._lost = 0
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1
            return
        except Exception:
            self.handleError(record)
            return
        if self._lost and self._lines.qsize() < MOST_WAITING // 2:
            lost, self._lost = self._lost, 0
            log.warning("log lines were lost: nobody read them", action="logs_lost", lines=lost)

    def flush(self) -> None:
        self.flush_within(FLUSH_SECONDS)

    def flush_within(self, seconds: float) -> None:
        """Wait for what is to be written, but no longer than that."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, seconds)

    def _write_all(self) -> None:
        while True:
            # All at once: between two writes this thread may have to wait for a busy one.
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < MOST_AT_ONCE:
                    lines.append(self._lines.get_nowait())
            # Where they cannot be written (a reader that has gone, a full disk) there is nobody to tell.
            with contextlib.suppress(OSError):
                self._write("".join(f"{line}\n" for line in lines).encode(self._encoding, "backslashreplace"))
            for _ in lines:
                self._lines.task_done()

    def _write(self, text: bytes) -> None:
        # Not by way of sys.stderr: its lock, held by a thread that stands still, would stop the program at its end.
        while text:
            try:
                text = text[os.write(self._descriptor, text) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


class _Seldom(logging.Filter):
    """Lets the same message pass once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message, now_seconds = str(record.msg), time.monotonic()
        if now_seconds - self._said.get(message, -SELDOM_SECONDS) < SELDOM_SECONDS:
            return False
        if len(self._said) >= MOST_WAITING:
            self._said.clear()
        self._said[message] = now_seconds
        return True


class _MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def _renderers(config: LogConfig) -> list[Processor]:
    terminal = sys.stderr.isatty()
    if config.format == "json" or (config.format == "auto" and not terminal):
        last: list[Processor] = [structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        last = [_plain, console]
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


def _plain(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Ids and reasons come from outside."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = plain(value)
    return event


def _of_library(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["action"] = "library"
    # What asyncio adds in further lines quotes the error that it tells of.
    event["event"] = str(event["event"]).partition("\n")[0]
    event["logger"] = event["_record"].name
    return event
