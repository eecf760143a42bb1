"""How long a server wants to be left alone, by the headers of its answer; pure. Header names are lower-case."""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC

LONGEST_PAUSE_SECONDS = 3600.0
"""A platform that asks for more is asked again after an hour all the same: the wait may be a mistake."""
FOREVER_SECONDS = 1e9
"""What any longer wait is taken for: 30 years, still far from what a clock in nanoseconds cannot count."""
PAUSE_WHERE_NONE_IS_ASKED_SECONDS = 5.0
"""After a 429 that does not say how long."""


def retry_after_seconds(headers: Mapping[str, str], now_seconds: float) -> float | None:
    """What `retry-after-ms` or `retry-after` (seconds or an HTTP date, RFC 9110 10.2.3) asks for.

    At least 0, and at most `FOREVER_SECONDS` however many digits it has.
    """
    for name, unit_seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        # Two proxies may each have added theirs.
        if re.fullmatch(r"\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?)*", value):
            return min(max(map(float, value.split(","))) * unit_seconds, FOREVER_SECONDS)
        if value and name == "retry-after":
            at_seconds = _http_date_seconds(value)
            return None if at_seconds is None else min(max(0.0, at_seconds - now_seconds), FOREVER_SECONDS)
    return None


def _http_date_seconds(text: str) -> float | None:
    """The second since the epoch that an HTTP date names in any of its three forms, RFC 9110 5.6.7."""
    try:
        date = email.utils.parsedate_to_datetime(text)
        # The form of asctime tells no zone; every HTTP date is in UTC.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def pause_asked(status: int, headers: Mapping[str, str], now_seconds: float) -> float | None:
    """How long the platform wants to see nothing of us: a 429 says so, or its headers say that the window is used up.

    Reads `RateLimit-Remaining`/`RateLimit-Reset` (seconds; elizaOS), `x-ratelimit-remaining-requests`/
    `x-ratelimit-reset-requests` (with a unit, `45s`; case.dev), and both in one `RateLimit` (the drafts of the IETF:
    `limit=10, remaining=0, reset=5` or `"default";r=0;t=5`).
    """
    used_up = re.search(r"\b(?:remaining|r)=0\b.*?\b(?:reset|t)=(\d+)", headers.get("ratelimit", ""), re.ASCII)
    reset_seconds = float(used_up[1]) if used_up else None
    for remaining, reset in (
        ("ratelimit-remaining", "ratelimit-reset"),
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ):
        if headers.get(remaining, "").strip() == "0":
            reset_seconds = _seconds_of(headers.get(reset, ""), now_seconds)
    if status == 429:
        reset_seconds = retry_after_seconds(headers, now_seconds) or reset_seconds or PAUSE_WHERE_NONE_IS_ASKED_SECONDS
    return reset_seconds and min(reset_seconds, LONGEST_PAUSE_SECONDS)


def _seconds_of(text: str, now_seconds: float) -> float | None:
    """Seconds in a reset header: `45`, `45s`, `1m30s`, `500ms`, or an instant, in seconds or ms since the epoch."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        value = float(text)
        value = value / 1000 if value > 1e12 else value
        return max(0.0, value - now_seconds) if value > 1e9 else value
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        return None
    return sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text))
