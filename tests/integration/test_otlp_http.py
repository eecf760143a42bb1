import asyncio
import email.utils
import time
import urllib.parse

import pytest

from runspan import otlp
from runspan.config import DestinationConfig
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.http import HttpExporter, kind_of
from runspan.otlp.response import MAX_BYTES
from runspan.otlp.tls import TlsFiles
from tests.otlp_store import OtlpStore, Reply, lost_ack, page, partial, refuse, reset, slow
from tests.traces import encoded_trace


@pytest.fixture
def store():
    with OtlpStore() as store:
        yield store


@pytest.fixture
async def exporter(store):
    exporter = HttpExporter(f"{store.http_endpoint}/v1/traces", timeout_seconds=2)
    yield exporter
    await exporter.close()


async def answer_to(exporter: HttpExporter, store: OtlpStore, reply: Reply) -> Answer:
    store.answer(reply)
    answer = await exporter.send([encoded_trace()])
    assert len(store.requests) == 1  # whatever the answer, it was one attempt
    return answer


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_sends_a_batch_as_one_request_of_the_same_bytes(store, compression):
    traces = [encoded_trace("a"), encoded_trace("b", padding_bytes=20_000)]
    exporter = HttpExporter(f"{store.http_endpoint}/v1/traces", compression=compression)
    assert await exporter.send(traces) == Answer(AnswerKind.ACCEPTED)
    await exporter.close()
    (request,) = store.requests
    assert request.trace_ids == [trace.trace.trace_id.hex() for trace in traces]
    assert {span.trace_id for span in store.spans} == set(request.trace_ids)
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["user-agent"] == "runspan"
    assert (request.wire_bytes < 10_000) == (compression == "gzip")


async def test_empty_request_is_accepted_and_leaves_nothing(store, exporter):
    assert await exporter.send([]) == Answer(AnswerKind.ACCEPTED)
    assert store.requests[0].spans == ()


async def test_config_names_the_path_and_headers_are_read_for_each_request(tmp_path):
    key = tmp_path / "key"
    with OtlpStore(path="/base/v1/traces") as store:
        exporter = otlp.exporter(
            DestinationConfig.model_validate(
                {
                    "endpoint": f"{store.http_endpoint}/base/",
                    "headers": {"Authorization": f"file:{key}", "x-scope-orgid": "team-a"},
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
        answer = await exporter.send([encoded_trace()])
        assert answer.kind is AnswerKind.WRONG
        assert "cannot read" in answer.reason
        assert len(store.requests) == 2
        await exporter.close()


async def test_query_of_the_endpoint_is_kept_but_never_told(store):
    exporter = HttpExporter(f"{store.http_endpoint}/v1/traces?key=canary-in-url&x=a%2Fb")
    store.answer(refuse(503))
    answer = await exporter.send([encoded_trace()])
    await exporter.close()
    assert urllib.parse.parse_qsl(store.requests[0].path.partition("?")[2]) == [("key", "canary-in-url"), ("x", "a/b")]
    assert answer.reason == f"{store.http_endpoint}/v1/traces answered 503"


# What the OTLP specification says of each status, and what we make of those it leaves open.
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, AnswerKind.WRONG),
        (302, AnswerKind.WRONG),
        (304, AnswerKind.WRONG),  # the SDK's own exporter takes this for success
        (307, AnswerKind.WRONG),
        (400, AnswerKind.BAD_DATA),
        (401, AnswerKind.WRONG),
        (402, AnswerKind.WRONG),
        (403, AnswerKind.WRONG),
        (404, AnswerKind.WRONG),
        (405, AnswerKind.WRONG),
        (408, AnswerKind.FAILED),
        (413, AnswerKind.TOO_LARGE),
        (415, AnswerKind.WRONG),
        (422, AnswerKind.BAD_DATA),
        (429, AnswerKind.RETRY),
        (500, AnswerKind.FAILED),
        (501, AnswerKind.FAILED),
        (502, AnswerKind.RETRY),
        (503, AnswerKind.RETRY),
        (504, AnswerKind.RETRY),
        (507, AnswerKind.FAILED),
    ],
)
async def test_status(store, exporter, status, kind):
    assert kind_of(status) is kind
    # RFC 9110: a 304 has no body, and a client that waits for one hangs.
    body = b"" if status == 304 else None
    answer = await answer_to(exporter, store, Reply(status=status, body=body, keep=False))
    assert answer.kind is kind
    assert str(status) in answer.reason


async def test_collectors_words_for_too_large(store, exporter):
    answer = await answer_to(exporter, store, refuse(400, "http: request body too large"))
    assert answer.kind is AnswerKind.TOO_LARGE


async def test_redirect_is_not_followed(store, exporter):
    answer = await answer_to(
        exporter, store, Reply(status=307, headers={"location": f"{store.http_endpoint}/v1/traces"}, keep=False)
    )
    assert answer.kind is AnswerKind.WRONG
    assert "redirects are not followed" in answer.reason


@pytest.mark.parametrize("location", ["http:foo", "mailto:x", "//["])
async def test_redirect_to_what_is_no_url_is_one_too(store, exporter, location):
    answer = await answer_to(exporter, store, Reply(status=302, headers={"location": location}, keep=False))
    assert answer.kind is AnswerKind.WRONG
    assert "redirects are not followed" in answer.reason


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, AnswerKind.BAD_DATA), (413, AnswerKind.TOO_LARGE), (429, AnswerKind.RETRY), (401, AnswerKind.WRONG)],
)
@pytest.mark.parametrize("body", ["too large", "not packed"])
async def test_a_body_that_cannot_be_read_does_not_hide_a_refusal(store, exporter, status, kind, body):
    headers = {"retry-after": "7"} | ({"content-encoding": "gzip"} if body == "not packed" else {})
    content = b"x" * (2 * MAX_BYTES if body == "too large" else 20)
    answer = await answer_to(exporter, store, Reply(status=status, headers=headers, body=content, keep=False))
    assert answer.kind is kind
    assert answer.retry_after_seconds == 7
    assert f"answered {status}" in answer.reason


async def test_long_headers_of_a_gateway_are_read(store, exporter):
    long = {"content-security-policy": "x" * 20_000}
    assert (await answer_to(exporter, store, Reply(headers=long))).kind is AnswerKind.ACCEPTED


@pytest.mark.parametrize("words", ["Überall gut".encode("latin-1"), "好".encode(), b""])
async def test_words_beside_the_status_are_not_read(words):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.write(b"HTTP/1.1 200 " + words + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        exporter = HttpExporter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces", timeout_seconds=5)
        assert (await exporter.send([encoded_trace()])).kind is AnswerKind.ACCEPTED
        await exporter.close()


async def test_partial_success(store, exporter):
    answer = await answer_to(exporter, store, partial(3, "too\nold"))
    assert answer == Answer(AnswerKind.PARTIAL, "too old", rejected_spans=3)


async def test_partial_success_without_rejected_spans_is_a_warning(store, exporter):
    answer = await answer_to(exporter, store, partial(0, "deprecated"))
    assert answer == Answer(AnswerKind.PARTIAL, "deprecated", rejected_spans=0)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"{}", Answer(AnswerKind.ACCEPTED)),
        (b' {"partialSuccess": {}, "more": [1]}', Answer(AnswerKind.ACCEPTED)),
        (
            b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "no"}}',
            Answer(AnswerKind.PARTIAL, "no", rejected_spans=2),
        ),
    ],
)
async def test_json_in_answer_to_protobuf_is_read(store, exporter, body, answer):
    assert await answer_to(exporter, store, Reply(body=body, headers={"content-type": "application/json"})) == answer


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_every_2xx_without_a_body_is_success(store, exporter, status):
    assert await answer_to(exporter, store, Reply(status=status, body=b"")) == Answer(AnswerKind.ACCEPTED)


@pytest.mark.parametrize("media_type", ["application/x-protobuf", "application/json", "text/plain", ""])
async def test_an_empty_body_of_no_page_is_success(store, exporter, media_type):
    answer = await answer_to(exporter, store, Reply(body=b"", headers={"content-type": media_type}))
    assert answer == Answer(AnswerKind.ACCEPTED)


@pytest.mark.parametrize("media_type", ["text/html", "Text/HTML; charset=utf-8"])
@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_page_is_no_success_even_where_it_is_empty(store, exporter, body, media_type):
    answer = await answer_to(exporter, store, Reply(body=body, headers={"content-type": media_type}, keep=False))
    assert answer.kind is AnswerKind.WRONG
    assert "not OTLP" in answer.reason


@pytest.mark.parametrize("body", ["<!doctype html><p>Hi", "OK", "{", "[]", '"yes"', "\xff\xfe{}"])
async def test_2xx_with_a_body_that_is_not_otlp_is_no_success(store, exporter, body):
    answer = await answer_to(exporter, store, page(200, body))
    assert answer.kind is AnswerKind.WRONG
    assert "not OTLP" in answer.reason
    assert "Hi" not in answer.reason


async def test_2xx_with_an_endless_body_is_no_success(store, exporter):
    answer = await answer_to(exporter, store, page(200, "x" * 2_000_000))
    assert answer.kind is AnswerKind.WRONG


async def test_answer_cut_short_is_no_success(store, exporter):
    # Two bytes of a message that says it is longer: a proxy that gave up in the middle.
    answer = await answer_to(exporter, store, Reply(body=b"\x0a\x7f"))
    assert answer.kind is AnswerKind.WRONG


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (lambda: email.utils.formatdate(time.time() + 30, usegmt=True), 30.0),
        (lambda: email.utils.formatdate(time.time() - 30, usegmt=True), 0.0),
        ("soon", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after(store, exporter, status, retry_after, seconds):
    value = retry_after() if callable(retry_after) else retry_after
    answer = await answer_to(exporter, store, refuse(status, retry_after=value))
    assert answer.kind is AnswerKind.RETRY
    assert answer.retry_after_seconds == (seconds if seconds is None else pytest.approx(seconds, abs=2.0))


async def test_refusal_is_told_in_the_backends_words_cut_to_256_characters(store, exporter):
    answer = await answer_to(exporter, store, refuse(400, "span 3\tis bad\x1b[31m\n" + "y" * 1000))
    prefix = f"{store.http_endpoint}/v1/traces answered 400: "
    assert answer.reason.startswith(prefix + "span 3 is bad [31m y")
    assert len(answer.reason) == len(prefix) + 256


async def test_nothing_is_told_of_a_body_that_is_no_status(store, exporter):
    answer = await answer_to(exporter, store, page(400, "canary-in-body"))
    assert answer == Answer(AnswerKind.BAD_DATA, f"{store.http_endpoint}/v1/traces answered 400")


async def test_json_status_is_read(store, exporter):
    reply = Reply(
        status=400, headers={"content-type": "application/json; charset=utf-8"}, body=b'{"message": "bad"}', keep=False
    )
    assert (await answer_to(exporter, store, reply)).reason.endswith("answered 400: bad")


async def test_credential_that_the_backend_repeats_is_masked(store):
    exporter = HttpExporter(
        f"{store.http_endpoint}/v1/traces", headers=lambda: {"authorization": "Bearer sk-canary-123", "x-org": "a"}
    )
    store.answer(refuse(401, "key sk-canary-123 is not known"))
    answer = await exporter.send([encoded_trace()])
    await exporter.close()
    assert answer.reason.endswith("answered 401: key *** is not known: check the destination's headers")


async def test_secrets_in_a_backend_s_words_are_masked_before_they_are_cut(store, exporter):
    secrets = "Bearer 0123456789abcdef, sk-live-0123456789abcdef, https://user:canary@host, " + "x" * 180
    answer = await answer_to(exporter, store, partial(1, f"bad span: {secrets} password=0123canary"))
    assert (answer.kind, len(answer.reason)) == (AnswerKind.PARTIAL, 256)
    assert answer.reason.startswith("bad span: [redacted], [redacted], https://[redacted]@host, xxx")
    assert "canary" not in answer.reason
    assert "0123" not in answer.reason


class TestNoAnswer:
    async def test_refused_connection(self, store, exporter):
        store.down()
        answer = await exporter.send([encoded_trace()])
        assert answer == Answer(AnswerKind.RETRY, f"{store.http_endpoint}/v1/traces: Connection refused")
        store.up()
        assert (await exporter.send([encoded_trace()])).kind is AnswerKind.ACCEPTED

    async def test_name_that_does_not_resolve(self):
        exporter = HttpExporter("http://nowhere.invalid:4318/v1/traces")
        assert (await exporter.send([encoded_trace()])).kind is AnswerKind.RETRY
        await exporter.close()

    async def test_reset(self, store, exporter):
        assert (await answer_to(exporter, store, reset())).kind is AnswerKind.RETRY
        assert store.spans == []

    async def test_lost_acknowledgement_is_not_taken_for_one(self, store, exporter):
        assert (await answer_to(exporter, store, lost_ack())).kind is AnswerKind.RETRY
        assert len(store.spans) == 2

    async def test_slow_answer(self, store):
        exporter = HttpExporter(f"{store.http_endpoint}/v1/traces", timeout_seconds=0.2)
        assert (await answer_to(exporter, store, slow(5))).reason.endswith("no answer in time")
        await exporter.close()

    async def test_plain_text_where_tls_was_due(self, store):
        exporter = HttpExporter(f"https://localhost:{store.http_port}/v1/traces")
        answer = await exporter.send([encoded_trace()])
        assert answer.kind is AnswerKind.WRONG
        assert answer.reason.endswith("TLS: WRONG_VERSION_NUMBER")
        await exporter.close()

    async def test_certificates_that_cannot_be_read(self, store, tmp_path):
        exporter = HttpExporter(f"{store.http_endpoint}/v1/traces", tls=TlsFiles(tmp_path / "missing.pem"))
        answer = await exporter.send([encoded_trace()])
        assert answer.kind is AnswerKind.WRONG
        assert "missing.pem" in answer.reason
        await exporter.close()
