import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.model import RunRef, Step, StepKind
from runspan.projection import root_span_id, span_id, trace_id
from runspan.projection.ids import SpanIds
from tests.unit.projection_runs import MS, START, step, tool, traced


def test_ids_are_what_they_have_always_been() -> None:
    """A change here would double every run that was exported before."""
    trace = trace_id("flowyble", "https://api.flowyble.com", "run-1")
    assert trace.hex() == "cc0c06efab033b8f7442182a55d249ae"
    assert root_span_id(trace).hex() == "fa080a6e724a4a84"
    assert span_id(trace, ("step", "1", "0")).hex() == "9aab93d077c13de5"


def test_an_id_is_a_slice_of_a_digest_over_parts_with_their_lengths() -> None:
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (b"runspan/1", b"p", b"t", b"r"))
    assert trace_id("p", "t", "r") == hashlib.sha256(parts).digest()[:16]


@given(st.lists(st.lists(st.text(st.characters()), max_size=3).map(tuple), unique=True, max_size=20))
def test_different_paths_have_different_ids(paths: list[tuple[str, ...]]) -> None:
    trace = trace_id("p", "t", "r")
    ids = {span_id(trace, path) for path in paths}
    assert len(ids) == len(paths)
    assert all(len(each) == 8 and any(each) for each in ids)


def test_parts_cannot_run_into_each_other() -> None:
    assert trace_id("ab", "c", "d") != trace_id("a", "bc", "d")
    assert trace_id("p", "t", "\ud800") != trace_id("p", "t", "\ud801")


def test_an_id_of_all_zeros_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def __init__(self, _data: bytes) -> None: ...
        def update(self, _data: bytes) -> None: ...
        def digest(self) -> bytes:
            return bytes(32)

    monkeypatch.setattr(hashlib, "sha256", Zeros)
    assert trace_id("p", "t", "r") == bytes(15) + b"\1"
    assert root_span_id(bytes(16)) == bytes(7) + b"\1"


def test_steps_with_the_same_key_are_told_apart() -> None:
    ids = SpanIds(trace_id("p", "t", "r"))
    assert len({ids.next(("a",)), ids.next(("a",)), ids.next(("a", "1")), ids.next(("a", "0"))}) == 4


def test_the_order_of_rows_changes_no_id() -> None:
    rows = [tool("row", str(n), name=f"tool-{n}", start_ns=START + n * MS, end_ns=START + n * MS) for n in range(9)]
    shuffled = random.Random(7).sample(rows, len(rows))

    def ids(steps: list[Step]) -> dict[str, bytes]:
        return {span.name: span.span_id for span in traced(*steps).spans}

    assert ids([*rows]) == ids([*shuffled])
    assert len(set(ids([*rows]).values())) == len(rows) + 1


def test_another_platform_or_tenant_is_another_trace() -> None:
    refs = [RunRef("p", "t", "r"), RunRef("q", "t", "r"), RunRef("p", "u", "r"), RunRef("p", "t", "s")]
    traces = [traced(step(StepKind.TOOL_CALL), ref=ref) for ref in refs]
    assert len({trace.trace_id for trace in traces}) == 4
    assert len({span.span_id for trace in traces for span in trace.spans}) == 8
