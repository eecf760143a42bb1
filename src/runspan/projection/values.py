"""Makes strings and attributes fit for OTLP and for a backend's limits."""

import math
import re
from collections.abc import Iterable, Mapping

from runspan.model import AttributeValue

_UNFIT = re.compile("[\0\ud800-\udfff]")
_ELLIPSIS = "…"
_MAX_INT64 = 2**63 - 1


def clean_text(text: str) -> str:
    """The text without what protobuf or a database behind it refuses: NUL and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNFIT.sub("", text)


def cut_text(text: str, limit_bytes: int) -> str:
    """The text within `limit_bytes` of UTF-8, ending in an ellipsis where it was cut."""
    if len(text) * 4 <= limit_bytes:
        return text
    encoded = text.encode("utf-8", "ignore")
    if len(encoded) <= limit_bytes:
        return text
    room = max(0, limit_bytes - len(_ELLIPSIS.encode()))
    return encoded[:room].decode("utf-8", "ignore") + _ELLIPSIS


def one_line(text: str, limit_characters: int) -> str:
    """The text with every run of white space as one space, cut to `limit_characters`."""
    # Far more than is kept, so that a text of many megabytes is not split as a whole.
    line = " ".join(clean_text(text[: limit_characters * 16]).split())
    return line if len(line) <= limit_characters else line[: limit_characters - 1] + _ELLIPSIS


def clean_attributes(
    attributes: Iterable[tuple[str, AttributeValue | None]], limit_bytes: int
) -> tuple[Mapping[str, AttributeValue], tuple[str, ...]]:
    """The attributes that are set, fit to be sent, and the keys of those that cannot be.

    Strings are cleaned and cut to `limit_bytes`; integers beyond 64 bits and numbers that are none cannot be sent.
    Of a key that comes twice the last value counts.
    """
    clean: dict[str, AttributeValue] = {}
    dropped: list[str] = []
    for key, value in attributes:
        match value:
            case None:
                continue
            case bool():
                clean[key] = value
            case str():
                clean[key] = cut_text(clean_text(value), limit_bytes)
            case int() if -_MAX_INT64 - 1 <= value <= _MAX_INT64:
                clean[key] = value
            case float() if math.isfinite(value):
                clean[key] = value
            case tuple():
                clean[key] = tuple(cut_text(clean_text(item), limit_bytes) for item in value)
            case _:
                dropped.append(key)
    return clean, tuple(dropped)
