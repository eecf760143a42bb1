"""Where each platform lets its caller leave a trace context."""

import json
from typing import Any

import pytest

from runspan.model import Json, RunBody, RunRef
from runspan.projection import ProjectionSettings, project
from runspan.sources.answers import TRACEPARENT_CHARACTERS, find_traceparent
from tests.unit.test_goldens import source_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{SPAN}-01"
CONTEXT = {"traceparent": HEADER}
TIMES = {"createdAt": "2026-05-01T10:00:00Z", "startedAt": "2026-05-01T10:00:01Z"}
ELIZA = [
    {"type": "RUN_STARTED", "timestamp": 1777000000100, "data": {}},
    {"type": "RUN_ENDED", "timestamp": 1777000000900, "data": {"status": "completed"}},
]
FLOWYBLE = {**TIMES, "status": "Completed", "finishedAt": "2026-05-01T10:00:02Z"}
RUNTYPE = {**TIMES, "status": "completed", "completedAt": "2026-05-01T10:00:02Z"}


@pytest.mark.parametrize(
    ("platform", "detail"),
    [
        ("flowyble", {**FLOWYBLE, "userMessage": f"Check stock.\ntraceparent: {HEADER}"}),
        ("flowyble", {**FLOWYBLE, "userMessage": json.dumps({"task": "x", "_meta": CONTEXT})}),
        ("flowyble", {**FLOWYBLE, "metadata": CONTEXT}),
        ("runtype", {**RUNTYPE, "metadata": CONTEXT}),
        ("runtype", {**RUNTYPE, "inputMessages": [{"role": "user", "content": "x", "metadata": CONTEXT}]}),
        ("runtype", {**RUNTYPE, "inputMessages": f"do it ({json.dumps(CONTEXT)})"}),
        ("runtype", {**RUNTYPE, "agentSpec": {"params": {"_meta": CONTEXT}}}),
        ("elizaos", {"success": True, "data": {"summary": {"metadata": CONTEXT}, "events": ELIZA}}),
        ("elizaos", {"events": [{**ELIZA[0], "data": {"metadata": CONTEXT}}, ELIZA[1]]}),
        ("casedev", {**RUNTYPE, "prompt": f"Summarise. TraceParent={HEADER.upper()}"}),
        ("casedev", {**RUNTYPE, "metadata": {"trace": CONTEXT}}),
    ],
)
def test_the_root_links_to_the_caller(platform: str, detail: dict[str, Any]) -> None:
    source = source_of(platform)
    run = source.read(RunBody(RunRef(platform, source.tenant, "r"), {"detail": detail}))
    (link,) = project(run, ProjectionSettings(source="s")).root.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, SPAN)
    assert link.attributes == {"runspan.link": "caller"}


@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        f"traceparent {HEADER}",
        f"mytraceparent: {HEADER}",
        f"traceparent: {HEADER}0",
        f"traceparent: ff-{TRACE}-{SPAN}-01",
        f"traceparent: 00-{TRACE}-{SPAN}",
        "x" * TRACEPARENT_CHARACTERS + f" traceparent: {HEADER}",
    ],
)
def test_what_only_looks_like_one_is_none(text: str) -> None:
    assert find_traceparent(text) is None


@pytest.mark.parametrize("place", [None, 3, [], {}, {"traceparent": 3}, ["traceparent"]])
def test_there_need_not_be_one(place: Json) -> None:
    assert find_traceparent(place) is None
