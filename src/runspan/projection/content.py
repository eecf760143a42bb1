"""What was said in a run, as JSON in the GenAI message schema: redacted, and cut to a limit with the JSON still valid.

Called only where content capture is on.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias, cast

from runspan.model import NO_CONTENT, AttributeValue, Content, Json, Message, Run, RunStatus, Step
from runspan.projection.conventions import gen_ai, own
from runspan.projection.redaction import MARGIN_CHARACTERS, MASK, is_secret_key, redact_start
from runspan.projection.values import clean_text, cut_text

CUT = "runspan.content.cut"
"""True on a span of which some content was too long."""

Pairs: TypeAlias = list[tuple[str, AttributeValue | None]]

_DEEPEST = 32
_LIMITS_READ = 64
"""So many times its limit is read of a content with very many strings, the newest first."""
_KEY_BYTES = 128
_SHORTEST = 24
"""Strings are not cut below this many characters; rather whole items are left out."""
_SMALLEST_MESSAGE_BYTES = 32
_ELLIPSIS = "…"


def run_content(run: Run, limit_bytes: int) -> Pairs:
    """What went into the run and what came out of it."""
    return _content(run.content, "stop" if run.status is RunStatus.SUCCESS else "error", limit_bytes)


def step_content(step: Step, limit_bytes: int) -> Pairs:
    """What went into a step and what came out of it."""
    reasons = step.attributes.get(gen_ai.FINISH_REASONS)
    reason = reasons[0] if isinstance(reasons, tuple) and reasons else "error" if step.error else "stop"
    return _content(step.content, reason, limit_bytes)


def _content(content: Content, finish_reason: str, limit_bytes: int) -> Pairs:
    if content == NO_CONTENT:
        return []
    fitted: list[tuple[str, tuple[str | None, bool]]] = []
    if content.system is not None:
        parts = [{"type": "text", "content": content.system}]
        fitted.append((gen_ai.SYSTEM_INSTRUCTIONS, fit_json(parts, limit_bytes)))
    if content.input:
        messages = _messages(content.input, limit_bytes)
        fitted.append((gen_ai.INPUT_MESSAGES, fit_json(messages, limit_bytes)))
    if content.output:
        # Readers that hold to an older schema refuse an output message without a finish reason.
        messages = _messages(content.output, limit_bytes)
        finished = [{**message, "finish_reason": finish_reason} for message in messages]
        fitted.append((gen_ai.OUTPUT_MESSAGES, fit_json(finished, limit_bytes)))
    if content.arguments is not None:
        fitted.append((gen_ai.TOOL_CALL_ARGUMENTS, fit_json(content.arguments, limit_bytes)))
    if content.result is not None:
        fitted.append((gen_ai.TOOL_CALL_RESULT, fit_json(content.result, limit_bytes)))
    if content.text is not None:
        text = redact_start(clean_text(content.text), limit_bytes)
        fitted.append((own.NOTE_TEXT, (cut_text(text, limit_bytes), len(text.encode()) > limit_bytes)))
    pairs: Pairs = [(key, text) for key, (text, _) in fitted]
    if any(cut for _, (_, cut) in fitted):
        pairs.append((CUT, True))
    return pairs


def _messages(messages: Sequence[Message], limit_bytes: int) -> list[dict[str, Json]]:
    """The newest messages, as many as could fit at all."""
    newest = messages[-max(1, limit_bytes // _SMALLEST_MESSAGE_BYTES) :]
    return [
        {
            "role": message.role,
            "parts": [
                {"type": kind, "content": text}
                for kind, text in (("reasoning", message.reasoning), ("text", message.text))
                if text is not None
            ],
        }
        for message in newest
    ]


def fit_json(value: Json, limit_bytes: int) -> tuple[str | None, bool]:
    """`value` as compact JSON of at most `limit_bytes`, and whether something had to be left out.

    Long strings are cut first, all to the same length; then a list loses its oldest items; what still does not fit
    becomes one JSON string. None where not even that is possible.
    """
    tidy = _Tidy(value, limit_bytes)
    value = tidy(value)
    text = _dumps(value)
    if _size(text) <= limit_bytes:
        return text, tidy.cut
    if _size(_dumps(_shortened(value, _SHORTEST))) <= limit_bytes:
        longest = _largest(
            _SHORTEST, limit_bytes, lambda length: _size(_dumps(_shortened(value, length))) <= limit_bytes
        )
        return _dumps(_shortened(value, longest)), True
    if isinstance(value, list):
        items = cast("list[Json]", _shortened(value, _SHORTEST))
        kept = _largest(0, len(items), lambda count: _size(_dumps(items[len(items) - count :])) <= limit_bytes)
        return (_dumps(items[len(items) - kept :]) if kept else None), True
    kept = _largest(0, limit_bytes, lambda count: _size(_dumps(cut_text(text, count))) <= limit_bytes)
    return (_dumps(cut_text(text, kept)) if kept else None), True


class _Tidy:
    """Copies JSON with secrets masked, and without what no attribute could hold: too many items, or too deep."""

    def __init__(self, value: Json, limit_bytes: int) -> None:
        self.cut = False
        self._longest = _longest_that_fit(value, limit_bytes)
        self._items_left = limit_bytes // 2  # an item takes a byte, and a comma
        self._characters_left = limit_bytes * _LIMITS_READ

    def __call__(self, value: Json, depth: int = 0) -> Json:
        self._items_left -= 1
        match value:
            case str():
                return self._str(value)
            case bool() | None:
                return value
            case int() if value.bit_length() > 1024:
                return _ELLIPSIS  # Python refuses to write integers of thousands of digits
            case float() if not math.isfinite(value):
                return str(value)
            case list() | dict() if depth >= _DEEPEST:
                self.cut = True
                return _ELLIPSIS
            case list():
                return self._list(cast("list[Json]", value), depth)
            case dict():
                return self._dict(cast("dict[str, Json]", value), depth)
            case _:
                return value

    def _str(self, value: str) -> str:
        if self._characters_left <= 0:
            self.cut = True
            return _ELLIPSIS
        self._characters_left -= min(len(value), self._longest + MARGIN_CHARACTERS)
        text = redact_start(clean_text(value), self._longest)
        self.cut = self.cut or len(text) > self._longest
        return text[: self._longest]

    def _list(self, values: list[Json], depth: int) -> list[Json]:
        tidied: list[Json] = []
        for value in reversed(values):
            if self._items_left <= 0:
                self.cut = True
                break
            tidied.append(self(value, depth + 1))
        return tidied[::-1]

    def _dict(self, values: Mapping[str, Json], depth: int) -> dict[str, Json]:
        tidied: dict[str, Json] = {}
        for key, value in values.items():
            if self._items_left <= 0:
                self.cut = True
                break
            cleaned = clean_text(key)
            name = cut_text(cleaned, _KEY_BYTES)
            self.cut = self.cut or name != cleaned
            is_secret = is_secret_key(name) and isinstance(value, str | int | float)
            tidied[name] = MASK if is_secret else self(value, depth + 1)
        return tidied


def _longest_that_fit(value: Json, limit_bytes: int) -> int:
    """More than what any string in `value` can keep, when the longest are cut to the same length until all fit."""
    lengths = sorted(len(item) for item in islice(_values(value), limit_bytes // 2) if isinstance(item, str))
    left = limit_bytes
    for place, length in enumerate(lengths):
        share = left // (len(lengths) - place)
        if length > share:
            return max(share, _SHORTEST) + 1
        left -= length
    return limit_bytes


def _values(value: Json, depth: int = 0) -> Iterator[Json]:
    """Everything in `value`, in the order in which it is tidied."""
    yield value
    if depth < _DEEPEST and isinstance(value, dict | list):
        inside = cast("dict[str, Json] | list[Json]", value)
        for item in inside.values() if isinstance(inside, dict) else reversed(inside):
            yield from _values(item, depth + 1)


def _shortened(value: Json, length: int) -> Json:
    """`value` with every string cut to `length` characters."""
    match value:
        case str():
            return value if len(value) <= length else value[: length - 1] + _ELLIPSIS
        case list():
            return [_shortened(item, length) for item in cast("list[Json]", value)]
        case dict():
            return {key: _shortened(item, length) for key, item in cast("dict[str, Json]", value).items()}
        case _:
            return value


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number from `low` to `high` that fits, where `low` does, and with each number all below it."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _dumps(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _size(text: str) -> int:
    return len(text.encode())
