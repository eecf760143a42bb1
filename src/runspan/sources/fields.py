"""Reading a platform's JSON without trusting it.

`Fields` reads one JSON object key by key. What is absent, null or empty reads as None; what is unsound reads as None
too and leaves one line in `problems` that says where and why (`steps[3].duration: not a number`), never the value
itself, since a value may be content. Nothing here raises.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import NoReturn, TypeVar, cast

from runspan.model import Json

MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
MAX_INTEGER = 2**63 - 1
"""What an OTLP integer and an OTLP time can hold; as nanoseconds it is a day in April 2262."""
LAST = 2**63
"""For `in_order`: behind every number and every time."""
MAX_ROWS = 10_000
"""What is read of one list of a run: no backend shows a trace of more spans, and a body of 64 MB can hold millions.
The lists of runs themselves are read whole."""
MAX_DEPTH = 100
"""What is nested deeper is not read. How deep Python can read and write JSON depends on its version and on the place in
the program, and of one body all must make the same."""
MAX_PROBLEMS = 100
"""A body of a million broken rows must not become a million lines."""

_Place = TypeVar("_Place", bound=tuple[int | str, ...])

_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{0,40})?([eE][+-]?\d{1,3})?", re.ASCII)
_ISO_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,30}))?\s?(Z|z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)


class Fields:
    """One JSON object, read tolerantly.

    `path` is where the object stands in its document (empty for the root); `problems` is shared by all objects read
    from one document. Anything but an object reads as an empty one.
    """

    __slots__ = ("document", "path", "problems")

    def __init__(self, document: Json, problems: list[str], path: str = "") -> None:
        self.document: dict[str, Json]
        self.path = path
        self.problems = problems
        if isinstance(document, dict):
            self.document = cast("dict[str, Json]", document)
            return
        self.document = {}
        if document is not None:
            self._note(path or "body", "not an object")

    def note(self, why: str) -> None:
        """Add a line to the problems that says of this object what is wrong with it."""
        self._note(self.path or "body", why)

    def value(self, key: str) -> Json:
        """The value as it stands, of any type; None where there is none."""
        return self.document.get(key)

    def text(self, key: str) -> str | None:
        """A string. Half a surrogate pair becomes `?`, since it has no UTF-8 form."""
        value = self.value(key)
        if isinstance(value, str):
            return _encodable(value) or None
        return self._unsound(key, value, "not a string")

    def identifier(self, key: str) -> str | None:
        """A string, or an integer as its digits: some platforms number their rows."""
        value = self.value(key)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
            return str(value)
        return self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings of a list, at most MAX_ROWS."""
        texts: list[str] = []
        for index, value in enumerate(self._items(key, MAX_ROWS)):
            if not isinstance(value, str):
                self._note(f"{self._at(key)}[{index}]", "not a string")
            elif value:
                texts.append(_encodable(value))
        return tuple(texts)

    def boolean(self, key: str) -> bool | None:
        """true or false."""
        value = self.value(key)
        return value if isinstance(value, bool) else self._unsound(key, value, "not true or false")

    def integer(self, key: str) -> int | None:
        """A count, 0 to 2^63-1; `3.0` and `"3"` count as 3."""
        number = self.decimal(key)
        if number is None or number == number.to_integral_value():
            return None if number is None else int(number)
        return self._unsound(key, number, "not a whole number")

    def decimal(self, key: str) -> Decimal | None:
        """A number from 0 to 2^63-1, exactly as its digits say; a string of digits is a number too."""
        value = self.value(key)
        number = _number(value)
        if number is None:
            return self._unsound(key, value, "not a number")
        if number < 0:
            return self._unsound(key, value, "negative")
        if number > MAX_INTEGER:
            return self._unsound(key, value, "too large")
        return number

    def duration_ns(self, key: str, unit_ns: int = MS_NS) -> int | None:
        """A length of time told in `unit_ns` (default: milliseconds, fractions allowed), in nanoseconds."""
        number = self.decimal(key)
        if number is None:
            return None
        duration_ns = round(number * unit_ns)
        return duration_ns if duration_ns <= MAX_INTEGER else self._unsound(key, number, "too large")

    def time_ns(self, key: str, epoch_unit_ns: int | None = None) -> int | None:
        """An instant, in nanoseconds since the Unix epoch.

        ISO-8601 with `Z`, an offset or neither (then UTC) and any number of decimals; where `epoch_unit_ns` tells the
        unit, numbers since the epoch too. Instants outside 1970 to 2262 are unsound: .NET writes year 1 for none.
        """
        value = self.value(key)
        time_ns = _iso_time_ns(value) if isinstance(value, str) else None
        if time_ns is None and epoch_unit_ns is not None and (number := _number(value)) is not None:
            time_ns = round(number * epoch_unit_ns)
        if time_ns is None:
            return self._unsound(key, value, "not a time")
        return time_ns if 0 < time_ns <= MAX_INTEGER else self._unsound(key, value, "not a time from 1970 to 2262")

    def child(self, key: str) -> "Fields":
        """The object under `key`; an empty one where there is none."""
        return Fields(self.value(key), self.problems, self._at(key))

    def rows(self, key: str) -> list["Fields"]:
        """As `children`, of no more than the first MAX_ROWS in the list."""
        return self.children(key, MAX_ROWS)

    def children(self, key: str, at_most: int | None = None) -> list["Fields"]:
        """The objects of the list under `key`, or of its first `at_most`; anything else in it is left out."""
        children: list[Fields] = []
        for index, item in enumerate(self._items(key, at_most)):
            path = f"{self._at(key)}[{index}]"
            if isinstance(item, dict):
                children.append(Fields(item, self.problems, path))
            else:
                self._note(path, "not an object")
        return children

    def json_text(self, key: str) -> Json:
        """JSON that the platform sends as a string, parsed; a string that is no valid JSON stays as it is."""
        value = self.value(key)
        if not isinstance(value, str):
            return value
        try:
            parsed = json.loads(value, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            return _encodable(value)
        return _encodable(value) if is_too_deep(parsed) else parsed

    def _items(self, key: str, at_most: int | None) -> list[Json]:
        value = self.value(key)
        if not isinstance(value, list):
            self._unsound(key, value, "not a list")
            return []
        items = cast("list[Json]", value)
        if at_most is not None and len(items) > at_most:
            self._note(self._at(key), f"{len(items)} rows, of which only the first {at_most} are read")
            return items[:at_most]
        return items

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _unsound(self, key: str, value: Json, why: str) -> None:
        if value is not None and value != "":
            self._note(self._at(key), why)

    def _note(self, path: str, why: str) -> None:
        line = f"{path}: {why}"
        if len(self.problems) < MAX_PROBLEMS and line not in self.problems:
            self.problems.append(line)


def in_order(rows: Iterable[Fields], place: Callable[[Fields], _Place]) -> list[Fields]:
    """Rows by their place; those of one place in an order that is their own, not that of the platform's answer."""
    ordered: list[Fields] = []
    for _, group in groupby(sorted(rows, key=place), key=place):
        equals = list(group)
        ordered += sorted(equals, key=_own_text) if len(equals) > 1 else equals
    return ordered


def row_key(table: str, row: Fields, immutable: Sequence[str]) -> tuple[str, ...]:
    """What tells a row of a table from the others for good: its own id, else those of its values that never change."""
    row_id = row.identifier("id")
    return (table, row_id) if row_id else (table, *(canonical(row.value(name)) for name in immutable))


def _own_text(row: Fields) -> str:
    # Without the fields that have no text, which would leave none of the row.
    return canonical({name: value for name, value in row.document.items() if not is_too_deep([value])})


def canonical(value: Json) -> str:
    """One text for equal values; what is nested too deeply gives an empty one."""
    return "" if is_too_deep(value) else json.dumps(value, sort_keys=True)


def is_too_deep(value: Json) -> bool:
    """Whether objects and lists are nested deeper than MAX_DEPTH."""
    holders: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        holders = [item for holder in holders for item in _inside(holder) if isinstance(item, dict | list)]
        if not holders:
            return False
    return True


def _inside(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return cast("dict[str, Json]", value).values()
    return cast("list[Json]", value) if isinstance(value, list) else ()


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _number(value: Json) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        # The shortest digits that give this float back: 0.85, not 0.84999999999999997...
        return Decimal(repr(value)) if math.isfinite(value) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return Decimal(value.strip())
    return None


def _iso_time_ns(text: str) -> int | None:
    match = _ISO_TIME.fullmatch(text.strip())
    if match is None:
        return None
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{(offset or 'Z').upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    # datetime knows microseconds only, .NET writes 100 ns and Go writes nanoseconds.
    fraction_ns = int((fraction or "0")[:9].ljust(9, "0"))
    return int(moment.timestamp()) * SECOND_NS + fraction_ns


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError("not a JSON number")
