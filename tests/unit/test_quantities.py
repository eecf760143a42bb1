from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.quantities import (
    Rate,
    Start,
    format_duration,
    format_size,
    nanoseconds,
    parse_duration,
    parse_size,
)

NOW_NS = 1_800_000_000_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("5m", 300), ("5min", 300), ("24h", 86400), ("90d", 7776000), ("1h30m", 5400)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "3 s", "-3s", "1.5h", "3w", "3S", "9" * 9 + "d", "3s\n", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_a_duration_reads_back_as_it_was_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


def test_durations_are_written_as_people_say_them() -> None:
    assert [format_duration(parse_duration(text)) for text in ("24h", "7d", "90s", "500ms", "0s")] == [
        "24h", "7d", "1m30s", "500ms", "0s",
    ]  # fmt: skip


def test_nanoseconds_are_exact() -> None:
    assert nanoseconds(timedelta(days=36500, microseconds=1)) == 36500 * 86400 * 10**9 + 1000


@pytest.mark.parametrize(
    ("text", "interval_ns", "again"),
    [
        ("2/s", 500_000_000, "2/s"),
        ("0.2/s", 5_000_000_000, "0.2/s"),
        ("90/min", 666_666_667, "90/min"),
        ("90/m", 666_666_667, "90/min"),
        ("1000/15min", 900_000_000, "1000/15min"),
        ("5000/h", 720_000_000, "5000/h"),
        ("1/d", 86_400_000_000_000, "1/d"),
    ],
)
def test_rate(text: str, interval_ns: int, again: str) -> None:
    rate = Rate.parse(text)
    assert rate.interval_ns == interval_ns
    assert str(rate) == again
    assert Rate.parse(again) == rate


@pytest.mark.parametrize("text", ["", "90", "0/s", "0.0/s", "90/0s", "90 / min", "-1/s", "1/week", "1/2d", "0.1/d"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("1B", 1), ("64MB", 64_000_000), ("64 mib", 64 * 2**20), ("1GiB", 2**30)]
)
def test_size(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@given(st.integers(1, 10**12))
def test_a_size_reads_back_as_it_was_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize("text", ["", "64", "MB", "٣MB", "1.5GB", "-1MB", "64TB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "instant_ns"),
    [
        ("now", NOW_NS),
        ("24h", NOW_NS - 86_400_000_000_000),
        ("2026-01-31", 1_769_817_600_000_000_000),
        ("2026-01-31T00:00:00Z", 1_769_817_600_000_000_000),
        ("2026-01-31T01:00:00.5+01:00", 1_769_817_600_500_000_000),
    ],
)
def test_start(text: str, instant_ns: int) -> None:
    start = Start.parse(text)
    assert start.instant_ns(NOW_NS) == instant_ns
    assert Start.parse(str(start)) == start


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-31T00:00:00", "2026-13-01", "9999-01-01", "1950-01-01"])
def test_what_is_no_start(text: str) -> None:
    with pytest.raises(ValueError, match="start"):
        Start.parse(text)


def test_a_start_is_the_same_instant_in_every_zone() -> None:
    instant = datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert Start.parse(instant.isoformat()) == Start.parse("2026-01-31T09:00:00+01:00")
