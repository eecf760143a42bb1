"""What makes the bytes of a trace sound, strictly: OTLP's own rules, the backends' limits and our trace contract.

`faults` reads nothing but the bytes, through OTLP's own messages, and shares no code with what made them.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

MAX_INT64 = 2**63 - 1
"""Times are unsigned on the wire, but Jaeger, Tempo and the Collector keep them in signed integers."""
MOST_ATTRIBUTES = 128
MOST_EVENTS = 1000
MOST_LINKS = 128
MOST_SPANS = 10_001
NAME_CHARACTERS = 256
DESCRIPTION_CHARACTERS = 256
LABEL_BYTES = 1024
"""Of everything that is not content: it stands on every span."""
TIMINGS = {"reported", "clamped", "inferred"}
KINDS = {Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CLIENT}
CONTENT_JSON_KEYS = {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "langfuse.observation.input",
    "tool.parameters",
}
CONTENT_KEYS = CONTENT_JSON_KEYS | {
    "input.mime_type",
    "input.value",
    "langfuse.observation.output",
    "output.mime_type",
    "output.value",
    "runspan.note.text",
}
JSON_KEYS = CONTENT_JSON_KEYS | {"langfuse.observation.cost_details", "langfuse.observation.usage_details"}
CONTENT_PREFIXES = ("llm.input_messages.", "llm.output_messages.")
EVERY_SPAN_SAYS = {"runspan.run.id", "runspan.source", "runspan.platform", "runspan.timing"}
TOTALS = {
    "gen_ai.usage.input_tokens": "runspan.run.input_tokens",
    "gen_ai.usage.output_tokens": "runspan.run.output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "runspan.run.cache_read_tokens",
    "gen_ai.usage.cache_write.input_tokens": "runspan.run.cache_write_tokens",
    "gen_ai.usage.reasoning.output_tokens": "runspan.run.reasoning_tokens",
    "runspan.usage.total_tokens": "runspan.run.total_tokens",
    "llm.token_count.prompt": "runspan.run.input_tokens",
    "llm.token_count.completion": "runspan.run.output_tokens",
    "llm.token_count.prompt_details.cache_read": "runspan.run.cache_read_tokens",
    "llm.token_count.prompt_details.cache_write": "runspan.run.cache_write_tokens",
    "llm.token_count.completion_details.reasoning": "runspan.run.reasoning_tokens",
}
"""What a backend may sum over a trace, and the platform's own total that the sum must not exceed."""
COST, RUN_COST = "runspan.cost.", "runspan.run.cost."
FIGURES = ("gen_ai.usage.", "runspan.usage.", "llm.token_count.", "llm.cost.", COST, RUN_COST)
DESCRIPTIONS = {"langfuse.observation.status_message"}

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What depends on the settings under which a trace was made."""

    attribute_bytes: int = 32 * 1024
    with_content: bool = False
    with_flags: bool = False
    """The SDK's own encoder marks whether a parent is remote."""
    resource: Mapping[str, Any] | None = None
    forbidden: tuple[str, ...] = ()
    """Texts that may stand nowhere in the bytes."""
    only_in_descriptions: tuple[str, ...] = ()
    """Texts that may stand nowhere but in the description of a status."""


STRICT = Rules()


def faults(payload: bytes, rules: Rules = STRICT) -> list[str]:
    """Everything that is wrong with an `ExportTraceServiceRequest` that holds one trace; empty for a sound one."""
    try:
        request = ExportTraceServiceRequest.FromString(payload)
    except DecodeError:
        return ["not an ExportTraceServiceRequest, or a text in it is not UTF-8"]
    found = [f"{text!r} is in the bytes" for text in rules.forbidden if text.encode() in payload]
    if len(request.resource_spans) != 1 or len(request.resource_spans[0].scope_spans) != 1:
        return [*found, "not one resource with one scope"]
    found += [f"{text!r} is told outside a status" for text in rules.only_in_descriptions if _outside(request, text)]
    (resource_spans,) = request.resource_spans
    (scope_spans,) = resource_spans.scope_spans
    resource, wrong = _attributes(resource_spans.resource.attributes, "resource", rules.attribute_bytes, rules)
    found += wrong
    if not resource.get("service.name"):
        found.append("resource: no service.name")
    if rules.resource is not None and resource != rules.resource:
        found.append(f"resource: {resource}, not {dict(rules.resource)}")
    if (scope_spans.scope.name, scope_spans.scope.version) != ("runspan", "1"):
        found.append("scope: not runspan 1")
    return [*found, *_trace_faults(list(scope_spans.spans), rules)]


def _trace_faults(spans: list[Span], rules: Rules) -> Iterator[str]:
    if not spans:
        yield "no spans"
        return
    if len(spans) > MOST_SPANS:
        yield f"{len(spans)} spans"
    if len({span.trace_id for span in spans}) != 1:
        yield "more than one trace id"
    if len({span.span_id for span in spans}) != len(spans):
        yield "span ids repeat"
    root, seen, read = spans[0], set[bytes](), list[Attributes]()
    types: dict[str, type] = {}
    for place, span in enumerate(spans):
        where = f"span {place} ({span.name!r:.60})"
        if place == 0 and span.parent_span_id:
            yield f"{where}: the first span has a parent"
        if place > 0 and span.parent_span_id not in seen:
            yield f"{where}: its parent does not come before it"
        seen.add(span.span_id)
        told, wrong = _span_faults(span, root, where, rules)
        yield from wrong
        for attributes in told:
            for key, value in attributes.items():
                if types.setdefault(key, type(value)) is not type(value):
                    yield f"{where}: {key} is {type(value).__name__} here and {types[key].__name__} elsewhere"
        read += told
    yield from _sum_faults(read)


def _span_faults(span: Span, root: Span, where: str, rules: Rules) -> tuple[list[Attributes], list[str]]:
    """The attributes of the span and of its events, and what is wrong."""
    found: list[str] = []
    attributes, wrong = _attributes(span.attributes, where, LABEL_BYTES, rules)
    found += wrong
    told = [attributes]
    for condition, fault in (
        (_is_id(span.trace_id, 16), "the trace id is not 16 bytes, or zero"),
        (_is_id(span.span_id, 8), "the span id is not 8 bytes, or zero"),
        (span.kind in KINDS, "a kind that we do not emit"),
        (0 < span.start_time_unix_nano < span.end_time_unix_nano, "it does not end after it starts"),
        (span.end_time_unix_nano <= MAX_INT64, "it ends behind 2262"),
        (root.start_time_unix_nano <= span.start_time_unix_nano, "it starts before the root"),
        (span.end_time_unix_nano <= root.end_time_unix_nano, "it ends after the root"),
        (not span.trace_state and (rules.with_flags or not span.flags), "it has a trace state or flags"),
        (len(span.events) <= MOST_EVENTS, f"{len(span.events)} events"),
        (len(span.links) <= MOST_LINKS, f"{len(span.links)} links"),
        (set(attributes) >= EVERY_SPAN_SAYS, "it does not say whose it is"),
        (attributes.get("runspan.timing") in TIMINGS, "an unknown timing"),
        ((span.status.code == Status.STATUS_CODE_ERROR) == ("error.type" in attributes), "error.type without ERROR"),
        (span.status.code != Status.STATUS_CODE_OK, "status OK"),
        (span.status.code == Status.STATUS_CODE_ERROR or not span.status.message, "a description without ERROR"),
        (len(span.status.message) <= DESCRIPTION_CHARACTERS, "too long a description"),
        (_is_line(span.status.message, DESCRIPTION_CHARACTERS, may_be_empty=True), "an unfit description"),
        (_is_line(span.name, NAME_CHARACTERS), "an unfit name"),
    ):
        if not condition:
            found.append(f"{where}: {fault}")
    for event in span.events:
        at = f"{where}, event {event.name!r:.60}"
        attributes, wrong = _attributes(event.attributes, at, LABEL_BYTES, rules)
        found += wrong
        told.append(attributes)
        if not span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano:
            found.append(f"{at}: outside its span")
        if not _is_line(event.name, NAME_CHARACTERS):
            found.append(f"{at}: an unfit name")
    for link in span.links:
        if not _is_id(link.trace_id, 16) or not _is_id(link.span_id, 8):
            found.append(f"{where}: a link to nothing")
        if link.trace_id == span.trace_id:
            found.append(f"{where}: a link to its own trace")
        found += _attributes(link.attributes, f"{where}, link", LABEL_BYTES, rules)[1]
    return told, found


def _attributes(pairs: Iterable[KeyValue], where: str, label_bytes: int, rules: Rules) -> tuple[Attributes, list[str]]:
    attributes: Attributes = {}
    found: list[str] = []
    for pair in pairs:
        at = f"{where}: {pair.key!r:.100}"
        if pair.key in attributes:
            found.append(f"{at} comes twice")
        if not pair.key or "\0" in pair.key or not pair.key.isascii() or len(pair.key) > NAME_CHARACTERS:
            found.append(f"{at} is no key")
        is_content = pair.key in CONTENT_KEYS or pair.key.startswith(CONTENT_PREFIXES)
        if is_content and not rules.with_content:
            found.append(f"{at} is content")
        value, fault = _value(pair.value, rules.attribute_bytes if is_content else label_bytes)
        attributes[pair.key] = value
        if fault:
            found.append(f"{at} {fault}")
        elif pair.key in JSON_KEYS and not _is_json(value):
            found.append(f"{at} is not JSON")
    for side in ("input", "output"):
        if attributes.get(f"{side}.mime_type") == "application/json" and not _is_json(attributes[f"{side}.value"]):
            found.append(f"{where}: {side}.value is not JSON")
    if len(attributes) > MOST_ATTRIBUTES:
        found.append(f"{where}: {len(attributes)} attributes")
    return attributes, found


def _value(value: AnyValue, limit_bytes: int) -> tuple[Any, str | None]:
    match value.WhichOneof("value"):
        case "string_value":
            text = value.string_value
            fault = "holds NUL" if "\0" in text else f"is {len(text)} characters long"
            return text, fault if "\0" in text or len(text.encode()) > limit_bytes else None
        case "double_value":
            return value.double_value, None if math.isfinite(value.double_value) else "is not finite"
        case "bool_value":
            return value.bool_value, None
        case "int_value":
            return value.int_value, None
        case "array_value":
            items = [_value(item, limit_bytes) for item in value.array_value.values]
            if len(items) > MOST_ATTRIBUTES or any(not isinstance(item, str) for item, _ in items):
                return tuple(item for item, _ in items), "is not a short list of texts"
            return tuple(item for item, _ in items), next((fault for _, fault in items if fault), None)
        case kind:
            return None, f"has no value that every backend takes ({kind})"


def _sum_faults(told: list[Attributes]) -> Iterator[str]:
    """Sums over the spans and events of a trace against the totals that its root tells."""
    totals = told[0]
    for key, total_key in TOTALS.items():
        spent = sum(attributes.get(key, 0) for attributes in told)
        if spent > totals.get(total_key, math.inf):
            yield f"{key} adds up to {spent}, which is more than {totals[total_key]}"
    parts = ("input_tokens", "output_tokens")
    both = sum(attributes.get(f"gen_ai.usage.{part}", 0) for attributes in told for part in parts)
    # Platforms tell totals that contradict themselves, so the whole may be the sum of its parts instead.
    whole = max(
        totals.get("runspan.run.total_tokens", math.inf), sum(totals.get(f"runspan.run.{part}", 0) for part in parts)
    )
    if both > whole:
        yield f"input and output tokens add up to {both}, which is more than the total"
    for key, total in totals.items():
        if key.startswith(RUN_COST) and isinstance(total, float):
            unit = key.removeprefix(RUN_COST)
            spent = math.fsum(attributes.get(COST + unit, 0.0) for attributes in told)
            if spent > total * (1 + 1e-9):
                yield f"{COST}{unit} adds up to {spent}, which is more than {total}"
    for attributes in told:
        for key, value in attributes.items():
            if key.startswith(FIGURES) and not isinstance(value, str) and value < 0:
                yield f"{key} is {value}"


def _outside(request: ExportTraceServiceRequest, text: str) -> bool:
    if text.encode() not in request.SerializeToString():
        return False
    silent = ExportTraceServiceRequest()
    silent.CopyFrom(request)
    for span in silent.resource_spans[0].scope_spans[0].spans:
        # Some backends read the description under a name of their own: the same words, and no others.
        again = [a for a in span.attributes if a.key in DESCRIPTIONS and a.value.string_value == span.status.message]
        for attribute in again:
            span.attributes.remove(attribute)
        span.ClearField("status")
    return text.encode() in silent.SerializeToString()


def _is_id(value: bytes, size: int) -> bool:
    return len(value) == size and any(value)


def _is_line(text: str, limit_characters: int, *, may_be_empty: bool = False) -> bool:
    if not text.strip():
        return may_be_empty and not text
    return len(text) <= limit_characters and "\0" not in text and len(text.splitlines()) == 1


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)
