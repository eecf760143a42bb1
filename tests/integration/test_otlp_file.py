import asyncio
import base64
import errno
import json
import os
import stat
from pathlib import Path

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runspan import otlp
from runspan.config import DestinationConfig
from runspan.errors import DeliveryRefused
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.file import MAX_LINE_BYTES, FileExporter, otlp_json_lines, writable_file
from tests.traces import encoded_trace


@pytest.fixture
def path(tmp_path):
    return tmp_path / "traces.jsonl"


def reread(line: bytes | str) -> ExportTraceServiceRequest:
    """A line as a receiver reads it: OTLP/JSON is protobuf's JSON but for its ids, which are hex."""
    document = json.loads(line)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for ids in (span, *span.get("links", [])):
                    for key in {"traceId", "spanId", "parentSpanId"} & ids.keys():
                        ids[key] = base64.b64encode(bytes.fromhex(ids[key])).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def run_ids(path: Path) -> list[str]:
    requests = [reread(line) for line in path.read_bytes().splitlines()]
    return [
        pair.value.string_value
        for request in requests
        for pair in request.resource_spans[0].scope_spans[0].spans[0].attributes
        if pair.key == "runspan.run.id"
    ]


async def test_each_trace_is_a_line_that_reads_back_as_what_was_sent(path):
    traces = [encoded_trace("a"), encoded_trace("ü\n\x00\u2028", spans=5)]
    exporter = otlp.exporter(DestinationConfig.model_validate({"protocol": "file", "endpoint": str(path)}))
    assert await exporter.send(traces) == Answer(AnswerKind.ACCEPTED)
    await exporter.close()
    lines = path.read_bytes().splitlines()
    assert [reread(line).SerializeToString(deterministic=True) for line in lines] == [t.payload for t in traces]


async def test_lines_have_the_forms_of_otlp_json(path):
    await FileExporter(path).send([encoded_trace()])
    (scope_spans,) = json.loads(path.read_text())["resourceSpans"][0]["scopeSpans"]
    root, child = scope_spans["spans"]
    assert scope_spans["scope"] == {"name": "runspan", "version": "1"}
    assert root["traceId"] == encoded_trace().trace.trace_id.hex()
    assert child["parentSpanId"] == root["spanId"] == encoded_trace().trace.root.span_id.hex()
    assert root["links"][0]["traceId"] == "01" * 16
    assert root["kind"] == 3
    assert child["status"] == {"code": 2, "message": "it broke"}
    assert root["startTimeUnixNano"] == "1767225600000000000"
    assert {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "900"}} in root["attributes"]
    assert {"key": "flag", "value": {"boolValue": False}} in root["attributes"]
    assert {"key": "ratio", "value": {"doubleValue": 0.5}} in root["attributes"]


async def test_a_device_has_nothing_to_sync():
    assert await FileExporter(Path("/dev/null")).send([encoded_trace()]) == Answer(AnswerKind.ACCEPTED)


async def test_acknowledged_only_when_file_and_folder_are_on_the_disk(path, monkeypatch):
    calls = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: calls.append("write") or write(fd, data))
    monkeypatch.setattr(
        os, "fsync", lambda fd: calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file") or fsync(fd)
    )
    exporter = FileExporter(path)
    assert (await exporter.send([encoded_trace("a")])).kind is AnswerKind.ACCEPTED
    assert calls == ["write", "file", "folder"]
    assert (await exporter.send([encoded_trace("b")])).kind is AnswerKind.ACCEPTED
    assert calls[3:] == ["write", "file"]


async def test_failed_sync_is_no_acknowledgement_and_leaves_no_line(path, monkeypatch):
    exporter = FileExporter(path)
    await exporter.send([encoded_trace("a")])

    def fsync(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    answer = await exporter.send([encoded_trace("b")])
    assert answer == Answer(AnswerKind.RETRY, f"cannot write {path}: Input/output error")
    assert run_ids(path) == ["a"]


async def test_full_disk_leaves_whole_lines_and_is_tried_again(path, monkeypatch):
    exporter = FileExporter(path)
    await exporter.send([encoded_trace("a")])
    write = os.write

    def half_then_full(fd, data):
        if len(data) < 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half_then_full)
    answer = await exporter.send([encoded_trace("b"), encoded_trace("c")])
    assert answer.kind is AnswerKind.RETRY
    assert "No space left" in answer.reason
    assert run_ids(path) == ["a"]
    monkeypatch.undo()
    assert (await exporter.send([encoded_trace("b")])).kind is AnswerKind.ACCEPTED
    assert run_ids(path) == ["a", "b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
async def test_device_that_is_always_full():
    assert (await FileExporter(Path("/dev/full")).send([encoded_trace()])).kind is AnswerKind.RETRY


@pytest.mark.parametrize("torn", [b'{"resourceSpans": [{"re', b'{"resource' + b"x" * 200_000])
async def test_torn_last_line_is_cut(path, torn):
    exporter = FileExporter(path)
    await exporter.send([encoded_trace("a")])
    with path.open("ab") as file:
        file.write(torn)
    # Also in the middle of our life: another process may have died.
    await exporter.send([encoded_trace("b")])
    assert run_ids(path) == ["a", "b"]


async def test_file_of_one_torn_line_is_emptied(path):
    path.write_bytes(b'{"resource')
    await FileExporter(path).send([encoded_trace("a")])
    assert run_ids(path) == ["a"]


@pytest.mark.parametrize("content", [b"\x89PNG" + b"\0" * 100, b'{"resume": 1}', b"[ledger]\n", b"\n", b"{}"])
async def test_another_file_is_left_as_it_is(path, content):
    path.write_bytes(content)
    answer = await FileExporter(path).send([encoded_trace("a")])
    assert answer.kind is AnswerKind.WRONG
    assert "write the path of another file" in answer.reason
    assert path.read_bytes() == content
    with pytest.raises(DeliveryRefused, match="something else than OTLP JSON lines"):
        writable_file(path)


async def test_writers_take_turns(path):
    exporters = [FileExporter(path) for _ in range(4)]
    names = [f"run-{n}" for n in range(40)]
    answers = await asyncio.gather(
        *(exporters[place % 4].send([encoded_trace(name, padding_bytes=50_000)]) for place, name in enumerate(names))
    )
    assert {answer.kind for answer in answers} == {AnswerKind.ACCEPTED}
    assert sorted(run_ids(path)) == sorted(names)


async def test_renamed_file_is_not_written_to(path):
    exporter = FileExporter(path)
    await exporter.send([encoded_trace("a")])
    rotated = path.rename(path.with_suffix(".1"))
    await exporter.send([encoded_trace("b")])
    assert run_ids(rotated) == ["a"]
    assert run_ids(path) == ["b"]


async def test_only_the_owner_reads_it(path):
    before = os.umask(0)
    try:
        await FileExporter(path).send([encoded_trace()])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("where", ["missing/traces.jsonl", "."])
async def test_place_that_cannot_be_written_is_wrong(tmp_path, where):
    answer = await FileExporter(tmp_path / where).send([encoded_trace()])
    assert answer.kind is AnswerKind.WRONG
    assert answer.reason.startswith(f"cannot write {tmp_path}")


def test_long_trace_is_shared_among_lines_that_readers_take():
    trace = encoded_trace(spans=9000)
    lines = list(otlp_json_lines(trace.payload))
    assert len(lines) > 2
    assert max(len(line) for line in lines) <= MAX_LINE_BYTES
    requests = [reread(line) for line in lines]
    parts = [request.resource_spans[0] for request in requests]
    assert all(part.resource == parts[0].resource for part in parts)
    assert all(part.scope_spans[0].scope == parts[0].scope_spans[0].scope for part in parts)
    whole = ExportTraceServiceRequest.FromString(trace.payload)
    spans = [span for part in parts for span in part.scope_spans[0].spans]
    assert spans == list(whole.resource_spans[0].scope_spans[0].spans)


def test_span_longer_than_a_line_has_a_line_of_its_own():
    lines = list(otlp_json_lines(encoded_trace(spans=3, padding_bytes=5000).payload, max_line_bytes=3000))
    assert [len(reread(line).resource_spans[0].scope_spans[0].spans) for line in lines] == [1, 1, 1]
