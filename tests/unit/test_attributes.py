"""The table of attributes tells all that a trace of ours may carry, and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from runspan.model import AttributeValue, Cost, Run, RunStatus, Usage
from runspan.otlp.encode import encode
from runspan.otlp.presets import GENERIC, PRESETS, Preset
from runspan.projection import ProjectionSettings, project
from runspan.projection.conventions import CONVENTIONS
from runspan.projection.conventions.table import ATTRIBUTES, SPANS, Place, find
from runspan.trace import Span, Trace
from tests.unit.fixture_runs import fixture_runs, full_run

EVERYTHING = replace(GENERIC, name="every convention", conventions=tuple(CONVENTIONS))
ALL_PRESETS = {**PRESETS, EVERYTHING.name: EVERYTHING}
TYPES = {str: "string", bool: "boolean", int: "int", float: "double", tuple: "string[]"}
OPERATIONS: dict[AttributeValue | None, Place] = {"chat": "chat", "embeddings": "embeddings", "execute_tool": "tool"}


def runs() -> Iterator[tuple[str, Run]]:
    yield from fixture_runs()
    full = full_run()
    yield "a full run", full
    yield "its calls tell more", replace(full, usage=Usage(input_tokens=1), cost=Cost(Decimal("0.001")))
    yield "its totals alone", replace(full, steps=())
    yield "an incomplete run", replace(full, incomplete=True, status=RunStatus.SUCCESS)


RUNS = dict(runs())


def place_of(span: Span) -> Place:
    if span.parent_id is None:
        return "root"
    if place := OPERATIONS.get(span.attributes.get("gen_ai.operation.name")):
        return place
    match span.name.split():
        case ["iteration", *_]:
            return "iteration"
        case ["api", *_]:
            return "api"
        case _:
            return "note"


def told(trace: Trace) -> Iterator[tuple[Place, Mapping[str, AttributeValue]]]:
    yield "resource", trace.resource
    for span in trace.spans:
        yield place_of(span), span.attributes
        yield from (("event", event.attributes) for event in span.events)
        yield from (("link", link.attributes) for link in span.links)


def traces(preset: Preset, *, with_content: bool) -> Iterator[tuple[str, Trace]]:
    settings = ProjectionSettings(source="s", service_namespace="agents", preset=preset, capture_content=with_content)
    yield from ((name, project(run, settings)) for name, run in RUNS.items())


@pytest.mark.parametrize("with_content", [False, True], ids=["without content", "with content"])
@pytest.mark.parametrize("preset", ALL_PRESETS.values(), ids=ALL_PRESETS)
def test_every_attribute_is_in_the_table(preset: Preset, with_content: bool) -> None:
    wrong: set[str] = set()
    for name, trace in traces(preset, with_content=with_content):
        for place, attributes in told(trace):
            for key, value in attributes.items():
                row = find(key)
                if row is None:
                    wrong.add(f"{key}: not in the table (on {place} of {name})")
                elif place not in row.where:
                    wrong.add(f"{key}: not to stand on {place} ({name})")
                elif TYPES[type(value)] != row.type:
                    wrong.add(f"{key}: {value!r} is no {row.type} ({name})")
                elif row.is_content and not with_content:
                    wrong.add(f"{key}: content ({name})")
                elif row.whose in CONVENTIONS and row.whose not in preset.conventions:
                    wrong.add(f"{key}: not of a convention of {preset.name}")
    assert sorted(wrong) == []


def test_no_row_of_the_table_is_dead() -> None:
    made = [trace for _, trace in traces(EVERYTHING, with_content=True)]
    made.append(encode(made[-1], trace_bytes=4000).trace)
    emitted = {find(key) for trace in made for _, attributes in told(trace) for key in attributes}
    assert [row.name for row in ATTRIBUTES if row not in emitted] == []


def test_no_name_stands_twice() -> None:
    names = [row.name for row in ATTRIBUTES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("runspan.run.cost.usd", "runspan.run.cost.<unit>"),
        ("runspan.run.cost.source", "runspan.run.cost.source"),
        ("llm.output_messages.12.message.role", "llm.output_messages.<n>.message.role"),
        ("llm.output_messages.x.message.role", None),
        ("runspan.run", None),
    ],
)
def test_a_name_with_a_place_in_it_is_found(name: str, row: str | None) -> None:
    found = find(name)
    assert (found.name if found else None) == row


def test_spans_are_told_apart() -> None:
    trace = project(full_run(), ProjectionSettings(source="s"))
    assert {place_of(span) for span in trace.spans} == set(SPANS)
