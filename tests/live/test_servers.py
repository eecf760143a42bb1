"""The real servers that the other live tests stand on do what those tests take for granted."""

import hashlib
import json
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.live.elizaos import Elizaos, Run
from tests.live.jaeger import Jaeger


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def test_jaeger_gives_back_what_it_acknowledged(jaeger: Jaeger, client: httpx.Client) -> None:
    trace_id = hashlib.sha256(b"test_jaeger_gives_back_what_it_acknowledged").digest()[:16]
    start, end = 1_777_000_000_100_000_123, 1_777_000_000_900_000_580
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=trace_id, span_id=b"\1" * 8, name="root", start_time_unix_nano=start, end_time_unix_nano=end)

    sent = client.post(
        f"{jaeger.otlp_http}/v1/traces",
        content=request.SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )
    sent.raise_for_status()
    found = client.get(f"{jaeger.query}/api/v3/traces/{trace_id.hex()}").raise_for_status().json()

    [span] = found["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert (span["traceId"], span["spanId"], span["name"]) == (trace_id.hex(), "01" * 8, "root")
    assert (span["startTimeUnixNano"], span["endTimeUnixNano"]) == (str(start), str(end))


def test_jaeger_says_when_it_has_no_such_trace(jaeger: Jaeger, client: httpx.Client) -> None:
    assert client.get(f"{jaeger.query}/api/v3/traces/{'ab' * 16}").status_code == 404


def test_elizaos_lists_the_runs_that_were_driven(elizaos: Elizaos, elizaos_runs: dict[str, Run]) -> None:
    listed = elizaos.get(f"/api/agents/{elizaos.agent_id}/runs?from=1&to=9999999999999&limit=100")
    status = {row["runId"]: row["status"] for row in listed["data"]["runs"]}
    expected = {run.run_id: "completed" for run in elizaos_runs.values()}
    # The list has no word for a run that ended in an ignored status.
    expected[elizaos_runs["self"].run_id] = "started"
    assert status == expected


def test_elizaos_tells_of_a_failure_only_in_the_last_event(elizaos: Elizaos, elizaos_runs: dict[str, Run]) -> None:
    run = elizaos_runs["fail"]
    detail = elizaos.get(f"/api/agents/{elizaos.agent_id}/runs/{run.run_id}")["data"]
    [ended] = [event for event in detail["events"] if event["type"] == "RUN_ENDED"]
    assert run.error == "model overloaded"
    assert detail["summary"]["status"] == "completed"
    assert ended["data"]["error"] == "model overloaded"


def test_elizaos_wants_its_key(elizaos: Elizaos, client: httpx.Client) -> None:
    refused = client.get(f"{elizaos.base_url}/api/agents", headers={"X-API-KEY": "wrong"})
    assert (refused.status_code, json.loads(refused.text)["error"]) == (401, "API key required")
