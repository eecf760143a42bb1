"""Whatever a platform answers, a run becomes a valid trace or is quarantined, and soon.

Fuzzed are every source's reader, the projection, and the ways out: OTLP in protobuf, as JSON lines, and through the
SDK. 2,000 bodies by default; with RUNSPAN_SOAK=1, a hundred thousand.
"""

import json
import time
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from runspan.errors import RunUnreadable
from runspan.model import Locator, RunBody, RunRef
from runspan.otlp.encode import encode
from runspan.otlp.file import otlp_json_lines
from runspan.otlp.presets import GENERIC, PRESETS, Preset
from runspan.otlp.sdk import readable_spans
from runspan.projection import ProjectionSettings, project
from runspan.sources import registry
from runspan.trace import Trace
from tests import figures
from tests.otlp_validator import Rules, faults
from tests.unit.test_goldens import CASES, FIXTURES, source_of
from tests.unit.unsound_bodies import MADE_UP, TEXTS, Documents, Json, spoiled

MARK, ERROR_MARK = "mArKeR-Of-CoNtEnT", "mArKeR-Of-ErRoR"
CONTENT_FIELDS = {
    "flowyble": {"userMessage", "finalOutput", "inputData", "outputData", "reasoning"},
    "runtype": {"finalOutput", "inputMessages", "content", "output", "agentSpec", "loopConfig", "inputParameters",
                "outputResult", "toolDescription"},
    "elizaos": {"prompt", "prompts", "params", "response", "result", "metadata", "bio"},
    "casedev": {"prompt", "guidance", "output", "summary", "content", "toolInput", "toolOutput", "logs", "metadata"},
}  # fmt: skip
ROWS = {"steps", "events", "toolCalls", "iterationDetails", "entries"}
ERROR_FIELDS = {"errorMessage", "error", "errors", "issues"}
"""What the vendors declare as errors may be told in the description of a status, and nowhere else."""
SECONDS = 5.0
"""Of processor time. No body of these may take so long: most take a few milliseconds."""


def thorough(times: int) -> settings:
    """So many times the cases that the profile asks for."""
    return settings(max_examples=times * settings().max_examples, suppress_health_check=list(HealthCheck))


def bodies_of(platform: str) -> list[Documents]:
    paths = [path for path in CASES if path.relative_to(FIXTURES).parts[0] == platform]
    fixtures = [json.loads(path.read_text()) for path in paths]
    return [fixture.get("documents") or {"detail": fixture} for fixture in fixtures]


SPOILED = {platform: spoiled(bodies_of(platform)) for platform in registry()}


def marked(documents: Documents, platform: str) -> Documents:
    """The documents with a mark in every field of content and of errors, wherever it stands."""
    waiting: list[Json] = [documents]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict):
            for fields, mark in ((CONTENT_FIELDS[platform], MARK), (ERROR_FIELDS, ERROR_MARK)):
                for key in fields & holder.keys():
                    _mark(holder, key, mark)
        inside = holder.values() if isinstance(holder, dict) else holder
        waiting += [value for value in inside if isinstance(value, dict | list)]
    return documents


def _mark(holder: dict[str, Json], key: str, mark: str) -> None:
    match holder[key]:
        case str():
            holder[key] = mark + holder[key]
        case dict():
            holder[key][mark] = mark
        case list():
            holder[key].append(mark)
        case _:
            pass


@dataclass(frozen=True, slots=True)
class Case:
    """What besides a body makes a trace, and whether it leaves through the SDK too, else as JSON."""

    preset: Preset
    with_content: bool
    by_sdk: bool
    run_id: str
    agent: str | None

    @property
    def settings(self) -> ProjectionSettings:
        return ProjectionSettings(
            source="s", service_name="{source}-{agent}", preset=self.preset, capture_content=self.with_content
        )


names = st.sampled_from(("tester", "run-1", *TEXTS))
cases = st.builds(
    Case, st.sampled_from(list(PRESETS.values())), st.booleans(), st.booleans(), names, st.one_of(st.none(), names)
)


def check(platform: str, documents: Documents, case: Case) -> None:
    figures.note(cases=1)
    documents = marked(documents, platform)
    began = time.thread_time()
    trace = trace_of(platform, documents, case)
    if trace is None:
        return
    payload = encode(trace).payload
    taken_seconds = time.thread_time() - began
    rules = Rules(
        attribute_bytes=case.preset.attribute_bytes,
        with_content=case.with_content,
        resource={"service.name": trace.resource["service.name"]},
        forbidden=() if case.with_content else (MARK,),
        only_in_descriptions=() if case.with_content else (ERROR_MARK,),
    )
    assert faults(payload, rules) == []
    assert taken_seconds < SECONDS
    if case.by_sdk:
        by_sdk = encode_spans(readable_spans(trace)).SerializeToString()
        assert faults(by_sdk, replace(rules, with_flags=True)) == []
    else:
        lines = [json.loads(line) for line in otlp_json_lines(payload)]
        spans = [span for line in lines for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]]
        assert [span["spanId"] for span in spans] == [span.span_id.hex() for span in trace.spans]


def trace_of(platform: str, documents: Documents, case: Case) -> Trace | None:
    """The trace, or None where the run is quarantined; any other exception is a hole."""
    source = source_of(platform)
    ref = RunRef(platform, source.tenant, case.run_id, Locator(agent_id=case.agent, agent_name=case.agent))
    try:
        # Also of open and of skipped runs, which a setting can have exported.
        return project(source.read(RunBody(ref, documents)), case.settings)
    except RunUnreadable as error:
        quarantined = str(error)
    assert MARK not in quarantined
    assert len(quarantined.splitlines()) == 1
    return None


def turned(value: Json) -> Json:
    """A copy with all lists of rows from back to front; lists within a row are its own affair."""
    if isinstance(value, dict):
        return {
            key: item[::-1] if key in ROWS and isinstance(item, list) else turned(item) for key, item in value.items()
        }
    return [turned(item) for item in value] if isinstance(value, list) else value


every_platform = pytest.mark.parametrize("platform", registry())
again = pytest.mark.parametrize("part", figures.rounds(1, 9))
"""A soak goes over them in parts, each with chances and memory of its own."""


@again
@every_platform
@thorough(3)
@given(data=st.data(), case=cases)
def test_real_bodies_that_were_spoiled(part: int, platform: str, data: st.DataObject, case: Case) -> None:
    check(platform, data.draw(SPOILED[platform]), case)


@again
@every_platform
@thorough(1)
@given(data=st.data(), case=cases)
def test_bodies_made_up(part: int, platform: str, data: st.DataObject, case: Case) -> None:
    check(platform, data.draw(MADE_UP[platform]), case)


@again
@every_platform
@thorough(1)
@given(data=st.data())
def test_rows_in_any_order_give_the_same_spans(part: int, platform: str, data: st.DataObject) -> None:
    documents = data.draw(SPOILED[platform])
    figures.note(cases=1)
    case = Case(GENERIC, with_content=False, by_sdk=False, run_id="run-1", agent="tester")
    try:
        copy = turned(documents)
    except RecursionError:
        return
    one, other = trace_of(platform, documents, case), trace_of(platform, copy, case)
    assert (one is None) is (other is None)
    if one is not None and other is not None:
        assert spans_of(one) == spans_of(other)


def spans_of(trace: Trace) -> set[tuple[bytes, bytes | None, str, int, int]]:
    return {(span.span_id, span.parent_id, span.name, span.start_ns, span.end_ns) for span in trace.spans}
