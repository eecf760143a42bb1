"""What was said in a run, as JSON in the GenAI message schema: redacted, and cut to a limit with the JSON still valid.

Called only where content capture is on.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import TypeAlias, cast

from runspan.model import NO_CONTENT, AttributeValue, Content, Json, Message, Run, RunStatus, Step
from runspan.projection.capture import ALL_KEYS, EVERYTHING, ContentRules, KeyRules
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
_SPACE_READ = 256
_BRACKET = re.compile(r"[\[\]{}]")


def run_content(run: Run, limit_bytes: int, rules: ContentRules = EVERYTHING) -> Pairs:
    """What went into the run and what came out of it."""
    return _content(run.content, "stop" if run.status is RunStatus.SUCCESS else "error", limit_bytes, rules)


def step_content(step: Step, limit_bytes: int, rules: ContentRules = EVERYTHING) -> Pairs:
    """What went into a step and what came out of it."""
    reasons = step.attributes.get(gen_ai.FINISH_REASONS)
    known = reasons[0] if isinstance(reasons, tuple) and reasons else "error" if step.error else None
    return _content(step.content, known or step.content.finish_reason or "stop", limit_bytes, rules)


def _content(content: Content, finish_reason: str, limit_bytes: int, rules: ContentRules) -> Pairs:
    content = rules.of(content)
    if content == NO_CONTENT:
        return []
    limit_bytes = rules.limit(limit_bytes)
    fitted: list[tuple[str, tuple[str | None, bool]]] = []

    def add(key: str, value: Json, keys: KeyRules = ALL_KEYS) -> None:
        fitted.append((key, fit_json(value, limit_bytes, keys=keys, masks=rules.masks)))

    if content.system is not None:
        add(gen_ai.SYSTEM_INSTRUCTIONS, [{"type": "text", "content": content.system}])
    if content.input:
        add(gen_ai.INPUT_MESSAGES, _messages(content.input, limit_bytes))
    if content.output:
        # Readers that hold to an older schema refuse an output message without a finish reason.
        messages = _messages(content.output, limit_bytes)
        add(gen_ai.OUTPUT_MESSAGES, [{**message, "finish_reason": finish_reason} for message in messages])
    if content.arguments is not None:
        add(gen_ai.TOOL_CALL_ARGUMENTS, content.arguments, rules.keys)
    if content.result is not None:
        add(gen_ai.TOOL_CALL_RESULT, content.result, rules.keys)
    if (note := content.thought if content.text is None else content.text) is not None:
        text = redact_start(clean_text(note), limit_bytes, rules.masks)
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


def fit_json(
    value: Json, limit_bytes: int, *, keys: KeyRules = ALL_KEYS, masks: Sequence[re.Pattern[str]] = ()
) -> tuple[str | None, bool]:
    """`value` as compact JSON of at most `limit_bytes`, and whether something had to be left out for its length.

    Long strings are cut first, all to the same length; then a list loses its oldest items; what still does not fit
    becomes one JSON string. None where not even that is possible, and where `keys` allow nothing of it.
    """
    if keys.allowed and not isinstance(value, list | dict) and not _may_be_json(value):
        return None, False
    tidy = _Tidy(value, limit_bytes, keys, masks)
    value = tidy(value, keyed=not keys.allowed)
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
    """Copies JSON with secrets masked, and without what may not be shown or what no attribute could hold: too many
    items, or too deep."""

    def __init__(self, value: Json, limit_bytes: int, keys: KeyRules, masks: Sequence[re.Pattern[str]]) -> None:
        self.cut = False
        self._keys = keys
        self._masks = masks
        self._longest = _longest_that_fit(value, limit_bytes, keys)
        self._items_left = limit_bytes // 2  # an item takes a byte, and a comma
        self._characters_left = limit_bytes * _LIMITS_READ

    def __call__(self, value: Json, *, keyed: bool, depth: int = 0) -> Json:
        """`keyed`: it stands under an allowed key, where only some are."""
        self._items_left -= 1
        match value:
            case str():
                return self._str(value, depth, keyed=keyed)
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
                return self._list(cast("list[Json]", value), depth, keyed=keyed)
            case dict():
                return self._dict(cast("dict[str, Json]", value), depth)
            case _:
                return value

    def _str(self, value: str, depth: int, *, keyed: bool) -> str:
        if self._characters_left <= 0:
            self.cut = True
            return _ELLIPSIS
        if self._keys != ALL_KEYS and _may_be_json(value):
            value = self._inner_json(value, depth, keyed=keyed)
        self._characters_left -= min(len(value), self._longest + MARGIN_CHARACTERS)
        text = redact_start(clean_text(value), self._longest, self._masks)
        self.cut = self.cut or len(text) > self._longest
        return text[: self._longest]

    def _inner_json(self, text: str, depth: int, *, keyed: bool) -> str:
        """JSON in a string, under the same rules; masked where it cannot be looked into."""
        if depth >= _DEEPEST or _depth(text) > _DEEPEST:
            return MASK
        try:
            inner: Json = json.loads(text)
        except (ValueError, RecursionError):
            return MASK
        return _dumps(self(inner, keyed=keyed, depth=depth + 1))

    def _list(self, values: list[Json], depth: int, *, keyed: bool) -> list[Json]:
        tidied: list[Json] = []
        for value in reversed(values):
            if self._items_left <= 0:
                self.cut = True
                break
            if keyed or isinstance(value, list | dict) or _may_be_json(value):
                tidied.append(self(value, keyed=keyed, depth=depth + 1))
        return tidied[::-1]

    def _dict(self, values: Mapping[str, Json], depth: int) -> dict[str, Json]:
        tidied: dict[str, Json] = {}
        for key, value in values.items():
            if not self._keys.allows(key):
                continue
            if self._items_left <= 0:
                self.cut = True
                break
            cleaned = redact_start(clean_text(key), _KEY_BYTES, self._masks)
            name = cut_text(cleaned, _KEY_BYTES)
            self.cut = self.cut or name != cleaned or name in tidied
            is_secret = is_secret_key(name) and isinstance(value, str | int | float)
            masked = is_secret or self._keys.denies(key)
            tidied[name] = MASK if masked else self(value, keyed=True, depth=depth + 1)
        return tidied


def _may_be_json(value: Json) -> bool:
    """Whether it is a string that looks like a JSON object or list."""
    return isinstance(value, str) and value[:_SPACE_READ].lstrip()[:1] in ("{", "[")


def _depth(text: str) -> int:
    """How deep the brackets of a text are nested, at most."""
    steps = (1 if bracket[0] in "{[" else -1 for bracket in _BRACKET.finditer(text))
    return max(accumulate(steps), default=0)


def _longest_that_fit(value: Json, limit_bytes: int, keys: KeyRules) -> int:
    """More than what any string in `value` can keep, when the longest are cut to the same length until all fit."""
    lengths = sorted(len(item) for item in islice(_values(value, keys), limit_bytes // 2) if isinstance(item, str))
    left = limit_bytes
    for place, length in enumerate(lengths):
        share = left // (len(lengths) - place)
        if length > share:
            return max(share, _SHORTEST) + 1
        left -= length
    return limit_bytes


def _values(value: Json, keys: KeyRules, depth: int = 0) -> Iterator[Json]:
    """Everything in `value` that may be shown, in the order in which it is tidied."""
    yield value
    if depth >= _DEEPEST:
        return
    if isinstance(value, list):
        for item in reversed(cast("list[Json]", value)):
            yield from _values(item, keys, depth + 1)
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Json]", value).items():
            if keys.allows(key) and not keys.denies(key):
                yield from _values(item, keys, depth + 1)


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
