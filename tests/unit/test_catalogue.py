"""Every failure of the catalogue has its tests, and they exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|$", (ROOT / "tests/CATALOGUE.md").read_text(), re.MULTILINE)
FAILURES = {failure: held_by for failure, held_by in ROWS if failure not in ("failure", "---")}
NAMED = sorted({name for held_by in FAILURES.values() for name in re.findall(r"`(\S+?)`", held_by)})


def names_in(path: str) -> Iterator[str]:
    """The names by which pytest knows the tests of a file."""
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{path}::{node.name}::{inner.name}" for inner in node.body if hasattr(inner, "name"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}::{node.name}"


def test_there_are_failures_and_tests() -> None:
    assert len(FAILURES) > 50
    assert len(NAMED) > 50


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_held_or_cannot_happen(failure: str) -> None:
    assert FAILURES[failure].startswith(("`tests/", "Cannot happen: "))


@pytest.mark.parametrize("path", sorted({name.partition("::")[0] for name in NAMED}))
def test_every_test_named_exists(path: str) -> None:
    named = {name for name in NAMED if name.partition("::")[0] == path}
    assert named <= set(names_in(path))
