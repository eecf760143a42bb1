"""Quantities as people write them in a configuration: `30s`, `90/min`, `128MB`, `now`.

Each is parsed from text, printed back in the same form, and refused with the form that was expected. Parsers raise
ValueError with a text that fits behind `key:`.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(?:[0-9]{1,9}(?:ms|s|min|m|h|d))+"
_DURATION_PART = re.compile(r"([0-9]{1,9})(ms|s|min|m|h|d)")
_LONGEST_DURATION = timedelta(days=36500)
"""Far beyond sense, and still within 64 bits of nanoseconds."""
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/([0-9]{1,6})?(s|m|min|h|d)")
_SLOWEST_INTERVAL_NS = 86_400 * 10**9
_UNIT_BYTES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,12}) ?([KMG]I?B|B)", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str) -> timedelta:
    """`500ms`, `30s`, `5m`, `24h`, `90d`, and combinations such as `1h30m`. Raises ValueError."""
    if not re.fullmatch(_DURATION, text):
        raise ValueError("not a duration: write a number and a unit, such as 500ms, 30s, 5m, 24h or 90d")
    milliseconds = sum(int(count) * _UNIT_MS[unit] for count, unit in _DURATION_PART.findall(text))
    if milliseconds > _LONGEST_DURATION // timedelta(milliseconds=1):
        raise ValueError("too long a duration: a hundred years is the most")
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """A text that `parse_duration` reads back as `duration` (whole milliseconds); hours up to two days."""
    rest_ms = duration // timedelta(milliseconds=1)
    parts: list[str] = []
    for unit in ("d", "h", "m", "s", "ms")[rest_ms < 2 * _UNIT_MS["d"] :]:
        count, rest_ms = divmod(rest_ms, _UNIT_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_instant(time_ns: int) -> str:
    """An instant, in nanoseconds since the epoch, as a text that `Start.parse` reads; cut to whole seconds."""
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


def nanoseconds(duration: timedelta) -> int:
    """A duration in nanoseconds, exactly."""
    return duration // timedelta(microseconds=1) * 1000


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests may leave within how many seconds."""

    requests: float
    per_seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """`2/s`, `0.2/s`, `90/min`, `1000/15min`. Raises ValueError."""
        found = _RATE.fullmatch(text)
        if not found or float(found[1]) == 0 or found[2] == "0":
            raise ValueError("not a rate: write requests per unit of time, such as 2/s, 90/min or 1000/15min")
        rate = cls(float(found[1]), int(found[2] or 1) * _UNIT_MS[found[3]] // 1000)
        if rate.interval_ns > _SLOWEST_INTERVAL_NS:
            raise ValueError("too low a rate: one request a day is the least")
        return rate

    @property
    def interval_ns(self) -> int:
        """Between two requests that are evenly spaced; rounded up, so that the rate is never passed."""
        return math.ceil(self.per_seconds * 1_000_000_000 / self.requests)

    def __str__(self) -> str:
        for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            if self.per_seconds % seconds == 0:
                count = self.per_seconds // seconds
                return f"{self.requests:.15g}/{count if count > 1 else ''}{unit}"
        raise AssertionError("every whole number is divisible by one")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return _text_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{_RATE.pattern}$"}


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins: a stretch back from now, or an instant. Exactly one of the two is set."""

    ago: timedelta | None = None
    at_ns: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Start":
        """`now`, a duration back, an RFC 3339 timestamp, or a date (its midnight, UTC). Raises ValueError."""
        if text == "now":
            return cls(ago=timedelta())
        if re.fullmatch(_DURATION, text):
            return cls(ago=parse_duration(text))
        try:
            # A date alone has no zone to state; a time without one would mean another instant on each host.
            instant = datetime.fromisoformat(f"{text}T00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text)
        except ValueError:
            instant = None
        if instant is None or instant.tzinfo is None or not 1970 <= instant.year < 2262:
            raise ValueError("not a start: write now, a duration back such as 24h, or a timestamp with its zone, "
                             "such as 2026-01-31T08:00:00Z")  # fmt: skip
        return cls(at_ns=nanoseconds(instant - _EPOCH))

    def instant_ns(self, now_ns: int) -> int:
        """The instant, in nanoseconds since the epoch."""
        if self.at_ns is not None:
            return self.at_ns
        return now_ns - nanoseconds(self.ago or timedelta())

    def __str__(self) -> str:
        if self.at_ns is not None:
            return (_EPOCH + timedelta(microseconds=self.at_ns // 1000)).isoformat().replace("+00:00", "Z")
        return format_duration(self.ago) if self.ago else "now"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return _text_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string"}


def parse_size(text: str) -> int:
    """Bytes in `64MB` (10^6), `64MiB` (2^20), `512KB`, `1GB`. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError("not a size: write a number and a unit, such as 512KB, 64MB or 1GiB")
    return int(found[1]) * _UNIT_BYTES[found[2].upper()]


def format_size(size_bytes: int) -> str:
    """The shortest text that `parse_size` reads back as `size_bytes`."""
    for unit, factor in (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20), ("KB", 10**3), ("KiB", 2**10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _text_schema(cls: type[Rate] | type[Start]) -> CoreSchema:
    def validate(value: object) -> object:
        # TOML has timestamps of its own, without quotes.
        text = value.isoformat() if isinstance(value, datetime | date) else value
        return value if isinstance(value, cls) else cls.parse(_as_text(text))

    return core_schema.no_info_plain_validator_function(
        validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
    )


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write it as text with its unit, in quotes")
    return value


def _duration(value: object) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(_as_text(value))


def _size(value: object) -> int:
    size_bytes = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(_as_text(value))
    if size_bytes < 1:
        raise ValueError("at least one byte")
    return size_bytes


Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$"}),
]
"""A timedelta, written `30s`."""


def at_least(shortest: timedelta) -> AfterValidator:
    """Beside a Duration: refuses a shorter one."""

    def check(duration: timedelta) -> timedelta:
        if duration < shortest:
            raise ValueError(f"too short a duration: {format_duration(shortest)} is the least")
        return duration

    return AfterValidator(check)


Size: TypeAlias = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size),
    WithJsonSchema({"type": ["string", "integer"], "pattern": r"^[0-9]+ ?([KkMmGg][Ii]?[Bb]|[Bb])$", "minimum": 1}),
]
"""A number of bytes, written `64MB`."""
