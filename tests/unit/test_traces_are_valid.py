"""The traces of all fixture bodies and of the simulator's sample runs hold to the validator, under every preset."""

import json
from pathlib import Path

import pytest

from runspan.errors import RunUnreadable
from runspan.model import Locator, RunBody, RunRef
from runspan.otlp.encode import encode
from runspan.otlp.presets import PRESETS, Preset
from runspan.projection import ProjectionSettings, project
from tests.otlp_validator import Rules, faults
from tests.unit.test_goldens import CASES, FIXTURES, source_of

BODIES = {str(path.relative_to(FIXTURES).with_suffix("")): path for path in CASES}


def faults_of(platform: str, body: RunBody, preset: Preset, *, with_content: bool) -> list[str]:
    settings = ProjectionSettings(source="s", preset=preset, capture_content=with_content)
    rules = Rules(attribute_bytes=preset.attribute_bytes, with_content=with_content, resource={"service.name": "s"})
    try:
        # Also of open and of skipped runs, which a setting can have exported.
        trace = project(source_of(platform).read(body), settings)
    except RunUnreadable:
        return []
    return faults(encode(trace).payload, rules)


@pytest.mark.parametrize("with_content", [False, True], ids=["without content", "with content"])
@pytest.mark.parametrize("path", BODIES.values(), ids=BODIES)
def test_a_fixture_body_becomes_a_valid_trace(path: Path, with_content: bool) -> None:
    platform = path.relative_to(FIXTURES).parts[0]
    fixture = json.loads(path.read_text())
    body = fixture if "documents" in fixture else {"run_id": path.stem, "documents": {"detail": fixture}}
    ref = RunRef(platform, source_of(platform).tenant, body["run_id"], Locator(**body.get("locator", {})))
    for preset in PRESETS.values():
        assert faults_of(platform, RunBody(ref, body["documents"]), preset, with_content=with_content) == []
