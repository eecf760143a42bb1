"""What delivery takes for granted of OTLP receivers, asked of the Collector's, which is Jaeger's and Tempo's too."""

import dataclasses

import pytest

from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter, Verdict
from runspan.otlp.delivery import Delivery
from runspan.otlp.grpc import GrpcExporter
from runspan.otlp.http import HttpExporter
from tests.live.jaeger import Jaeger
from tests.traces import delivered, encoded_trace


@pytest.fixture(params=["http", "grpc"])
async def exporter(request: pytest.FixtureRequest, jaeger: Jaeger):
    at_http = request.param == "http"
    exporter = HttpExporter(f"{jaeger.otlp_http}/v1/traces") if at_http else GrpcExporter(jaeger.otlp_grpc)
    yield exporter
    await exporter.close()


def unreadable() -> EncodedTrace:
    return dataclasses.replace(encoded_trace("unreadable"), payload=b"\x0a\xff\xff")


async def test_empty_request_is_accepted(exporter: Exporter) -> None:
    assert await exporter.send([]) == Answer(AnswerKind.ACCEPTED)


async def test_largest_batch_is_accepted(exporter: Exporter) -> None:
    trace = encoded_trace(padding_bytes=exporter.max_request_bytes - 2000)
    assert len(trace.payload) > exporter.max_request_bytes - 2000
    assert await exporter.send([trace]) == Answer(AnswerKind.ACCEPTED)


async def test_request_that_is_too_large_says_so(exporter: Exporter) -> None:
    answer = await exporter.send([encoded_trace(padding_bytes=21 * 1024 * 1024)])
    assert answer.kind is AnswerKind.TOO_LARGE


async def test_unreadable_trace_is_found_among_good_ones(exporter: Exporter) -> None:
    assert (await exporter.send([unreadable()])).kind is AnswerKind.BAD_DATA
    traces = [encoded_trace("a"), encoded_trace("b"), unreadable(), encoded_trace("c")]
    verdicts = [outcome.verdict for outcome in await delivered(Delivery(exporter), traces)]
    assert verdicts == [Verdict.EXPORTED, Verdict.EXPORTED, Verdict.QUARANTINED, Verdict.EXPORTED]


async def test_wrong_port_is_told(jaeger: Jaeger) -> None:
    places: list[tuple[Exporter, AnswerKind, str]] = [
        (HttpExporter(f"{jaeger.otlp_http}/wrong/v1/traces"), AnswerKind.WRONG, "no OTLP receiver"),
        (HttpExporter(f"{jaeger.query}/v1/traces"), AnswerKind.WRONG, "not OTLP"),
        (HttpExporter(f"{jaeger.otlp_grpc}/v1/traces"), AnswerKind.RETRY, "is this the right port?"),
        (GrpcExporter(jaeger.otlp_http), AnswerKind.WRONG, "http1.x server"),
    ]
    for exporter, kind, text in places:
        answer = await exporter.send([encoded_trace()])
        await exporter.close()
        assert (answer.kind, text in answer.reason) == (kind, True), answer
