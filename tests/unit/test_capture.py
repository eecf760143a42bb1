"""What of content is left when kinds, keys and patterns are switched."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.model import AttributeValue, Content, Json, Message, RunStatus
from runspan.projection.capture import ContentRules, KeyRules
from runspan.projection.content import fit_json, run_content, step_content
from runspan.projection.redaction import MASK
from runspan.projection.settings import ProjectionSettings
from tests.unit.projection_runs import chat, note, run_of, tool, traced

LIMIT = 2048
EVERY_KIND = Content(
    system="SYSTEM",
    input=(Message(role="user", text="INPUT"),),
    output=(Message(role="assistant", text="OUTPUT", reasoning="REASONING"),),
    arguments={"a": "ARGUMENT"},
    result={"r": "RESULT"},
    text="NOTE",
    thought="THOUGHT",
)
SAID = {"SYSTEM", "INPUT", "OUTPUT", "REASONING", "ARGUMENT", "RESULT", "NOTE", "THOUGHT"}
KINDS = {
    "prompts": {"SYSTEM", "INPUT"},
    "messages": {"OUTPUT"},
    "reasoning": {"REASONING", "THOUGHT"},
    "arguments": {"ARGUMENT"},
    "results": {"RESULT"},
    "logs": {"NOTE"},
}


def shown(pairs: list[tuple[str, AttributeValue | None]]) -> set[str]:
    return {word for word in SAID if any(word in str(value) for _, value in pairs)}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_switch_of_its_own(kind: str) -> None:
    only = ContentRules(**{other: other == kind for other in KINDS})
    without = ContentRules(**{kind: False})
    for content in (EVERY_KIND, Content(thought="THOUGHT")):
        present = {word for word in SAID if word in repr(content)}
        # A note has either a text or a thought; the text goes first.
        said = present - ({"THOUGHT"} if "NOTE" in present and kind != "reasoning" else set())
        assert shown(step_content(chat(content=content), LIMIT, only)) == said & KINDS[kind]
        left = shown(step_content(chat(content=content), LIMIT, without))
        assert left >= present - KINDS[kind] - {"THOUGHT"}
        assert not left & KINDS[kind]
        assert shown(run_content(run_of(content=content), LIMIT, without)) == left


def test_with_every_kind_off_nothing_is_said() -> None:
    nothing = ContentRules(**dict.fromkeys(KINDS, False))
    assert step_content(chat(content=EVERY_KIND), LIMIT, nothing) == []


def test_a_message_of_which_nothing_is_left_is_left_out() -> None:
    content = Content(output=(Message(role="assistant", reasoning="hm"), Message(role="assistant", text="yes")))
    ((_, text),) = step_content(chat(content=content), LIMIT, ContentRules(reasoning=False))
    assert [message["parts"] for message in json.loads(str(text))] == [[{"type": "text", "content": "yes"}]]


@pytest.mark.parametrize(
    ("arguments", "results", "wanted"), [(True, True, True), (True, False, True), (False, True, True), (False,) * 3]
)
def test_what_tools_said_is_wanted_for_either_side(arguments: bool, results: bool, wanted: bool) -> None:
    rules = ContentRules(arguments=arguments, results=results)
    assert ProjectionSettings(source="s", capture_content=True, content=rules).tool_content is wanted
    assert ProjectionSettings(source="s", content=rules).tool_content is False


# Keys


def fitted(value: Json, *, allowed: set[str] | None = None, denied: set[str] | None = None, limit: int = LIMIT) -> Any:
    keys = KeyRules(allowed=frozenset(allowed or ()), denied=frozenset(denied or ()))
    text, _ = fit_json(value, limit, keys=keys)
    return None if text is None else json.loads(text)


ORDER = {"order": {"id": 7, "Customer": {"name": "Ada", "id": 9}}, "items": [{"id": 1, "sku": "x"}], "note": "hi"}


@pytest.mark.parametrize(
    ("value", "denied", "expected"),
    [
        (ORDER, {"note"}, ORDER | {"note": MASK}),
        (ORDER, {"customer"}, ORDER | {"order": {"id": 7, "Customer": MASK}}),
        ({"a": [{"id": 1}, {"id": {"deep": 2}}]}, {"id"}, {"a": [{"id": MASK}, {"id": MASK}]}),
        ("{not json", {"id"}, MASK),
        ("plain id: 7", {"id"}, "plain id: 7"),
        ("[" * 5000 + "]" * 5000, {"id"}, MASK),
        (None, {"id"}, None),
    ],
)
def test_values_of_denied_keys_are_masked_at_any_depth(value: Json, denied: set[str], expected: Json) -> None:
    assert fitted(value, denied=denied) == expected


@pytest.mark.parametrize(
    ("value", "allowed", "expected"),
    [
        (ORDER, {"order", "id"}, {"order": {"id": 7}}),
        (ORDER, {"id"}, {}),
        (ORDER, {"items", "sku"}, {"items": [{"sku": "x"}]}),
        (ORDER, {"order", "customer", "name"}, {"order": {"Customer": {"name": "Ada"}}}),
        ([1, "x", {"id": 1, "n": 2}, [3, {"id": 4}], None], {"id"}, [{"id": 1}, [{"id": 4}]]),
        ({"id": [1, "x", [2]]}, {"id"}, {"id": [1, "x", [2]]}),
        ("plain", {"id"}, None),
        (7, {"id"}, None),
        (True, {"id"}, None),
    ],
)
def test_with_allowed_keys_all_else_is_left_out(value: Json, allowed: set[str], expected: Json) -> None:
    assert fitted(value, allowed=allowed) == expected


def test_a_key_both_allowed_and_denied_is_masked() -> None:
    assert fitted({"id": 7, "x": 1}, allowed={"id"}, denied={"id"}) == {"id": MASK}


def test_json_in_strings_is_under_the_same_rules() -> None:
    inner = json.dumps(json.dumps({"id": 7, "ssn": "123"}))
    assert fitted(json.loads(inner), denied={"ssn"}) == '{"id":7,"ssn":"[redacted]"}'
    assert fitted({"body": ' {"id": 7, "ssn": "123"}'}, denied={"ssn"}) == {"body": '{"id":7,"ssn":"[redacted]"}'}
    assert fitted({"body": '[{"id": 7, "x": 1}, 2]'}, allowed={"body", "id"}) == {"body": '[{"id":7},2]'}
    assert fitted({"body": '{"ssn": "123", '}, denied={"ssn"}) == {"body": MASK}
    deep = json.dumps({"ssn": "123"})
    for _ in range(4):
        deep = json.dumps({"body": deep})
    assert "123" not in json.dumps(fitted(json.loads(deep), denied={"ssn"}))


LEAVES = st.none() | st.booleans() | st.integers() | st.just("LEAK")


def objects(keys: str) -> st.SearchStrategy[Any]:
    return st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(keys), inner, max_size=4)
            | st.dictionaries(st.sampled_from(keys), inner, max_size=4).map(json.dumps)
        ),
        max_leaves=20,
    )


def keys_in(value: Any) -> set[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return set()
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set[str]().union(*map(keys_in, value)) if isinstance(value, list) else set()


@given(objects("abcD"), st.integers(10, 3000))
def test_no_key_that_is_not_allowed_gets_through_however_it_is_wrapped(value: Any, limit: int) -> None:
    text, _ = fit_json(value, limit, keys=KeyRules(allowed=frozenset("ad")))
    if text is not None:
        assert keys_in(json.loads(text)) <= {"a", "D"}


@given(objects("ab"))
def test_nothing_under_a_denied_key_gets_through_however_it_is_wrapped(value: Any) -> None:
    text, _ = fit_json({"x": value}, 10_000, keys=KeyRules(denied=frozenset("abx")))
    assert text == '{"x":"[redacted]"}'


def test_what_may_not_be_shown_takes_no_room() -> None:
    value = {"big": "x" * 100_000, "id": "y" * 1500}
    assert fitted(value, allowed={"id"}) == {"id": "y" * 1500}
    assert fitted(value, denied={"big"}) == {"big": MASK, "id": "y" * 1500}


def test_rules_for_keys_are_for_arguments_and_results() -> None:
    rules = ContentRules(keys=KeyRules(allowed=frozenset({"a"})))
    pairs = dict(step_content(tool(content=EVERY_KIND), LIMIT, rules))
    assert pairs["gen_ai.tool.call.arguments"] == '{"a":"ARGUMENT"}'
    assert pairs["gen_ai.tool.call.result"] == "{}"
    assert "INPUT" in str(pairs["gen_ai.input.messages"])


# Patterns and sizes


def test_own_patterns_mask_every_text_and_every_key() -> None:
    rules = ContentRules(masks=(re.compile("[A-Z]{4,}"),))
    content = Content(
        system="SYSTEM",
        input=(Message(role="user", text="an INPUT here"),),
        arguments={"KEYS are masked": ["VALUES too", {"x": "deep DOWN"}]},
        text="a NOTE",
    )
    pairs = dict(step_content(chat(content=content), LIMIT, rules))
    assert not re.search("[A-Z]{4,}", "".join(str(value) for value in pairs.values()))
    assert pairs["gen_ai.tool.call.arguments"] == f'{{"{MASK} are masked":["{MASK} too",{{"x":"deep {MASK}"}}]}}'


def test_own_patterns_mask_error_descriptions_with_content_off() -> None:
    settings = ProjectionSettings(source="s", content=ContentRules(masks=(re.compile("PAT-[0-9]+"),)))
    trace = traced(status=RunStatus.FAILED, error_description="no such patient PAT-123", settings=settings)
    assert trace.root.error == f"no such patient {MASK}"


def test_an_address_in_a_key_is_masked() -> None:
    assert fitted({"jo@x.org": 1, "al@x.org": 2}) == {MASK: 2}


@given(st.integers(30, 5000), st.integers(30, 5000))
def test_the_smaller_limit_holds(ours: int, theirs: int) -> None:
    content = Content(input=(Message(role="user", text="word " * 3000),), result=["x" * 50] * 200, text="y" * 9000)
    pairs = step_content(chat(content=content), theirs, ContentRules(max_bytes=ours))
    assert len(pairs) == 4
    assert all(len(str(value).encode()) <= min(ours, theirs) for _, value in pairs)


def test_a_thought_is_shown_where_a_note_would_be() -> None:
    trace = traced(
        note("thinking", content=Content(thought="hm")), settings=ProjectionSettings(source="s", capture_content=True)
    )
    assert trace.root.events[0].attributes["runspan.note.text"] == "hm"
