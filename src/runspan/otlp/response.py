"""What OTLP receivers say in their own words, read the same over HTTP and gRPC."""

import json
import re
from collections.abc import Iterable
from typing import cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from runspan.model import Json
from runspan.otlp.base import Answer, AnswerKind
from runspan.projection.redaction import redact_start
from runspan.secrets import mask
from runspan.waits import FOREVER_SECONDS

MAX_BYTES = 1024 * 1024
"""A larger answer is none to an export, and is not read to its end."""
LONGEST_WORDS = 256
SHORTEST_SECRET = 8
"""A header value shorter than this (a tenant's name, a flag) is not taken for a secret in a backend's words."""


def read_response(body: bytes, secrets: Iterable[str]) -> Answer | None:
    """The answer in an `ExportTraceServiceResponse`, protobuf or JSON; None where the body is not one.

    An empty body is the message with nothing in it: everything was accepted.
    """
    response = ExportTraceServiceResponse()
    try:
        # Some receivers answer JSON to protobuf; no protobuf form of this message begins with a brace.
        if body.lstrip().startswith(b"{"):
            if _is_refusal(json.loads(body)):
                return None
            json_format.Parse(body, response, ignore_unknown_fields=True)
        else:
            response.MergeFromString(body)
    except (DecodeError, json_format.ParseError, ValueError, RecursionError):
        return None
    partial = response.partial_success
    if not partial.rejected_spans and not partial.error_message:
        return Answer(AnswerKind.ACCEPTED)
    return Answer(
        AnswerKind.PARTIAL, clean(partial.error_message, secrets), rejected_spans=max(0, partial.rejected_spans)
    )


def _is_refusal(answer: Json) -> bool:
    """Whether JSON that came with a good status is a refusal all the same, as some gateways send them.

    What else stands beside or instead of `partialSuccess` is the backend's own affair: Langfuse says a word of its own.
    """
    if not isinstance(answer, dict):
        return True
    said = cast("dict[str, Json]", answer)
    partial = said.get("partialSuccess", said.get("partial_success"))
    code, status = said.get("code"), said.get("status")
    return bool(
        not (partial is None or isinstance(partial, dict))
        or said.get("error")
        or said.get("errors")
        or said.get("success") is False
        or (isinstance(status, str) and status.lower() in ("error", "fail", "failed", "failure"))
        # A google.rpc.Status, or an HTTP status in words of its own.
        or ("message" in said and isinstance(code, int) and code != 0 and not 200 <= code < 300)
    )


def read_status(body: bytes, *, is_json: bool) -> Status | None:
    """The `google.rpc.Status` that a refusal carries; None where the body is not one."""
    try:
        return json_format.Parse(body, Status(), ignore_unknown_fields=True) if is_json else Status.FromString(body)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError):
        return None


def retry_delay_seconds(status: Status) -> float | None:
    """What a status' RetryInfo asks for, as `waits` has it; 0 where it asks for no delay, None where it has none."""
    for detail in status.details:
        info = RetryInfo()
        try:
            if detail.Unpack(info):
                seconds = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                return min(max(0.0, seconds), FOREVER_SECONDS)
        except DecodeError:
            return None
    return None


def clean(text: str, secrets: Iterable[str]) -> str:
    """A backend's words fit for a log line: one line, at most 256 characters, without secrets.

    Gateways are known to repeat the key that they refuse, and backends whatever they could not take.
    """
    for secret in secrets:
        # `Bearer abc`, `Basic abc`: the credential may come back without its scheme.
        for part in {secret, secret.rpartition(" ")[2]}:
            if len(part) >= SHORTEST_SECRET:
                text = text.replace(part, "***")
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", mask(text)).strip()
    return redact_start(line, LONGEST_WORDS)[:LONGEST_WORDS]
