import json
import math
import sys
from decimal import Decimal

import pytest

from runspan.sources.answers import as_text
from runspan.sources.fields import MAX_DEPTH, MAX_PROBLEMS, SECOND_NS, Fields, canonical, in_order


def fields(**document):
    return Fields(document, [])


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (3, 3),
        (3.0, 3),
        ("3", 3),
        (" 3.0 ", 3),
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (None, None),
        ("", None),
    ],
)
def test_integers_that_are_sound(value, read):
    row = fields(n=value)
    assert row.integer("n") == read
    assert row.problems == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (True, "n: not a number"),
        ("three", "n: not a number"),
        ("NaN", "n: not a number"),
        ("Infinity", "n: not a number"),
        (math.nan, "n: not a number"),
        (math.inf, "n: not a number"),
        ([3], "n: not a number"),
        ({}, "n: not a number"),
        ("٣", "n: not a number"),  # a digit to Python, not to JSON
        (2.5, "n: not a whole number"),
        (-1, "n: negative"),
        ("-1", "n: negative"),
        (2**63, "n: too large"),
        (10**400, "n: too large"),
        ("1e999", "n: too large"),
    ],
)
def test_integers_that_are_not(value, problem):
    row = fields(n=value)
    assert row.integer("n") is None
    assert row.problems == [problem]


def test_decimals_keep_the_digits_the_platform_wrote():
    assert fields(c=0.85).decimal("c") == Decimal("0.85")
    assert fields(c="0.0234").decimal("c") == Decimal("0.0234")
    assert fields(c=1e-7).decimal("c") == Decimal("1E-7")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("2026-03-29T10:00:00Z", 1774778400 * SECOND_NS),
        ("2026-03-29T10:00:00", 1774778400 * SECOND_NS),
        ("2026-03-29 10:00:00z", 1774778400 * SECOND_NS),
        ("2026-03-29T10:00Z", 1774778400 * SECOND_NS),
        ("2026-03-29T12:00:00+02:00", 1774778400 * SECOND_NS),
        ("2026-03-29T04:30:00-0530", 1774778400 * SECOND_NS),
        ("2026-03-29T10:00:00.25Z", 1774778400_250000000),
        ("2026-03-29T10:00:00.1234567Z", 1774778400_123456700),
        ("2026-03-29T10:00:00,123456789999Z", 1774778400_123456789),
        ("1969-12-31T23:00:00-02:00", 3600 * SECOND_NS),
    ],
)
def test_times(value, read):
    row = fields(t=value)
    assert row.time_ns("t") == read
    assert row.problems == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("yesterday", "t: not a time"),
        ("2026-02-30T10:00:00Z", "t: not a time"),
        ("2026-03-29", "t: not a time"),
        ("0001-01-01T00:00:00Z", "t: not a time from 1970 to 2262"),
        ("1970-01-01T00:00:00Z", "t: not a time from 1970 to 2262"),
        ("9999-12-31T23:59:59Z", "t: not a time from 1970 to 2262"),
        ("0001-01-01T00:00:00+14:00", "t: not a time"),
        (1774778400, "t: not a time"),
        (True, "t: not a time"),
    ],
)
def test_times_that_are_not(value, problem):
    row = fields(t=value)
    assert row.time_ns("t") is None
    assert row.problems == [problem]


def test_epoch_numbers_are_times_only_where_the_unit_is_told():
    assert fields(t=1777000000100).time_ns("t", epoch_unit_ns=10**6) == 1777000000_100000000
    assert fields(t=1777000000100.5).time_ns("t", epoch_unit_ns=10**6) == 1777000000_100500000
    assert fields(t="1777000000").time_ns("t", epoch_unit_ns=10**9) == 1777000000 * SECOND_NS
    assert fields(t=math.nan).time_ns("t", epoch_unit_ns=10**9) is None
    assert fields(t=0).time_ns("t", epoch_unit_ns=10**6) is None


def test_durations():
    assert fields(d=1200).duration_ns("d") == 1_200_000_000
    assert fields(d=140.25).duration_ns("d") == 140_250_000
    assert fields(d=2).duration_ns("d", SECOND_NS) == 2 * SECOND_NS
    assert fields(d=2**63 - 1).duration_ns("d") is None
    assert fields(d=-5).duration_ns("d") is None


def test_texts():
    row = fields(a="x", b="", c=5, d="\ud800x", e=["p", 5, None, "", "\udfff"])
    assert [row.text(key) for key in "abcd"] == ["x", None, None, "?x"]
    assert row.texts("e") == ("p", "?")
    assert row.problems == ["c: not a string", "e[1]: not a string", "e[2]: not a string"]


def test_identifiers_may_be_numbers():
    assert fields(id="a").identifier("id") == "a"
    assert fields(id=12).identifier("id") == "12"
    assert fields(id=True).identifier("id") is None
    assert fields(id=1.5).identifier("id") is None


def test_json_in_a_string_is_parsed_and_kept_as_it_is_where_it_is_broken():
    assert fields(j='{"a": [1]}').json_text("j") == {"a": [1]}
    assert fields(j={"a": 1}).json_text("j") == {"a": 1}
    for broken in ('{"results": [...]}', "NaN", "1e999", "[" * 100_000, ""):
        assert fields(j=broken).json_text("j") == broken


def test_problems_name_the_place_and_never_the_value():
    problems: list[str] = []
    body = Fields({"steps": [{"duration": "secret"}, "secret", {"tokenUsage": "secret"}]}, problems)
    for step in body.children("steps"):
        step.duration_ns("duration")
        step.child("tokenUsage").integer("inputTokens")
    assert sorted(problems) == [
        "steps[0].duration: not a number",
        "steps[1]: not an object",
        "steps[2].tokenUsage: not an object",
    ]


def test_problems_are_capped():
    body = Fields({"steps": [1] * 5000}, [])
    assert body.children("steps") == []
    assert len(body.problems) == MAX_PROBLEMS


def test_a_body_that_is_no_object_reads_as_an_empty_one():
    for document in ([], "x", 5, True):
        row = Fields(document, [])
        assert row.text("id") is None
        assert row.problems == ["body: not an object"]


def test_a_list_that_is_none():
    row = fields(steps={"a": 1}, other=None)
    assert row.children("steps") == []
    assert row.children("other") == []
    assert row.problems == ["steps: not a list"]


def test_text_keeps_what_json_can_say():
    assert fields(t=json.loads('"\\u0000\\ud83d\\ude00"')).text("t") == "\0😀"


def test_equals_stand_in_an_order_of_their_own():
    def names(rows):
        return [row.text("n") for row in in_order([Fields(row, []) for row in rows], lambda row: (row.integer("t"),))]

    rows = [{"t": 2, "n": "c"}, {"t": 1, "n": "b"}, {"n": "a", "t": 1}]
    assert names(rows) == names(rows[::-1]) == ["a", "b", "c"]
    deep = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    rows = [{"t": 1, "n": name, "x": deep} for name in "cab"]
    assert names(rows) == names(rows[::-1]) == ["a", "b", "c"]


def test_what_is_nested_too_deeply_has_no_canonical_text():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert canonical(deep) == ""
    assert canonical({"b": 1, "a": [None]}) == '{"a": [null], "b": 1}'


def test_what_is_too_deep_does_not_depend_on_where_it_is_read():
    def read(levels, frames):
        if frames:
            return read(levels, frames - 1)
        text = "[" * levels + "]" * levels
        return canonical(json.loads(text)), as_text(json.loads(text)), fields(j=text).json_text("j")

    sound, deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    for frames in (0, sys.getrecursionlimit() - 300):
        assert read(MAX_DEPTH, frames) == (sound, sound, json.loads(sound))
        assert read(MAX_DEPTH + 1, frames) == ("", "", deep)
