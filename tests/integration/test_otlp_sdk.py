import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from runspan import otlp
from runspan.config import DestinationConfig
from runspan.errors import ConfigError
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.http import HttpExporter
from runspan.otlp.sdk import SdkExporter, readable_spans
from tests.otlp_store import OtlpStore, refuse
from tests.traces import encoded_trace

ROOT = Path(__file__).parents[2]


class Recorder(SpanExporter):
    """An exporter that answers as it is told."""

    def __init__(self, result: object = SpanExportResult.SUCCESS) -> None:
        self.result = result
        self.spans = []
        self.threads = set()
        self.is_shut_down = False

    def export(self, spans):
        self.threads.add(threading.current_thread())
        if isinstance(self.result, Exception):
            raise self.result
        self.spans += spans
        return self.result

    def shutdown(self) -> None:
        self.is_shut_down = True


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that brings exporters by entry points, as pip would have left it."""
    (tmp_path / "their_exporter.py").write_text(
        "from tests.integration.test_otlp_sdk import Recorder\n\ndef broken():\n    raise OSError('no such host')\n"
    )
    info = tmp_path / "their_exporter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-exporter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[opentelemetry_traces_exporter]\ntheirs = their_exporter:Recorder\nbroken = their_exporter:broken\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


async def test_exporter_of_another_package_is_found_by_its_entry_point(installed):
    exporter = otlp.exporter(DestinationConfig.model_validate({"protocol": "sdk", "endpoint": "theirs"}))
    assert isinstance(exporter, SdkExporter)
    assert await exporter.send([encoded_trace("a"), encoded_trace("b")]) == Answer(AnswerKind.ACCEPTED)
    await exporter.close()


def test_console():
    # In a process of its own: the console exporter keeps the standard output that it was imported with.
    script = """
import asyncio
from runspan.otlp.sdk import SdkExporter
from tests.traces import encoded_trace
async def main():
    exporter = SdkExporter.named("console")
    await exporter.send([encoded_trace()])
    await exporter.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    root = json.loads(done.stdout[: done.stdout.index("\n}\n") + 3])
    assert root["name"] == "invoke_agent tester"
    assert root["context"]["trace_id"] == "0x" + encoded_trace().trace.trace_id.hex()
    assert root["resource"]["attributes"] == {"service.name": "tests"}


@pytest.mark.parametrize(("name", "text"), [("nobody", "there are: .*console"), ("broken", "no such host")])
def test_exporter_that_cannot_be_had(installed, name, text):
    with pytest.raises(ConfigError, match=text):
        SdkExporter.named(name)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (SpanExportResult.SUCCESS, AnswerKind.ACCEPTED),
        (SpanExportResult.FAILURE, AnswerKind.RETRY),
        (ValueError("canary"), AnswerKind.FAILED),
        (None, AnswerKind.RETRY),  # what an exporter that forgot to answer gives
    ],
)
async def test_answers(result, kind):
    exporter = SdkExporter(Recorder(result))
    answer = await exporter.send([encoded_trace()])
    await exporter.close()
    assert answer.kind is kind
    assert "canary" not in answer.reason


async def test_exporter_has_a_thread_of_its_own_and_is_shut_down():
    recorder = Recorder()
    exporter = SdkExporter(recorder)
    await exporter.send([encoded_trace("a")])
    await exporter.send([encoded_trace("b")])
    await exporter.close()
    assert len(recorder.threads) == 1
    assert threading.main_thread() not in recorder.threads
    assert recorder.is_shut_down


async def test_the_sdks_own_otlp_exporter_sends_the_spans_that_we_would(monkeypatch):
    """Ids, parents, names, kinds, times, status, attributes, events, links, resource and scope."""
    with OtlpStore() as ours, OtlpStore() as theirs:
        direct = HttpExporter(f"{ours.http_endpoint}/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", theirs.http_endpoint)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=not-in-our-spans")
        sdk = SdkExporter.named("otlp_proto_http")
        for exporter in (direct, sdk):
            assert (await exporter.send([encoded_trace(spans=4)])).kind is AnswerKind.ACCEPTED
            await exporter.close()
        assert len(ours.spans) == len(theirs.spans) == 4
        for our, their in zip(ours.spans, theirs.spans, strict=True):
            assert (our.attributes, our.resource) == (their.attributes, their.resource)
            for message in (our.message, their.message):
                message.ClearField("attributes")
                message.ClearField("flags")  # the SDK's exporter adds what it knows of the context
                message.status.SetInParent()  # and says UNSET where we leave the status out
                for link in message.links:
                    link.ClearField("flags")
            assert our.message == their.message


async def test_refusal_reaches_us_as_failure_only(monkeypatch):
    with OtlpStore() as store:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", store.http_endpoint)
        store.answer(refuse(400, "bad span"))
        exporter = SdkExporter.named("otlp_proto_http")
        assert (await exporter.send([encoded_trace()])).kind is AnswerKind.RETRY
        await exporter.close()


def test_scope_and_flags():
    span = readable_spans(encoded_trace().trace)[0]
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("runspan", "1")
    assert span.context.trace_flags.sampled
