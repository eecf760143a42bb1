"""Reads a W3C trace context."""

import re

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def parse_traceparent(header: str) -> tuple[bytes, bytes] | None:
    """Trace id and span id of a `traceparent`, or None where it is not one by the W3C recommendation."""
    match = _FORM.fullmatch(header.strip())
    if match is None:
        return None
    version, trace, span, more = match.groups()
    # Only versions to come may carry more fields than version 00 knows.
    if version == "ff" or (version == "00" and more is not None):
        return None
    trace_id, span_id = bytes.fromhex(trace), bytes.fromhex(span)
    return (trace_id, span_id) if any(trace_id) and any(span_id) else None
