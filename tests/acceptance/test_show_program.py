"""`runspan show --file`: whatever of a platform's answer somebody has saved, drawn as the trace it becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from runspan.projection import trace_id
from tests.acceptance.test_cli_config import runspan

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASEDEV = "https://api.case.dev"
RUN: dict[str, Any] = {
    "id": "run_1",
    "status": "completed",
    "createdAt": "2026-05-01T10:00:00Z",
    "completedAt": "2026-05-01T10:01:00Z",
}


@pytest.mark.parametrize(
    ("body", "arguments", "run_id", "warned"),
    [
        (RUN, [], "run_1", False),
        ({"success": True, "data": RUN}, [], "run_1", False),
        ({"detail": RUN}, [], "run_1", False),
        (RUN, ["run_2"], "run_2", False),
        ({**RUN, "id": None}, ["run_2"], "run_2", False),
        ({**RUN, "id": None}, [], "unknown", True),
    ],
)
def test_the_ids_shown_are_those_it_is_exported_with_or_it_says_that_they_are_not(
    body: Any, arguments: list[str], run_id: str, warned: bool, tmp_path: Path
) -> None:
    (tmp_path / "saved.json").write_text(json.dumps(body))
    shown = runspan("show", "--platform", "casedev", "--file", "saved.json", *arguments, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f"run {run_id} " in shown.stdout
    assert trace_id("casedev", CASEDEV, run_id).hex() in shown.stdout
    assert ("does not tell the run's id" in shown.stderr) is warned


def test_all_answers_of_a_run_make_the_whole_trace(tmp_path: Path) -> None:
    documents = json.loads((FIXTURES / "runtype/ideal-tree.json").read_text())["documents"]
    (tmp_path / "saved.json").write_text(json.dumps(documents))
    shown = runspan("show", "--platform", "runtype", "--file", "saved.json", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "execute_tool search_docs" in shown.stdout


def test_a_file_without_end_is_said_in_one_line(tmp_path: Path) -> None:
    shown = runspan("show", "--platform", "casedev", "--file", "/dev/zero", "run_1", folder=tmp_path)
    told = "cannot read /dev/zero: it has more than 128,000,000 bytes: is this the right file?\n"
    assert (shown.returncode, shown.stderr) == (2, told)


@pytest.mark.parametrize("body", ["", "{", '["a"]', '{"detail": 3}', "null", "[" * 5000 + "]" * 5000])
def test_what_is_no_run_is_said_in_one_line(body: str, tmp_path: Path) -> None:
    (tmp_path / "saved.json").write_text(body)
    shown = runspan("show", "--platform", "casedev", "--file", "saved.json", "run_1", folder=tmp_path)
    assert shown.returncode in (1, 2)
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1
