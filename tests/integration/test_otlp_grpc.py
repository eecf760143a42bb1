import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from runspan import otlp
from runspan.config import DestinationConfig
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.grpc import GrpcExporter, kind_of
from runspan.otlp.tls import TlsFiles
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


# As gRPC's implementations word it: C++ and Python, Go, Go when compressed, Java, Rust.
@pytest.mark.parametrize(
    ("code", "details"),
    [
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (4194350 vs. 4194304)"),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (5000000 vs. 4194304)"),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max 4194304"),
        (Code.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4194304: 5000000"),
        (Code.OUT_OF_RANGE, "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304"),
    ],
)
def test_every_servers_words_for_too_large(code, details):
    assert kind_of(code, details, asked_to_wait=False) is AnswerKind.TOO_LARGE


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


class Relay:
    """TCP to a port of this machine; the connections that were open at `forget` are swallowed from then on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._forgotten: set[int] = set()
        self.connections = 0

    def forget(self) -> None:
        self._forgotten = set(range(self.connections + 1))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass(number, reader, to_server), self._pass(number, from_server, writer))

    async def _pass(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if number not in self._forgotten:
                writer.write(data)
        writer.close()


async def test_a_connection_that_was_forgotten_on_the_way_is_left(store):
    """As by a NAT, or a balancer whose pod has vanished: nothing comes back, not even an end."""
    relay = Relay(int(store.grpc_endpoint.rpartition(":")[2]))
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as listener:
        exporter = GrpcExporter(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", timeout_seconds=2)
        assert (await exporter.send([encoded_trace("a")])).kind is AnswerKind.ACCEPTED
        relay.forget()
        assert (await exporter.send([encoded_trace("b")])).kind is AnswerKind.RETRY
        assert (await exporter.send([encoded_trace("b")])).kind is AnswerKind.ACCEPTED
        await exporter.close()
    assert relay.connections == 2


async def test_an_answer_that_is_too_large_is_no_request_that_is(store, exporter):
    answer = await answer_to(exporter, store, partial(0, "x" * 2_000_000))
    assert answer.kind is AnswerKind.WRONG
    assert answer.reason.endswith("answered with something that is not OTLP")


async def test_a_quota_is_no_size(store, exporter):
    words = "the request rate exceeds maximum size of quota"
    assert (await answer_to(exporter, store, rpc_refuse(Code.RESOURCE_EXHAUSTED, words))).kind is AnswerKind.FAILED


async def test_a_wait_without_end_is_a_wait(store, exporter):
    reply = rpc_refuse(Code.UNAVAILABLE, retry_delay_seconds=2.0**50)
    assert ((await answer_to(exporter, store, reply)).retry_after_seconds or 0) >= 1e9
