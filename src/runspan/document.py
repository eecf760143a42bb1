"""A platform's answer as JSON, read so that one value without measure costs itself and not the whole document."""

import json
import math
import re

from runspan.model import Json

DEEPEST = 400
"""Python reads about a thousand levels, fewer the deeper it is called from. Readers look far less deep (MAX_DEPTH in
`runspan.sources.fields`), so what is cut here makes no difference to what they see."""

MOST_VALUES = 4_000_000
"""Of a document. A list of nothing takes two bytes there and sixty in memory, so a body that is small enough to be read
can hold more than a machine does."""

_MOST_DIGITS = 4000
_MOST_TOKENS = 2_000_000
"""Of a document that is too deep; more would take seconds, in which nothing else is done."""

# A string need not end: or each quotation mark in a broken one would be read to the end of the body again.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_TOKEN = re.compile(_STRING.pattern + rb"|[\[{\]}]", re.DOTALL)


class TooManyValues(ValueError):
    """A document has more than MOST_VALUES values."""


def parsed(body: bytes) -> Json:
    """The document; objects and lists nested deeper than DEEPEST are None in one that Python could not read otherwise.

    Raises ValueError for what is no JSON, TooManyValues for more than should be read.
    """
    if len(body) > MOST_VALUES and _marks(body) > MOST_VALUES and _marks(_STRING.sub(b"", body)) > MOST_VALUES:
        raise TooManyValues(f"more than {MOST_VALUES:,} values")
    try:
        return json.loads(body)
    except RecursionError:
        body = _shallow(body)
    except ValueError:
        pass
    return json.loads(body, parse_int=_integer)


def _marks(json_text: bytes) -> int:
    """How many values there are at most: each begins a list or an object, or stands behind one's comma or colon."""
    return sum(map(json_text.count, (b"[", b"{", b",")))


def _integer(digits: str) -> int | float:
    # Python reads no integer of over 4300 digits.
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _shallow(body: bytes) -> bytes:
    """The JSON with null in place of what is nested too deeply. Raises ValueError where that would take too long."""
    pieces: list[bytes] = []
    depth = kept_until = 0
    for count, token in enumerate(_TOKEN.finditer(body)):
        if count == _MOST_TOKENS:
            raise ValueError("too deep, and too long to be cut")
        if token[0] in b"[{":
            depth += 1
            if depth == DEEPEST + 1:
                pieces += (body[kept_until : token.start()], b"null")
                kept_until = len(body)
        elif token[0] in b"]}":
            if depth == DEEPEST + 1:
                kept_until = token.end()
            depth -= 1
    return b"".join([*pieces, body[kept_until:]])
