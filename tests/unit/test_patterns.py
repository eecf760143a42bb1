import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.patterns import LONGEST, parse_pattern, repeats_repetition
from runspan.projection.redaction import MASK, OWN_CHARACTERS, matches, redact


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+",
        "(a*)*b",
        "((a+))+",
        "(?:a+b)+",
        "(?:(?:a*)b){2,5}",
        "(a{1,3})+",
        "(?=a+)+",
        "([^]]+)*x",
        "(?P<name>a+)+",
        "(?i:a+)*",
        r"(\w+\s?)*$",
    ],
)
def test_repetitions_within_repetitions_are_refused(text: str) -> None:
    assert repeats_repetition(text)
    with pytest.raises(ValueError, match=r"take for ever|matches where there is nothing"):
        parse_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        "(a+)",
        "(a|b)+",
        "(?>a+)+",
        "(a++)+",
        "[(+)]+",
        r"\(a+\)+",
        r"(?:\d{3}-?)+",
        "(a+){2}",
        "(?i)a+b+",
        "(?#x+)+a",
        "(a+)?",
        "[]a]+(b)+",
        r"\bPAT-\d{6}\b",
    ],
)
def test_others_are_not(text: str) -> None:
    assert not repeats_repetition(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[a", r"'\[a' is not a regular expression: unterminated character set"),
        ("a**", "is not a regular expression: multiple repeat"),
        ("a*", "matches where there is nothing"),
        ("a|", "matches where there is nothing"),
        ("x" * (LONGEST + 1), r"^'x{60}…' is too long"),
    ],
)
def test_what_is_no_pattern_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        parse_pattern(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


# On texts


@given(st.text("ab1 ", max_size=5000), st.sampled_from([r"a", r"ab+1", r"\b1{1,40}", r"(?<=b)a", r"b(?= )"]))
def test_windows_find_what_the_pattern_finds(text: str, pattern: str) -> None:
    spans = [(match.start(), match.end()) for match in re.finditer(pattern, text)]
    if all(end - start <= OWN_CHARACTERS // 2 for start, end in spans):
        assert list(matches(re.compile(pattern), text)) == spans


@pytest.mark.parametrize("at", [0, 100, OWN_CHARACTERS // 2, OWN_CHARACTERS - 3, 5000])
def test_a_match_across_windows_is_found_whole(at: int) -> None:
    text = "x" * at + "1" * (OWN_CHARACTERS // 2) + "y" * 3000
    assert list(matches(re.compile("1{3,}"), text)) == [(at, at + OWN_CHARACTERS // 2)]


@given(st.text(max_size=3000))
def test_no_pattern_keeps_another_from_its_match(text: str) -> None:
    for own in (r"\d{4}", "proj", r"key .{1,40}"):
        masked = redact(f"{text} key sk-proj-abcdefghij0123456789 ", [re.compile(own)])
        assert "abcdefghij" not in masked


def test_touching_matches_are_one_mask() -> None:
    assert redact("case 12 for jo@x.org!", [re.compile(r"case \d+ for \S+@"), re.compile("x")]) == f"{MASK}!"
