"""Every event that the program logs has a stable name, and docs/logs.md says what it means."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "runspan").rglob("*.py"))
LEVELS = ("debug", "info", "warning", "error")


def calls() -> Iterator[tuple[str, ast.Call, dict[str | None, ast.expr]]]:
    """Every call that logs, or that looks as if it did: where, what, with which keywords."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                if _logger_of(node) or "action" in keywords:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node, keywords


def _logger_of(call: ast.Call) -> str | None:
    function = call.func
    is_log = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "log"
    return function.attr if is_log else None


CALLS = {where: (call, keywords) for where, call, keywords in calls()}


@pytest.mark.parametrize("where", CALLS)
def test_each_event_has_a_level_a_text_and_an_action_of_its_own(where: str) -> None:
    call, keywords = CALLS[where]
    assert _logger_of(call) in LEVELS
    assert len(call.args) == 1
    action = keywords.get("action")
    assert isinstance(action, ast.Constant)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", action.value)
    texts = [node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)]
    assert not any("\n" in str(text) for text in texts)


def test_nobody_logs_by_another_name() -> None:
    names = re.compile(r"^(?:(\w+) = )?.*(?:structlog|logging)\.(?:get_logger|getLogger)\(\)", re.MULTILINE)
    found = {str(path): names.findall(path.read_text()) for path in SOURCES if path.stem != "logs"}
    assert len([path for path, loggers in found.items() if loggers == ["log"]]) > 5
    # options.py sets logs up itself and can have its logger only then.
    assert {path: loggers for path, loggers in found.items() if loggers not in ([], ["log"], [""])} == {}


def test_each_action_is_told_of_and_none_that_is_not_there() -> None:
    logged = {(keywords["action"].value, _logger_of(call)) for call, keywords in CALLS.values()}  # type: ignore[attr-defined]
    told = re.findall(
        r"^\| `(\w+)` \| (\w+) \| \S.*? \|(?: \S.*?)? \|$", (ROOT / "docs/logs.md").read_text(), re.MULTILINE
    )
    assert sorted(told) == sorted(set(told))
    assert set(told) == logged


def test_what_asks_for_someone_says_what_to_do() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (?:error|warning) \|.*\| (.*?)\|$", (ROOT / "docs/logs.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 20
    assert [action for action, remedy in rows if not remedy.strip()] == []


def test_the_readme_leads_there() -> None:
    assert "(docs/logs.md)" in (ROOT / "README.md").read_text()
