import json
import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runspan.model import Content, Message, RunStatus, Step, StepError, StepKind
from runspan.projection.content import CUT, fit_json, run_content, step_content
from runspan.projection.redaction import MASK, redact, redact_start
from runspan.projection.values import clean_attributes, clean_text, cut_text, one_line
from tests.unit.projection_runs import chat, run_of, step, tool

LIMIT = 2048


def said(item: Step, limit_bytes: int = LIMIT) -> dict[str, Any]:
    """Each content attribute of a step, parsed."""
    pairs = dict(step_content(item, limit_bytes))
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in pairs.items()}


# The GenAI message schema


def test_a_calls_messages_follow_the_schema() -> None:
    content = Content(
        system="Be brief.",
        input=(Message(role="user", text="Hello"),),
        output=(Message(role="assistant", text="Hi", reasoning="A greeting."),),
    )
    assert said(chat(content=content, attributes={"gen_ai.response.finish_reasons": ("length",)})) == {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}],
        "gen_ai.output.messages": [
            {
                "role": "assistant",
                "parts": [{"type": "reasoning", "content": "A greeting."}, {"type": "text", "content": "Hi"}],
                "finish_reason": "length",
            }
        ],
    }


@pytest.mark.parametrize(("error", "reason"), [(None, "stop"), (StepError("500"), "error")])
def test_an_output_message_always_has_a_finish_reason(error: StepError | None, reason: str) -> None:
    content = Content(output=(Message(role="assistant", text="Hi"),))
    assert said(chat(content=content, error=error))["gen_ai.output.messages"][0]["finish_reason"] == reason
    run = run_of(content=content, status=RunStatus.FAILED if error else RunStatus.SUCCESS)
    ((_, text),) = run_content(run, LIMIT)
    assert isinstance(text, str)
    assert json.loads(text)[0]["finish_reason"] == reason


def test_a_tools_arguments_and_result_stay_what_they_are() -> None:
    content = Content(arguments={"path": ["a", 1, None, 2.5, True]}, result="plain text")
    assert said(tool(content=content)) == {
        "gen_ai.tool.call.arguments": {"path": ["a", 1, None, 2.5, True]},
        "gen_ai.tool.call.result": "plain text",
    }


def test_a_notes_text_is_plain() -> None:
    assert step_content(step(StepKind.NOTE, content=Content(text="a\0b")), LIMIT) == [("runspan.note.text", "ab")]


def test_nothing_said_is_nothing_shown() -> None:
    assert step_content(chat(), LIMIT) == []
    assert step_content(chat(content=Content(output=())), LIMIT) == []


# Cutting

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(), max_size=30), inner),
    max_leaves=40,
)


@given(JSON_VALUES, st.integers(0, 400))
def test_content_is_valid_json_within_its_limit(value: Any, limit_bytes: int) -> None:
    text, _ = fit_json(value, limit_bytes)
    if text is not None:
        assert len(text.encode()) <= limit_bytes
        json.loads(text, parse_constant=pytest.fail)
    else:
        assert limit_bytes < 64 or isinstance(value, list)


@given(JSON_VALUES)
def test_what_fits_is_not_cut(value: Any) -> None:
    assume("\\u0000" not in json.dumps(value))  # without it two keys may become one
    text, cut = fit_json(value, 1_000_000)
    assert text is not None
    assert not cut


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=80))
def test_messages_stay_messages_however_long_they_are(texts: list[str]) -> None:
    messages = tuple(Message(role="user", text=text * 100) for text in texts)
    shown = said(chat(content=Content(input=messages)))["gen_ai.input.messages"]
    assert 1 <= len(shown) <= len(texts)
    assert all(message["parts"][0]["type"] == "text" for message in shown)


def test_long_messages_are_cut_alike_and_short_ones_are_kept_whole() -> None:
    content = Content(input=(Message(role="user", text="x" * 5000), Message(role="user", text="short")))
    shown = said(chat(content=content))
    long, short = (message["parts"][0]["content"] for message in shown["gen_ai.input.messages"])
    assert short == "short"
    assert long.endswith("x…")
    assert len(long) > LIMIT - 150
    assert shown[CUT] is True


def test_of_too_many_messages_the_newest_are_kept() -> None:
    content = Content(input=tuple(Message(role="user", text=f"{n} " + "x" * 100) for n in range(500)))
    shown = said(chat(content=content))["gen_ai.input.messages"]
    assert len(shown) > 10
    assert shown[-1]["parts"][0]["content"].startswith("499 ")
    assert shown[0]["parts"][0]["content"].startswith(f"{500 - len(shown)} ")


def test_a_wide_object_that_cannot_be_cut_becomes_a_string() -> None:
    shown = said(tool(content=Content(arguments={f"key-{n}": n for n in range(1000)})))
    assert isinstance(shown["gen_ai.tool.call.arguments"], str)
    assert shown["gen_ai.tool.call.arguments"].startswith('{"key-0":0,"key-1":1,')
    assert shown[CUT] is True


@pytest.mark.parametrize(
    "value",
    [
        "x" * 50_000_000,
        [0] * 2_000_000,
        {str(n): "x" for n in range(500_000)},
        [["x" * 100] * 100] * 5000,
        ["long words " * 12_000] * 400,
        ["words " * 700] * 12_000,
    ],
    ids=["text", "numbers", "keys", "lists", "long texts", "many texts"],
)
def test_content_of_many_megabytes_takes_no_longer_than_what_is_kept(value: Any) -> None:
    before = time.process_time()
    text, cut = fit_json(value, 32 * 1024)
    assert time.process_time() - before < 2
    assert cut
    assert text is not None
    assert 16_000 < len(text.encode()) <= 32 * 1024


def test_a_key_that_is_cut_is_told() -> None:
    text, cut = fit_json({"k" * 200: 1}, LIMIT)
    assert (text, cut) == ('{"' + "k" * 125 + '…":1}', True)


def test_content_may_be_nested_without_end() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    text, cut = fit_json(deep, LIMIT)
    assert (text, cut) == ("[" * 32 + '"…"' + "]" * 32, True)


def test_numbers_that_json_has_no_word_for_stay_readable() -> None:
    assert fit_json([float("nan"), float("-inf"), 10**5000], LIMIT) == ('["nan","-inf","…"]', False)


# Redaction


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail to jo.doe+x@mail.example.co.uk now", f"mail to {MASK} now"),
        ("Authorization: Bearer abcdef0123456789", f"Authorization: {MASK}"),
        ("sent Bearer abcdef0123456789.", f"sent {MASK}"),
        ("sk-proj-abcdefghij0123456789", MASK),
        ("key sk_case_abcdefghij0123456789!", f"key {MASK}!"),
        ("rt_live_abcdefghij0123456789", MASK),
        ("flw_key_abcdef", MASK),
        ("AKIAIOSFODNN7EXAMPLE", MASK),
        ("ghp_" + "a" * 36, MASK),
        ("xoxb-1234567890-abc", MASK),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", MASK),
        ("postgres://user:hunter2@db/x", f"postgres://{MASK}@db/x"),
        ("password=hunter22 ok", f"password={MASK} ok"),
        ('{"client_secret": "hunter22"}', '{"client_secret": "' + MASK + '"}'),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", MASK),
        ("max_tokens=4096, tokens: 1200", "max_tokens=4096, tokens: 1200"),
        ("ask-me-about-something-else", "ask-me-about-something-else"),
        ("HTTP 502 at 10:30:00", "HTTP 502 at 10:30:00"),
    ],
)
def test_secrets_and_addresses_are_masked(text: str, masked: str) -> None:
    assert redact(text) == masked


def test_secrets_are_masked_by_the_name_of_their_key() -> None:
    value = {"api_key": "x", "nested": [{"Password": 5}], "access_token": "y", "max_tokens": 4, "cookie": None}
    text, _ = fit_json(value, LIMIT)
    assert json.loads(text or "") == {
        "api_key": MASK,
        "nested": [{"Password": MASK}],
        "access_token": MASK,
        "max_tokens": 4,
        "cookie": None,
    }


def test_a_secret_is_masked_before_anything_is_cut() -> None:
    for filling in range(LIMIT - 60, LIMIT):
        content = Content(arguments="x" * filling + " sk-" + "a" * 40)
        assert "sk-aa" not in said(tool(content=content))["gen_ai.tool.call.arguments"]


def test_a_secret_at_the_end_of_the_piece_that_is_read_is_not_shown() -> None:
    key = "Bearer " + "k" * 60_000
    assert "kkk" not in redact_start("a@b.cd " * 2000 + key, 4096)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a.",
        "a-",
        "a@",
        "a@b-",
        "a.a@a.",
        "-",
        "eyJ-",
        "eyJa",
        "eyJaaaaaaaa-",
        "://a:",
        "token",
        "token:",
        "Bearer",
        "sk-",
        "sk-abc-",
        "AIza-",
        "rt_a",
    ],
)
def test_no_text_takes_redaction_more_than_linear_time(unit: str) -> None:
    text = unit.replace("Bearer", "Bearer ") * (160_000 // len(unit))
    before = time.process_time()
    redact(f"Bearer token:// a@{text}")
    # A fifth of a second, where a pattern that reads parts of a text again and again takes five.
    assert time.process_time() - before < 1


# Strings and attributes


def test_text_is_cleaned_of_what_stores_refuse() -> None:
    assert clean_text("a\0b\ud800c\udfffdé\n") == "abcdé\n"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(3, 60))
def test_text_is_cut_between_characters(text: str, limit_bytes: int) -> None:
    cut = cut_text(text, limit_bytes)
    assert len(cut.encode()) <= limit_bytes
    assert cut == text if len(text.encode()) <= limit_bytes else text.startswith(cut.removesuffix("…"))


def test_a_line_is_one_line() -> None:
    assert one_line(" a\n\tb  c ", 10) == "a b c"
    assert one_line("x" * 10**7, 10) == "x" * 9 + "…"


def test_attributes_that_cannot_be_sent_are_named() -> None:
    clean, dropped = clean_attributes(
        [
            ("a", None),
            ("b", True),
            ("c", 2**63 - 1),
            ("d", 2**63),
            ("e", 1.5),
            ("f", float("inf")),
            ("g", ("x\0", "y" * 50)),
            ("h", "first"),
            ("h", "last"),
        ],
        20,
    )
    assert clean == {"b": True, "c": 2**63 - 1, "e": 1.5, "g": ("x", "y" * 17 + "…"), "h": "last"}
    assert dropped == ("d", "f")
