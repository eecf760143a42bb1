"""Every fixture body beside the whole text of the trace it becomes.

A fixture `tests/fixtures/<platform>/<case>.json` is a body as fetched, `{"run_id", "locator", "documents"}`, or a
vendor's answer as it is, as are those of a real server in `observed/`; `"content": true` captures content too.
`UPDATE_GOLDENS=1 pytest tests/unit/test_goldens.py` writes `<case>.golden.txt` anew: read the difference before you
commit it.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runspan.errors import RunUnreadable
from runspan.model import Locator, RunBody, RunRef, RunStatus
from runspan.projection import ProjectionSettings, project
from runspan.projection.text import trace_text
from runspan.sources import registry
from runspan.sources.base import Source
from runspan.sources.client import Client

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = sorted([*FIXTURES.glob("*/*.json"), *FIXTURES.glob("*/observed/detail-*.json")])
HOME = "http://localhost:3000"


def source_of(platform: str) -> Source:
    kind = registry()[platform]
    base_url = kind.default_base_url or HOME
    config = kind.config_type(name=platform, platform=platform, base_url=base_url, tenant=base_url)
    # Reading a body asks no one: without a door, a source that tried to would fail.
    return kind(config, cast("Client", SimpleNamespace(origin=base_url)))


def golden_text(platform: str, fixture: dict[str, Any], case: str) -> str:
    source = source_of(platform)
    body = fixture if "documents" in fixture else {"run_id": case, "documents": {"detail": fixture}}
    ref = RunRef(platform, source.tenant, body["run_id"], Locator(**body.get("locator", {})))
    settings = ProjectionSettings(source=f"my-{platform}", capture_content=body.get("content", False))
    try:
        run = source.read(RunBody(ref, body["documents"]))
        if run.status is RunStatus.OPEN:
            return f"open: {run.raw_status}\n"
        if run.skip_reason is not None:
            return f"skipped: {run.skip_reason}\n"
        return trace_text(project(run, settings))
    except RunUnreadable as error:
        return f"unreadable: {error}\n"


@pytest.mark.parametrize("path", CASES, ids=lambda path: str(path.relative_to(FIXTURES).with_suffix("")))
def test_a_body_becomes_the_trace_beside_it(path: Path) -> None:
    text = golden_text(path.relative_to(FIXTURES).parts[0], json.loads(path.read_text()), path.stem)
    golden = path.with_suffix(".golden.txt")
    if os.environ.get("UPDATE_GOLDENS") == "1":
        golden.write_text(text)
    assert golden.exists(), "no golden yet: UPDATE_GOLDENS=1 writes it"
    assert text == golden.read_text()


def test_no_golden_stands_without_its_body() -> None:
    bodies = {path.with_suffix(".golden.txt") for path in CASES}
    assert set(FIXTURES.rglob("*.golden.txt")) <= bodies
