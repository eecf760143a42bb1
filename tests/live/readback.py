"""A trace read back from Jaeger, held against the trace that was projected."""

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from runspan.otlp.encode import encode
from runspan.otlp.file import otlp_json
from runspan.trace import Trace

Document: TypeAlias = Any


@dataclass(frozen=True)
class Seen:
    """One span, as both sides can be brought to tell it."""

    name: str
    parent: str
    kind: int
    start: int
    end: int
    status: tuple[int, str]
    tags: Mapping[str, Any]
    links: frozenset[tuple[str, str]]
    events: frozenset[tuple[str, int, str]]


def from_jaeger(query_url: str, trace_id: bytes) -> Document:
    """The trace as Jaeger's query API v3 answers: OTLP JSON."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{query_url}/api/v3/traces/{trace_id.hex()}", timeout=30) as response:
        return json.load(response)["result"]


def differences(trace: Trace, found: Document) -> list[str]:
    """What Jaeger shows otherwise than it was projected: `<span>: <field>`, or `spans`, `resource`. Empty: nothing."""
    expected, seen = spans_of(otlp_json(encode(trace).payload)), spans_of(found)
    told: list[str] = []
    if expected.keys() != seen.keys():
        told.append("spans")
    if resources_of(otlp_json(encode(trace).payload)) != resources_of(found):
        told.append("resource")
    for span_id in expected.keys() & seen.keys():
        wanted, got = expected[span_id], seen[span_id]
        told += [
            f"{wanted.name}: {field}"
            for field in Seen.__dataclass_fields__
            if getattr(wanted, field) != getattr(got, field)
        ]
    return told


def spans_of(document: Document) -> dict[str, Seen]:
    """The spans of an OTLP JSON document by id. Raises AssertionError where one id stands twice."""
    spans = [
        span for resource in document["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
    ]
    by_id = {span["spanId"]: _seen(span) for span in spans}
    assert len(by_id) == len(spans), "a span was stored twice"
    return by_id


def resources_of(document: Document) -> list[dict[str, Any]]:
    """The resources' attributes, and the scopes beside them."""
    return [
        {**_values(resource["resource"].get("attributes", [])), "scopes": [s["scope"] for s in resource["scopeSpans"]]}
        for resource in document["resourceSpans"]
    ]


def _seen(span: Document) -> Seen:
    status = span.get("status", {})
    return Seen(
        name=span["name"],
        parent=span.get("parentSpanId", ""),
        kind=span["kind"],
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        status=(status.get("code", 0), status.get("message", "")),
        tags=_values(span.get("attributes", [])),
        links=frozenset((link["traceId"], link["spanId"]) for link in span.get("links", [])),
        events=frozenset(
            (
                event["name"],
                int(event["timeUnixNano"]),
                json.dumps(_values(event.get("attributes", [])), sort_keys=True),
            )
            for event in span.get("events", [])
        ),
    )


def _values(attributes: Document) -> dict[str, Any]:
    return {attribute["key"]: _value(attribute["value"]) for attribute in attributes}


def _value(value: Document) -> Any:
    ((kind, inner),) = value.items()
    match kind:
        case "intValue":
            return int(inner)
        case "doubleValue":
            return float(inner)
        case "arrayValue":
            return [_value(item) for item in inner.get("values", [])]
        case _:
            return inner
