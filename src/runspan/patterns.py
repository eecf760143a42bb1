"""Patterns of the configuration: regular expressions that are checked when they are read.

Python's engine knows no time limit, so what can be seen to take for ever is refused. The rest is bounded where it is
used (`runspan.projection.redaction`): a pattern never sees more than a thousand characters at once.
"""

import re
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

LONGEST = 1000
_SHOWN = 60

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # an escape, a class
    r"|(?P<open>\((?:\?(?:#[^)]*\)|[aiLmsux-]+\)|P=\w+\))?)?)"
    r"|(?P<close>\))"
    r"|(?P<repeat>[*+]|\{\d*,\d*\}|\{\d+\})(?P<kind>[?+]?)"
    r"|.",
    re.DOTALL,
)


def parse_pattern(text: str) -> re.Pattern[str]:
    """The pattern. Raises ValueError, in one line, where it is none or could take for ever."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    if len(text) > LONGEST:
        raise ValueError(f"{shown!r} is too long: {LONGEST} characters are the most")
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{shown!r} is not a regular expression: {error}") from None
    if pattern.search("") is not None:
        raise ValueError(f"{shown!r} matches where there is nothing, so it would mask nothing: ask for one character")
    if repeats_repetition(text):
        raise ValueError(
            f"{shown!r} repeats a group that repeats something itself, which can take for ever: write (?>...) for the "
            "group, or repeat only one of the two"
        )
    return pattern


def repeats_repetition(text: str) -> bool:
    """Whether a group that holds a repetition of open length is repeated itself, as in `(a+)+`.

    Groups that never give back what they took, `(?>...)` and `...++`, are left out: they cannot take for ever.
    """
    holds: list[bool] = [False]
    """Of each open group, whether it holds a repetition."""
    atomic: list[bool] = [False]
    last_group_holds = False
    for token in _TOKEN.finditer(text):
        if token["open"]:
            if not token["open"].endswith(")"):  # a comment or a flag is a group of its own
                holds.append(False)
                atomic.append(text.startswith("(?>", token.start()))
            last_group_holds = False
        elif token["close"] and len(holds) > 1:
            inner = holds.pop()
            last_group_holds = inner and not atomic.pop()
            holds[-1] = holds[-1] or last_group_holds
        elif token["repeat"]:
            varies = token["repeat"] in ("*", "+") or "," in token["repeat"]
            gives_back = token["kind"] != "+"
            if varies and gives_back and last_group_holds:
                return True
            holds[-1] = holds[-1] or (varies and gives_back)
            last_group_holds = False
        else:
            last_group_holds = False
    return False


def _pattern(value: Any) -> re.Pattern[str]:
    if isinstance(value, re.Pattern):
        return value  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, str):
        raise ValueError("write a regular expression, in quotes")
    return parse_pattern(value)


Pattern: TypeAlias = Annotated[
    re.Pattern[str],
    PlainValidator(_pattern),
    PlainSerializer(lambda pattern: pattern.pattern, return_type=str),
    WithJsonSchema({"type": "string", "format": "regex", "maxLength": LONGEST}),
]
"""A compiled regular expression, written as text."""
