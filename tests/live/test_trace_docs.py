"""docs/traces/ shows what is so: each page is made from what the backends give back, and compared with the one we have.

`make traces` (RUNSPAN_DOCS=write) writes them anew.
"""

import asyncio
import contextlib
import io
import json
import os
import time
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from runspan.cli.waterfall import Waterfall
from runspan.model import Locator, Run, RunBody, RunRef
from runspan.otlp.base import Answer, AnswerKind, Exporter
from runspan.otlp.encode import encode
from runspan.otlp.http import HttpExporter
from runspan.otlp.presets import PRESETS
from runspan.projection import ProjectionSettings, project
from runspan.sources import registry
from runspan.sources.client import Client
from runspan.trace import Trace
from tests.live import trace_docs
from tests.live.jaeger import Jaeger
from tests.live.phoenix import Phoenix
from tests.live.readback import from_jaeger
from tests.live.trace_docs import PAGES, Shown

ROOT = Path(__file__).parents[2]
WRITE = os.environ.get("RUNSPAN_DOCS") == "write"
WIDTH = 112
KINDS = {1: "INTERNAL", 3: "CLIENT"}
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}


def rich_run(platform: str) -> tuple[Run, Mapping[str, Any]]:
    """The run of tests/fixtures/<platform>/rich.json, and its documents."""
    fixture = json.loads((ROOT / f"tests/fixtures/{platform}/rich.json").read_text())
    kind = registry()[platform]
    base_url = kind.default_base_url or "http://localhost:3000"
    config = kind.config_type(name=f"{platform}-prod", platform=platform, base_url=base_url)
    source = kind(config, cast("Client", SimpleNamespace(origin=base_url)))
    ref = RunRef(platform, source.tenant, fixture["run_id"], Locator(**fixture["locator"]))
    return source.read(RunBody(ref, fixture["documents"])), fixture["documents"]


def projected(run: Run, preset: str) -> Trace:
    settings = ProjectionSettings(source=f"{run.ref.platform}-prod", capture_content=True, preset=PRESETS[preset])
    return project(run, settings)


def sent(trace: Trace, endpoint: str) -> None:
    async def send() -> Answer:
        exporter: Exporter = HttpExporter(endpoint)
        try:
            return await exporter.send([encode(trace)])
        finally:
            await exporter.close()

    assert asyncio.run(send()).kind is AnswerKind.ACCEPTED


def shown_by_jaeger(jaeger: Jaeger, trace: Trace) -> Sequence[Shown]:
    """The trace as Jaeger's query API gives it back."""
    sent(trace, f"{jaeger.otlp_http}/v1/traces")
    found = from_jaeger(jaeger.query, trace.trace_id)
    # Of a trace that was sent twice, the second copy comes back as a scope without spans.
    spans = [span for part in found["resourceSpans"] for scope in part["scopeSpans"] for span in scope.get("spans", [])]
    names = {span["spanId"]: span["name"] for span in spans}
    return in_order(
        Shown(
            name=span["name"],
            parent=names.get(span.get("parentSpanId", ""), ""),
            start_ns=int(span["startTimeUnixNano"]),
            end_ns=int(span["endTimeUnixNano"]),
            kind=KINDS[span["kind"]],
            status=f"{STATUSES[span['status'].get('code', 0)]} {span['status'].get('message', '')}".strip(),
            attributes=values(span["attributes"]),
            events={event["name"]: int(event["timeUnixNano"]) for event in span.get("events", [])},
            links={values(link["attributes"])["runspan.link"]: link["traceId"] for link in span.get("links", [])},
        )
        for span in spans
    )


def shown_by_phoenix(phoenix: Phoenix, trace: Trace) -> Sequence[Shown]:
    """The trace as Phoenix gives it back; on the root also what Phoenix adds up over the whole trace."""
    sent(trace, f"{phoenix.url}/v1/traces")
    spans = from_phoenix(phoenix, trace)
    names = {span["context"]["span_id"]: span["name"] for span in spans}
    total = phoenix.graphql(
        f'{{ getTraceByOtelId(traceId: "{trace.trace_id.hex()}") {{ rootSpan {{ cumulativeTokenCountTotal }} }} }}'
    )["getTraceByOtelId"]["rootSpan"]["cumulativeTokenCountTotal"]
    return in_order(
        Shown(
            name=span["name"],
            parent=names.get(span["parent_id"] or "", ""),
            start_ns=nanoseconds_of(span["start_time"]),
            end_ns=nanoseconds_of(span["end_time"]),
            kind=span["span_kind"],
            status=f"{span['status_code']} {span['status_message']}".strip(),
            attributes={**span["attributes"], **({} if span["parent_id"] else {"tokens of the trace": int(total)})},
            events={event["name"]: nanoseconds_of(event["timestamp"]) for event in span["events"]},
        )
        for span in spans
    )


def from_phoenix(phoenix: Phoenix, trace: Trace) -> Sequence[Any]:
    """All spans of the trace, once Phoenix shows them: it writes what it took a little later."""
    deadline = time.monotonic() + 30
    while True:
        # Before the first trace there is no project to ask.
        with contextlib.suppress(urllib.error.HTTPError):
            spans = phoenix.spans([trace.trace_id])
            if len(spans) >= len(trace.spans):
                return spans
        assert time.monotonic() < deadline, "Phoenix does not show the whole trace"
        time.sleep(0.1)


def nanoseconds_of(text: str) -> int:
    """An ISO-8601 instant, which Phoenix keeps to the microsecond."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def values(attributes: Sequence[Any]) -> dict[str, Any]:
    """OTLP JSON attributes by name."""
    return {attribute["key"]: _value(attribute["value"]) for attribute in attributes}


def _value(value: Mapping[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    return {"intValue": int, "doubleValue": float}.get(kind, lambda same: same)(inner)


def in_order(spans: Any) -> Sequence[Shown]:
    return sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))


def page(platform: str, backends: Mapping[str, Sequence[Shown]], trace: Trace, documents: Mapping[str, Any]) -> str:
    title, rows = PAGES[platform]
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, highlight=False)
    console.print(Waterfall(trace))
    names = " and ".join(backends)
    others = [name for name in documents if name != "detail" and any(row.path.startswith(f"{name}:") for row in rows)]
    more = f", or with {' and '.join(f'`{name}:`' for name in others)} into those beside it" if others else ""
    return f"""# A run of {title}

The run of [{platform}/rich.json](../../tests/fixtures/{platform}/rich.json), with content capture on.
`make traces` sends it to {names}, reads it back there and writes this page; `make live` fails where the page is stale.

## As `runspan show` draws it

```
{cast("io.StringIO", console.file).getvalue().rstrip()}
```

## What {title} said, and what {names} show

The paths lead into the answer that gives the run's detail{more}. Of the spans, (2) is the second one of its name.
What is shown was read back through the query API of {names}.

{trace_docs.table(title, rows, documents, backends)}
"""


@pytest.mark.parametrize("platform", PAGES)
def test_the_page_shows_what_the_backends_show(platform: str, jaeger: Jaeger, phoenix: Phoenix) -> None:
    run, documents = rich_run(platform)
    trace = projected(run, "jaeger")
    backends = {
        "Jaeger": shown_by_jaeger(jaeger, trace),
        "Phoenix": shown_by_phoenix(phoenix, projected(run, "phoenix")),
    }

    made = page(platform, backends, trace, documents)

    at = ROOT / f"docs/traces/{platform}.md"
    if WRITE:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(made)
    assert at.exists(), "no page yet: `make traces` writes it"
    assert made == at.read_text(), f"{at.relative_to(ROOT)} is stale: `make traces` writes it anew"


@pytest.mark.parametrize("platform", PAGES)
def test_the_backends_show_all_of_it(platform: str, jaeger: Jaeger, phoenix: Phoenix) -> None:
    run, documents = rich_run(platform)
    _, rows = PAGES[platform]
    assert all(trace_docs.said(documents, row.path) is not None for row in rows)

    spans = shown_by_jaeger(jaeger, projected(run, "jaeger"))
    assert [row for row in rows if trace_docs.shows(spans, row.span, row.jaeger) is None] == []
    # A page that shows nothing where something was lost would be a poor guard.
    lost = [replace(span, attributes={}) for span in spans]
    assert any(trace_docs.shows(lost, row.span, row.jaeger) is None for row in rows)

    spans = shown_by_phoenix(phoenix, projected(run, "phoenix"))
    places = [(row.span, row.phoenix or row.jaeger) for row in rows]
    hidden = [place for span, place in places if trace_docs.shows(spans, span, place) is None]
    assert hidden == [place for _, place in places if place.startswith("link ")], "Phoenix shows all but links"
