import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from runspan import otlp
from runspan.config import DestinationConfig
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.grpc import GrpcExporter, kind_of
from runspan.otlp.tls import TlsFiles
from runspan.waits import FOREVER_SECONDS
from tests.otlp_store import OtlpStore, lost_ack, page, partial, rpc_refuse, slow
from tests.traces import encoded_trace

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def server():
    with OtlpStore(with_grpc=True) as store:
        yield store


@pytest.fixture
def store(server):
    server.requests.clear()
    server.spans.clear()
    return server


@pytest.fixture
async def exporter(store):
    exporter = GrpcExporter(store.grpc_endpoint, timeout_seconds=5)
    yield exporter
    await exporter.close()


async def answer_to(exporter, store, reply):
    store.answer(reply)
    answer = await exporter.send([encoded_trace()])
    assert len(store.requests) == 1  # whatever the answer, it was one attempt
    return answer


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_sends_a_batch_as_one_request(store, compression):
    traces = [encoded_trace("a"), encoded_trace("b", padding_bytes=20_000)]
    exporter = GrpcExporter(store.grpc_endpoint, compression=compression)
    assert await exporter.send(traces) == Answer(AnswerKind.ACCEPTED)
    await exporter.close()
    (request,) = store.requests
    assert request.trace_ids == [trace.trace.trace_id.hex() for trace in traces]
    assert request.headers["user-agent"].startswith("runspan")


async def test_empty_request_is_accepted_and_leaves_nothing(store, exporter):
    assert await exporter.send([]) == Answer(AnswerKind.ACCEPTED)
    assert store.requests[0].spans == ()


async def test_headers_are_metadata_read_for_each_request(store, tmp_path):
    key = tmp_path / "key"
    exporter = otlp.exporter(
        DestinationConfig.model_validate(
            {
                "protocol": "grpc",
                "endpoint": store.grpc_endpoint,
                "headers": {"Authorization": f"file:{key}", "X-Scope-OrgID": "team-a"},
            }
        )
    )
    sent = []
    for text in ("Bearer first", "Bearer second"):
        key.write_text(text)
        assert (await exporter.send([encoded_trace()])).kind is AnswerKind.ACCEPTED
        sent.append(store.requests[-1].headers["authorization"])
    assert sent == ["Bearer first", "Bearer second"]
    assert store.requests[-1].headers["x-scope-orgid"] == "team-a"
    key.unlink()
    assert (await exporter.send([encoded_trace()])).kind is AnswerKind.WRONG
    await exporter.close()


# The table of the OTLP specification, and what we make of RESOURCE_EXHAUSTED without a RetryInfo.
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.CANCELLED, AnswerKind.RETRY),
        (Code.UNKNOWN, AnswerKind.FAILED),
        (Code.INVALID_ARGUMENT, AnswerKind.BAD_DATA),
        (Code.DEADLINE_EXCEEDED, AnswerKind.RETRY),
        (Code.NOT_FOUND, AnswerKind.FAILED),
        (Code.ALREADY_EXISTS, AnswerKind.FAILED),
        (Code.PERMISSION_DENIED, AnswerKind.WRONG),
        (Code.RESOURCE_EXHAUSTED, AnswerKind.FAILED),
        (Code.FAILED_PRECONDITION, AnswerKind.FAILED),
        (Code.ABORTED, AnswerKind.RETRY),
        (Code.OUT_OF_RANGE, AnswerKind.RETRY),
        (Code.UNIMPLEMENTED, AnswerKind.WRONG),
        (Code.INTERNAL, AnswerKind.FAILED),
        (Code.UNAVAILABLE, AnswerKind.RETRY),
        (Code.DATA_LOSS, AnswerKind.RETRY),
        (Code.UNAUTHENTICATED, AnswerKind.WRONG),
    ],
)
async def test_code(store, exporter, code, kind):
    answer = await answer_to(exporter, store, rpc_refuse(code, "some words"))
    assert answer.kind is kind
    assert f"answered {code.name}: some words" in answer.reason
    assert answer.retry_after_seconds is None


@pytest.mark.parametrize("code", [Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE])
@pytest.mark.parametrize("delay_seconds", [0.0, 2.5, 90.0])
async def test_retry_info(store, exporter, code, delay_seconds):
    answer = await answer_to(exporter, store, rpc_refuse(code, "slow down", retry_delay_seconds=delay_seconds))
    assert answer.kind is AnswerKind.RETRY
    assert answer.retry_after_seconds == delay_seconds


async def test_a_wait_without_end_is_cut(store, exporter):
    answer = await answer_to(exporter, store, rpc_refuse(Code.UNAVAILABLE, retry_delay_seconds=2.0**33))
    assert answer.retry_after_seconds == FOREVER_SECONDS


async def test_request_over_4_mib_is_too_large_for_a_real_server(store, exporter):
    trace = encoded_trace(padding_bytes=4 * 1024 * 1024)
    answer = await exporter.send([trace])
    assert answer.kind is AnswerKind.TOO_LARGE
    assert store.requests == []


async def test_largest_batch_fits_a_real_server(store):
    exporter = GrpcExporter(store.grpc_endpoint, compression="none")
    trace = encoded_trace(padding_bytes=exporter.max_request_bytes - 2000)
    assert len(trace.payload) < exporter.max_request_bytes
    assert (await exporter.send([trace])).kind is AnswerKind.ACCEPTED
    await exporter.close()


# As gRPC's implementations word it: C++ and Python (and when compressed), Go (and when compressed), Java, Java when
# compressed, Node (and when compressed), .NET, Rust.
@pytest.mark.parametrize(
    ("code", "details"),
    [
        (Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (4194350 vs. 4194304)"),
        (Code.RESOURCE_EXHAUSTED, "Decompressed message larger than max"),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (5000000 vs. 4194304)"),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max 4194304"),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max (5000000 vs. 4194304)"),
        (Code.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4194304: 5000000"),
        (Code.RESOURCE_EXHAUSTED, "Decompressed gRPC message exceeds maximum size 4194304"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (5000000 vs 4194304)"),
        (Code.RESOURCE_EXHAUSTED, "Received message that decompresses to a size larger than 4194304"),
        (Code.RESOURCE_EXHAUSTED, "Received message exceeds the maximum configured message size."),
        (Code.OUT_OF_RANGE, "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304"),
    ],
)
def test_every_servers_words_for_too_large(code, details):
    assert kind_of(code, details, asked_to_wait=False) is AnswerKind.TOO_LARGE
    assert kind_of(code, details, asked_to_wait=True) is AnswerKind.RETRY


@pytest.mark.parametrize(
    "details",
    [
        "the request rate exceeds maximum size of quota",
        "the queue is larger than max",
        "Error, encoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
        "SERVER: Sent message larger than max (5000000 vs. 4194304)",
        "grpc: trying to send message larger than max (5000000 vs. 4194304)",
        "Sending message exceeds the maximum configured message size.",
    ],
)
def test_words_about_something_else_that_is_too_large(details):
    assert kind_of(Code.RESOURCE_EXHAUSTED, details, asked_to_wait=False) is AnswerKind.FAILED


class AnswersTooMuch(grpc.GenericRpcHandler):
    """Takes every request, and answers more than anyone wants to read: in the message, or in the metadata behind it."""

    def __init__(self, *, message_bytes=0, metadata_bytes=0):
        self.requests = 0
        part = ExportTracePartialSuccess(error_message="x" * message_bytes)
        self._answer = ExportTraceServiceResponse(partial_success=part).SerializeToString()
        self._metadata = (("x-more", "z" * metadata_bytes),)

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self._export)

    def _export(self, body, context):
        self.requests += 1
        context.set_trailing_metadata(self._metadata)
        return self._answer


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("too_much", [{"message_bytes": 5_000_000}, {"metadata_bytes": 20_000}])
async def test_an_answer_that_is_too_large_says_nothing_of_the_request(compression, too_much):
    """Which may have been taken: in halves it would be sent once more, and then quarantined."""
    handler = AnswersTooMuch(**too_much)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler], compression=compression)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    exporter = GrpcExporter(f"http://127.0.0.1:{port}")
    answer = await exporter.send([encoded_trace("a"), encoded_trace("b")])
    await exporter.close()
    server.stop(None).wait()
    assert answer.kind is AnswerKind.WRONG
    assert "not OTLP" in answer.reason
    assert handler.requests == 1


@pytest.mark.parametrize(
    "details", ["grpc: error unmarshalling request: unexpected EOF", "Exception deserializing request!"]
)
def test_servers_words_for_unreadable(details):
    assert kind_of(Code.INTERNAL, details, asked_to_wait=False) is AnswerKind.BAD_DATA


async def test_partial_success(store, exporter):
    answer = await answer_to(exporter, store, partial(3, "too\nold"))
    assert answer == Answer(AnswerKind.PARTIAL, "too old", rejected_spans=3)


async def test_credential_that_the_backend_repeats_is_masked(store):
    exporter = GrpcExporter(store.grpc_endpoint, headers=lambda: {"authorization": "Bearer sk-canary-123"})
    answer = await answer_to(exporter, store, rpc_refuse(Code.UNAUTHENTICATED, "no such key: sk-canary-123"))
    await exporter.close()
    assert "canary" not in answer.reason
    assert "no such key: ***" in answer.reason


async def test_lost_acknowledgement_is_not_taken_for_one(store, exporter):
    assert (await answer_to(exporter, store, lost_ack())).kind is AnswerKind.RETRY
    assert len(store.spans) == 2


async def test_slow_answer(store):
    exporter = GrpcExporter(store.grpc_endpoint, timeout_seconds=0.2)
    answer = await answer_to(exporter, store, slow(1))
    await exporter.close()
    assert answer.kind is AnswerKind.RETRY
    assert "DEADLINE_EXCEEDED" in answer.reason


async def test_destination_that_returns_is_found_again(exporter, store):
    store.down()
    for _ in range(3):
        assert (await exporter.send([encoded_trace()])).kind is AnswerKind.RETRY
    store.up()
    deadline = time.monotonic() + 10
    while (await exporter.send([encoded_trace()])).kind is not AnswerKind.ACCEPTED:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class Between:
    """A TCP proxy in front of a port. Its connections can be stalled: they stand, but nothing comes through."""

    def __init__(self, port):
        self.port_behind = port
        self.flowing = []
        """One event for each connection ever made."""
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.go_on()
        for writer in self._writers:
            writer.transport.abort()

    def stall(self):
        """Let nothing more through on the connections that there are."""
        for flowing in self.flowing:
            flowing.clear()

    def go_on(self):
        for flowing in self.flowing:
            flowing.set()

    async def _connected(self, reader, writer):
        flowing = asyncio.Event()
        flowing.set()
        self.flowing.append(flowing)
        reader_behind, writer_behind = await asyncio.open_connection("127.0.0.1", self.port_behind)
        self._writers += [writer, writer_behind]
        await asyncio.gather(self._pump(reader, writer_behind, flowing), self._pump(reader_behind, writer, flowing))

    async def _pump(self, reader, writer, flowing):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await flowing.wait()
                writer.write(piece)
            await flowing.wait()
            writer.close()


@pytest.fixture
async def between(store):
    async with Between(store.grpc_port) as between:
        yield between


async def send_within(exporter, seconds, run_id):
    """One send with a time-out of its own."""
    exporter._timeout_seconds = seconds
    return await exporter.send([encoded_trace(run_id)])


async def test_a_connection_that_swallows_everything_is_left(between):
    """As one does whose balancer has forgotten it, without a word to us."""
    exporter = GrpcExporter(between.endpoint)
    assert (await send_within(exporter, 10, "a")).kind is AnswerKind.ACCEPTED
    between.stall()
    assert "DEADLINE_EXCEEDED" in (await send_within(exporter, 0.2, "b")).reason
    assert (await send_within(exporter, 10, "b")).kind is AnswerKind.ACCEPTED
    assert len(between.flowing) == 2
    assert (await send_within(exporter, 10, "c")).kind is AnswerKind.ACCEPTED
    assert len(between.flowing) == 2  # and the new one is kept
    await exporter.close()


async def test_a_server_that_stays_unavailable_is_left_for_another_behind_the_same_address(store, between):
    exporter = GrpcExporter(between.endpoint)
    with OtlpStore(with_grpc=True) as other:
        assert (await send_within(exporter, 10, "a")).kind is AnswerKind.ACCEPTED
        between.port_behind = other.grpc_port
        # One that says when to come back is alive, and has its connection kept.
        store.answer(*[rpc_refuse(Code.UNAVAILABLE, "busy", retry_delay_seconds=1.0)] * 3)
        store.answer(*[rpc_refuse(Code.UNAVAILABLE, "shutting down")] * 2)
        for _ in range(5):
            assert (await send_within(exporter, 10, "b")).kind is AnswerKind.RETRY
            assert len(between.flowing) == 1
        assert (await send_within(exporter, 10, "b")).kind is AnswerKind.ACCEPTED
        assert len(other.traces) == 1
    await exporter.close()


async def test_another_grpc_service_is_wrong():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    exporter = GrpcExporter(f"http://localhost:{port}")
    answer = await exporter.send([encoded_trace()])
    await exporter.close()
    server.stop(None).wait()
    assert answer.kind is AnswerKind.WRONG
    assert "UNIMPLEMENTED" in answer.reason


async def test_web_server_is_wrong(store):
    store.rule = lambda request: page(200)
    exporter = GrpcExporter(store.http_endpoint, timeout_seconds=2)
    answer = await exporter.send([encoded_trace()])
    await exporter.close()
    store.rule = lambda request: None
    assert answer.kind is AnswerKind.WRONG


async def test_certificates_that_cannot_be_read(tmp_path):
    exporter = GrpcExporter("https://localhost:1", tls=TlsFiles(tmp_path / "missing.pem"))
    answer = await exporter.send([encoded_trace()])
    await exporter.close()
    assert answer.kind is AnswerKind.WRONG
    assert "missing.pem" in answer.reason
