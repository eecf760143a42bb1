"""Whatever a destination answers is an Answer, soon, and in one line."""

import asyncio
import json
import time
from collections.abc import Mapping

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import example, given
from hypothesis import strategies as st

from runspan.http import BodyTooLarge, Reply
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.http import HttpExporter
from runspan.otlp.response import LONGEST_WORDS, retry_delay_seconds
from runspan.waits import FOREVER_SECONDS, pause_asked, retry_after_seconds
from tests.traces import encoded_trace

SECRET = "Bearer 0123456789abcdef"
SECONDS = 2.0
PROTOBUF, JSON = "application/x-protobuf", "application/json"


class Connection:
    """In place of a real one."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def request(self, *args: object, **settings: object) -> Reply:
        if len(self._reply.body) > 1_000_000:
            raise BodyTooLarge
        return self._reply

    async def close(self) -> None:
        pass


def answer_to(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    exporter = HttpExporter("http://collector:4318/v1/traces", headers=lambda: {"authorization": SECRET})
    exporter._connection = Connection(Reply(status, headers, body))  # type: ignore[assignment]
    begun = time.monotonic()
    answer = asyncio.run(exporter.send([encoded_trace()]))
    assert time.monotonic() - begun < SECONDS
    assert "\n" not in answer.reason
    assert SECRET.partition(" ")[2] not in answer.reason
    assert len(answer.reason) < LONGEST_WORDS + 200
    assert answer.rejected_spans >= 0
    return answer


texts = st.text(max_size=30) | st.just(SECRET) | st.just("request body too large")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    ["partialSuccess", "rejectedSpans", "errorMessage", "message", "code", "details", "@type", "value"]
)
shaped = st.recursive(json_values, lambda inner: st.dictionaries(keys, inner, max_size=4), max_leaves=8)
bodies = st.binary(max_size=200) | shaped.map(lambda value: json.dumps(value).encode())
header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40) | st.from_regex(
    r"(Mon, )?\d{1,5} (Jan|Feb|Xyz) -?\d{1,6} \d{1,3}:\d{1,3}(:\d{1,3})? ([+-]\d{1,6}|GMT|EST|[A-Z])?", fullmatch=True
)


@given(
    status=st.integers(200, 599),
    media_type=st.sampled_from([PROTOBUF, JSON, "text/html", "", "application/json; charset=x"]),
    body=bodies,
    retry_after=header_texts,
)
def test_any_answer_is_an_answer(status: int, media_type: str, body: bytes, retry_after: str) -> None:
    answer = answer_to(status, {"content-type": media_type, "retry-after": retry_after}, body)
    assert (answer.kind in (AnswerKind.ACCEPTED, AnswerKind.PARTIAL)) <= (status < 300)
    assert (answer.retry_after_seconds or 0.0) >= 0


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), ("7, 30", 30), ("7,7", 7), ("7, soon", None), ("-7", None)])
def test_a_header_that_comes_twice_asks_for_the_longer_wait(text: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": text}, 1.8e9) == seconds


@given(header_texts, header_texts, header_texts)
def test_any_header_about_waiting_is_a_time_or_none(after: str, remaining: str, reset: str) -> None:
    headers = {"retry-after": after, "ratelimit-remaining": "0", "ratelimit-reset": reset, "retry-after-ms": remaining}
    assert (retry_after_seconds(headers, 1.8e9) or 0.0) >= 0
    assert 0 <= (pause_asked(429, headers, 1.8e9) or 0.0) <= 3600


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
@example(2**62, 0)
@example(-(2**62), 0)
def test_any_retry_info_is_a_time(seconds: int, nanos: int) -> None:
    info = RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    detail = AnyMessage()
    detail.Pack(info)
    asked_seconds = retry_delay_seconds(Status(details=[detail]))
    assert asked_seconds == min(max(0.0, seconds + nanos / 1e9), FOREVER_SECONDS)


HUGE = {
    "deep objects": b'{"partialSuccess":' * 50_000 + b"1" + b"}" * 50_000,
    "deep lists": b'{"details":' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    "a number without end": b'{"partialSuccess":{"rejectedSpans":' + b"9" * 900_000 + b"}}",
    "a number without end as text": b'{"partialSuccess":{"rejectedSpans":"' + b"9" * 900_000 + b'"}}',
    "no number": b'{"partialSuccess":{"rejectedSpans":NaN}}',
    "infinity": b'{"partialSuccess":{"rejectedSpans":1e999}}',
    "below zero": b'{"partialSuccess":{"rejectedSpans":-5,"errorMessage":"x"}}',
    "a key twice": b'{"message":"a","message":"b","partialSuccess":{},"partialSuccess":{}}',
    "half a surrogate": b'{"message":"\\ud800","partialSuccess":{"errorMessage":"\\udfff"}}',
    "a wall of text": b'{"message":"' + b"bearer " * 140_000 + b'"}',
    "another wall": b'{"message":"' + b"eyJ" * 330_000 + b'"}',
    "control characters": b'{"message":"a\\u0000\\u001b[2J\\r\\nb"}',
    "groups in groups": b"\x0b" * 900_000,
    "messages in messages": b"\x0a\x80\x80\x80\x01" * 100_000,
    "UTF-16": '{"message":"a"}'.encode("utf-16"),
}


@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
@pytest.mark.parametrize("name", HUGE)
def test_an_answer_made_to_hurt_does_not(name: str, media_type: str, status: int) -> None:
    assert answer_to(status, {"content-type": media_type}, HUGE[name]).kind in AnswerKind


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "who are you"}',
        b'{"partialSuccess": []}',
        b'{"success": false}',
        b'{"status": "Error"}',
        b'{"code": 8, "message": "quota exhausted"}',
        b'{"code": 503, "message": ""}',
        b"{]",
    ],
)
def test_an_object_that_is_no_answer_to_an_export_is_none(body: bytes) -> None:
    """Else a gateway's complaint with status 200 would mark runs that are nowhere."""
    assert answer_to(200, {"content-type": JSON}, body).kind is AnswerKind.WRONG


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"partialSuccess": {}}',
        b'{"message": "OK"}',
        b'{"code": 0, "message": "OK"}',
        b'{"code": 200, "message": "OK"}',
        b'{"status": "ok"}',
        b"",
    ],
)
def test_an_object_that_is_one_is_taken(body: bytes) -> None:
    assert answer_to(200, {"content-type": JSON}, body).kind is AnswerKind.ACCEPTED
