import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runspan import document
from runspan.document import DEEPEST, TooManyValues, parsed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def nested(levels: int, bottom: Any = None) -> str:
    """As text: no library writes what is this deep."""
    return "[" * levels + json.dumps(bottom) + "]" * levels


def without_what_is_deep(value: Any, levels: int) -> Any:
    """The reference: by recursion, over a value that is not all that deep."""
    if not isinstance(value, list | dict):
        return value
    if levels == 0:
        return None
    if isinstance(value, list):
        return [without_what_is_deep(item, levels - 1) for item in value]
    return {key: without_what_is_deep(item, levels - 1) for key, item in value.items()}


@given(VALUES, VALUES)
@example("[", '"]')
@example({"\\": ["\\"]}, {'"': '\\"'})
def test_only_what_is_too_deep_is_left_out(value: Any, other: Any):
    depth = DEEPEST - 3
    text = f'{{"too deep": {nested(3000)}, "a": {"[" * (depth - 1)}{json.dumps(value)}{"]" * (depth - 1)}, '
    read = parsed(f'{text} "b": {json.dumps(other)}}}'.encode())
    assert read["b"] == other
    value_there = read["a"]
    for _ in range(depth - 1):
        [value_there] = value_there
    assert value_there == without_what_is_deep(value, 3)


@pytest.mark.parametrize("levels", [DEEPEST + 1, 5000, 500_000])
@pytest.mark.parametrize("ending", ["]", '"', "", "}"])
def test_what_is_no_json_does_not_become_one(levels: int, ending: str):
    with pytest.raises(ValueError, match=r"."):
        parsed(("[" * levels + ending * (levels - 1)).encode())


def test_a_document_too_deep_and_too_long_to_be_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document, "_MOST_TOKENS", 10_000)
    parsed(nested(4999).encode())
    with pytest.raises(ValueError, match="too deep"):
        parsed(nested(5001).encode())


@pytest.mark.parametrize("many", ["[],", "{},", "1,", '"",', '{"a":0},'])
def test_a_document_of_more_values_than_memory_holds(many: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document, "MOST_VALUES", 1000)
    assert parsed(f"[{many * 300}0]".encode())
    with pytest.raises(TooManyValues, match="1,000 values"):
        parsed(f"[{many * 1001}0]".encode())


def test_what_only_looks_like_values_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document, "MOST_VALUES", 1000)
    for text in ("[{,}]" * 2000, json.dumps([{"a": "b,c"}] * 500), '"\\' * 3000):
        assert parsed(json.dumps({"inputData": text}).encode()) == {"inputData": text}


def test_a_broken_string_is_read_once():
    """Of quotation marks that are all escaped, none begins another string: in quadratic time this would take hours."""
    with pytest.raises(ValueError, match=r"."):
        parsed(b"[" * 2000 + b'"' + b'\\"' * 2_000_000)
