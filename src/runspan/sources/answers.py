"""What the answers of several platforms have in common: envelopes, rows, untyped texts, trace contexts."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, islice
from typing import cast

from runspan.errors import AnswerTooLarge, SourceUnavailable
from runspan.model import Json
from runspan.sources.fields import Fields, is_too_deep

TRACEPARENT_DEPTH = 4
TRACEPARENT_PLACES = 10_000
"""A caller's trace context is looked for in so many values and no more."""
TRACEPARENT_CHARACTERS = 64_000
"""So much of a text is read for one."""
TOOL_CALL = "tool_call"
"""Why a model's output ended, where tools were called next: a word of the GenAI message schema."""
_WRITTEN_TRACEPARENT = re.compile(
    r"(?ai)\btraceparent\\{0,8}[\"']?\s{0,4}[:=]\s{0,4}\\{0,8}[\"']?(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})\b"
)


def unwrapped(document: Json) -> Json:
    """What is inside a `{success, data}` envelope, or the document itself where there is none."""
    if not isinstance(document, dict):
        return document
    fields = cast("dict[str, Json]", document)
    return fields["data"] if "success" in fields and "data" in fields else fields


def refuse_failure(answer: Json, where: str) -> None:
    """Raises SourceUnavailable where a list's envelope says that it failed: what it holds may be empty for that."""
    if isinstance(answer, dict) and cast("dict[str, Json]", answer).get("success") is False:
        raise SourceUnavailable(f"{where} answered that it failed; asking again later")


class PageSize:
    """How many rows a list is asked for: fewer for good, once an answer was larger than max_body allows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    async def ask(self, ask: Callable[[int], Awaitable[Json]]) -> Json:
        """What `ask(rows)` gives. Raises what it raises, AnswerTooLarge where one row alone is too large."""
        while True:
            try:
                return await ask(self.rows)
            except AnswerTooLarge:
                if self.rows == 1:
                    raise
                self.rows = max(1, self.rows // 4)


def rows_of(answer: Fields, key: str, where: str) -> list[Fields]:
    """The rows of a list answer.

    Raises SourceUnavailable where there is no list: taken for an empty one, it would carry the position past runs.
    """
    if not isinstance(answer.value(key), list):
        raise SourceUnavailable(f"{where} answered without a list of {key}; asking again later")
    return answer.children(key)


def as_text(value: Json) -> str:
    """A text as it is, any other JSON written down; empty where it is nested too deeply for that."""
    if isinstance(value, str):
        return value
    return "" if is_too_deep(value) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def find_traceparent(*places: Json) -> str | None:
    """The first W3C trace context (https://www.w3.org/TR/trace-context/) in these places.

    It is a text under a key `traceparent`, near the surface. Where a platform takes nothing but text from its caller,
    the place is that text: then it stands behind the word, as in `traceparent: 00-...` or in JSON.
    """
    near = chain.from_iterable(_near_surface(place) for place in places)
    for value in islice(near, TRACEPARENT_PLACES):
        found = cast("dict[str, Json]", value).get("traceparent") if isinstance(value, dict) else None
        if isinstance(found, str):
            return found
    for place in places:
        written = _WRITTEN_TRACEPARENT.search(place, 0, TRACEPARENT_CHARACTERS) if isinstance(place, str) else None
        if written:
            return written[1].lower()
    return None


def _near_surface(value: Json, depth: int = 0) -> Iterator[Json]:
    yield value
    if depth < TRACEPARENT_DEPTH and isinstance(value, dict | list):
        fields = cast("dict[str, Json] | list[Json]", value)
        for child in fields.values() if isinstance(fields, dict) else fields:
            yield from _near_surface(child, depth + 1)
