"""A new release beside the ledger of an older one: it is migrated by who works on it, and by nobody who only looks."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from runspan.demo.samples.builders import casedev_run
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldRun
from tests.acceptance.program import Program, closing_table
from tests.ledgers import make_first_ledger
from tests.otlp_store import OtlpStore

OLDER = "is of an older runspan"


@pytest.fixture
def run() -> WorldRun:
    return casedev_run(1, created_at_ns=time.time_ns() - 7200 * SECOND_NS)


@pytest.fixture
def program(run: WorldRun, tmp_path: Path) -> Iterator[Program]:
    world = World()
    world.add(run)
    with Simulator(world, rate_limited=False).in_thread() as simulator, OtlpStore() as store:
        program = Program.between(simulator, store, tmp_path)
        make_first_ledger(program.ledger)
        yield program


def version(program: Program) -> str:
    with closing(sqlite3.connect(program.ledger)) as database:
        return database.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_who_only_looks_leaves_it_as_it_is(program: Program, run: WorldRun) -> None:
    before = program.ledger.read_bytes()
    checked = program.run("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "of an older runspan: the next start brings it up to date" in checked.stdout
    shown = program.run("show", "--source", "casedev", run.run_id)
    tried = program.run("backfill", "--source", "casedev", "--since", "1d", "--dry-run")
    assert closing_table(tried.stdout)["would be exported"] == 1
    for ended in (shown, tried):
        assert ended.returncode == 0, ended.stderr
        assert [OLDER in line for line in ended.stderr.splitlines() if "ledger_left_out" in line] == [True]
    assert program.ledger.read_bytes() == before


@pytest.mark.parametrize("command", [["retry"], ["backfill", "--source", "casedev", "--since", "1d"], ["run"]])
def test_who_works_on_it_migrates_it_but_not_under_an_older_daemon(program: Program, command: list[str]) -> None:
    folder = Path(f"{program.ledger}.owners")
    folder.mkdir()
    with FileLock(folder / "0123abcd"):
        refused = program.run(*command)
        assert refused.returncode == 4
        [said] = refused.stderr.splitlines()
        assert OLDER in said
        assert "stop that one first" in said
        assert version(program) == "0001"
    if command != ["run"]:
        assert program.run(*command).returncode == 0
        assert version(program) != "0001"
