"""Opening: a ledger that is not sound stops the program with one line, and never starts over from zero."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event

from runspan.errors import ConfigError, LedgerOlder, LedgerUnusable
from runspan.ledger import Account, Ledger, migrations, schema, store
from tests.ledgers import ACCOUNT, START_NS, Clock, make_first_ledger, open_ledger, other_process, row, url


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(LedgerUnusable) as caught:
        open_ledger(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A closed ledger of some hundred rows."""
    with open_ledger(path) as ledger:
        ledger.note_rows([row(f"run-{number}", reason="x" * 50) for number in range(400)])
    return path


class TestCreation:
    def test_a_missing_ledger_is_created_for_its_owner_alone(self, path: Path) -> None:
        with open_ledger(path) as ledger:
            assert ledger.created
            assert ledger.path == path
            assert ledger.folder == path.parent
            ledger.note_rows([row("run-1")])
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) in (0o600, 0o700), file
        with open_ledger(path) as ledger:
            assert not ledger.created

    @pytest.mark.parametrize("option", ["read_only", "must_exist"])
    def test_where_it_must_exist_it_is_not_created(self, path: Path, option: str) -> None:
        assert "there is no ledger at" in refusal(path, **{option: True})
        assert not path.parent.exists()

    def test_two_processes_that_create_it_at_once_get_the_same_one(self, path: Path) -> None:
        script = f"from runspan.ledger import Ledger; print(Ledger.open({url(path)!r}).created)"
        both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in "ab"]
        said = sorted(process.communicate()[0].strip() for process in both)
        assert said in (["False", "True"], ["False", "False"])
        assert all(process.returncode == 0 for process in both)
        assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []

    def test_a_path_may_hold_any_character(self, tmp_path: Path) -> None:
        path = tmp_path / "100 % #1 é" / "ledger.db"
        with open_ledger(path):
            assert path.exists()

    def test_a_log_without_its_ledger_is_not_mixed_into_a_new_one(self, filled: Path) -> None:
        ledger = open_ledger(filled)
        ledger.note_rows([row("late")])
        shutil.copy(f"{filled}-wal", filled.parent / "wal")
        ledger.close()
        filled.unlink()
        shutil.move(filled.parent / "wal", f"{filled}-wal")
        assert "write-ahead log ledger.db-wal is there" in refusal(filled)

    def test_one_with_two_names_is_refused_since_each_would_have_its_own_log(self, filled: Path) -> None:
        link = filled.with_name("hard.db")
        link.hardlink_to(filled)
        for path in (filled, link):
            assert "has another name too" in refusal(path)
        link.unlink()
        open_ledger(filled).close()

    def test_a_draft_that_a_dying_process_left_is_no_second_name(self, filled: Path) -> None:
        draft = filled.with_name(f".{filled.name}.0123abcd")
        draft.hardlink_to(filled)
        open_ledger(filled).close()
        assert not draft.exists()

    def test_a_folder_is_told_from_a_ledger(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == f"{tmp_path} is a folder: set [ledger] url to a file in it, such as ledger.db"

    @pytest.mark.parametrize("wrong", ["ledger.db", "postgresql+psycopg://user:secret@db/runs"])
    def test_a_url_that_is_none_is_the_configurations_fault(self, wrong: str) -> None:
        with pytest.raises(ConfigError, match=r"\[ledger\] url") as caught:
            Ledger.open(wrong)
        assert "secret" not in str(caught.value)

    def test_one_in_memory_touches_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with Ledger.open("sqlite://") as ledger, ledger.hold_daemon():
            assert ledger.path is None
            assert ledger.folder is None
            ledger.note_rows([row("run-1")])
            assert len(ledger.claim(ACCOUNT, limit=5)) == 1
        assert list(tmp_path.iterdir()) == []


def no_database(path: Path) -> None:
    path.write_text("[ledger]\nthis is no database\n" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_by_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def flip(offset: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x40]))

    return damage


def flip_every_page_header(path: Path) -> None:
    for offset in range(4096, path.stat().st_size, 4096):
        flip(offset)(path)


def flip_the_last_page_header(path: Path) -> None:
    flip(path.stat().st_size - 4096)(path)


def another_programs(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('0002')")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TABLE meta")


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (no_database, "is not a ledger"),
            (empty, "empty file"),
            (cut_in_half, "is damaged"),
            (cut_by_a_page, "is damaged"),
            (flip(0), "is not a ledger"),
            (flip(100), "is damaged"),
            (flip_every_page_header, "is damaged"),
            (flip_the_last_page_header, "is damaged"),
            (another_programs, "database of another program"),
            (newer, "newer runspan"),
            (without_a_table, "is damaged"),
        ],
        ids=lambda value: getattr(value, "__name__", None),
    )
    def test_it_is_said_and_the_file_stays_as_it_is(
        self, filled: Path, damage: Callable[[Path], None], words: str
    ) -> None:
        damage(filled)
        before = filled.read_bytes()
        assert words in refusal(filled)
        assert filled.read_bytes() == before

    def test_damage_that_shows_up_while_running_is_said_too(self, filled: Path) -> None:
        with open_ledger(filled) as ledger:
            with closing(sqlite3.connect(filled, isolation_level=None)) as database:
                database.execute("DROP TABLE jobs")
            with pytest.raises(LedgerUnusable, match="is damaged"):
                ledger.job("some")

    def test_a_ledger_that_vanishes_while_running_is_noticed(self, filled: Path) -> None:
        ledger = open_ledger(filled)
        filled.rename(filled.with_suffix(".away"))
        with pytest.raises(LedgerUnusable, match="removed or replaced"):
            ledger.note_rows([row("run-x")])
        filled.with_suffix(".away").rename(filled)
        ledger.close()

    def test_a_lock_that_lasts_is_said(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "BUSY_TIMEOUT_SECONDS", 0)
        holder = sqlite3.connect(filled, isolation_level=None)
        with closing(holder), open_ledger(filled) as ledger:
            holder.execute("BEGIN IMMEDIATE")
            assert ledger.counts(), "readers wait for nobody"
            with pytest.raises(LedgerUnusable, match="was locked for over"):
                ledger.note_rows([row("run-x")])
            holder.execute("ROLLBACK")
            assert ledger.note_rows([row("run-x")]).new == 1


@pytest.fixture
def tiny_disk() -> Iterator[None]:
    def limit(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 60")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


def test_a_full_disk_loses_the_page_and_nothing_else(path: Path, tiny_disk: None) -> None:
    with open_ledger(path) as ledger:
        ledger.note_rows([row("run-1")])
        with pytest.raises(LedgerUnusable, match=r"disk of the ledger .* is full; make room"):
            ledger.note_rows([row(f"big-{number}", reason="x" * 500) for number in range(1000)])
        assert [count.rows for count in ledger.counts()] == [1]


def open_as_nobody(path: Path) -> str:
    """What opening says to a user who may not write: root may write everywhere."""
    script = (
        "import os, sys; from runspan.ledger import Ledger; from runspan.errors import LedgerUnusable\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        f"try: Ledger.open({url(path)!r})\n"
        "except LedgerUnusable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def public_path(filled: Path) -> Iterator[Path]:
    """A sound ledger that everyone can read."""
    folder = Path("/var/tmp") / f"runspan-test-{os.getpid()}"
    shutil.copytree(filled.parent, folder)
    path = folder / filled.name
    shutil.rmtree(f"{path}.owners")
    yield path
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o666, 0o555), (0o444, 0o555), (0, 0o777)])
def test_a_ledger_that_cannot_be_written_is_refused_at_once(
    public_path: Path, file_mode: int, folder_mode: int
) -> None:
    public_path.chmod(file_mode)
    public_path.parent.chmod(folder_mode)
    said = open_as_nobody(public_path)
    assert re.search(r"cannot be (written|opened|reached)", said)
    assert "permissions" in said
    assert str(public_path) in said


class TestReadOnly:
    def test_it_reads_beside_a_running_daemon_and_writes_nothing(self, filled: Path) -> None:
        with open_ledger(filled) as ledger, ledger.hold_daemon():
            reader = open_ledger(filled, read_only=True)
            ledger.note_rows([row("new")])
            assert [found.ref.run_id for found in reader.find("new")] == ["new"]
            with pytest.raises(LedgerUnusable, match="cannot be written"):
                reader.note_rows([row("other")])
            reader.close()


def with_migration(monkeypatch: pytest.MonkeyPatch, folder: Path, second_step: str) -> None:
    """A release that has one migration more."""
    plain = migrations.configuration
    versions = Path(migrations.__file__).parent / "versions"
    (folder / "v9998_more.py").write_text(
        f"from alembic import op\nrevision, down_revision = '9998', {schema.REVISION!r}\n"
        f"def upgrade():\n    op.execute('CREATE TABLE more (a TEXT)')\n    op.execute({second_step!r})\n"
    )

    def configuration(connection: object) -> object:
        config = plain(connection)  # type: ignore[arg-type]
        config.set_main_option("version_locations", f"{versions}{os.pathsep}{folder}")
        return config

    monkeypatch.setattr(migrations, "configuration", configuration)
    monkeypatch.setattr(schema, "REVISION", "9998")


class TestMigrations:
    def test_they_lead_to_the_schema_we_work_with(self, path: Path) -> None:
        open_ledger(path).close()
        engine = create_engine(url(path))
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
            script = ScriptDirectory.from_config(migrations.configuration(connection))
        engine.dispose()
        assert script.get_heads() == [schema.REVISION]

    def test_an_older_ledger_is_brought_up_to_date_with_its_rows(
        self, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_migration(monkeypatch, tmp_path, "INSERT INTO more VALUES ('moved')")
        assert "of an older runspan" in refusal(filled, read_only=True)
        with open_ledger(filled) as ledger:
            assert [count.rows for count in ledger.counts()] == [400]
        with closing(sqlite3.connect(filled)) as database:
            assert database.execute("SELECT a FROM more").fetchall() == [("moved",)]

    def test_the_first_ledger_keeps_its_positions_and_gets_a_start(self, path: Path) -> None:
        columns = "platform, tenant, scope, kind, start_ns, position_ns, cursor"
        sweeps = ", ".join(
            f"('casedev', 'a', '{scope}', 'poll', {start_ns}, {start_ns + 500}, '[1, 2, 3, 4]')"
            for scope, start_ns in (("ada", 300), ("bo", 200))
        )
        make_first_ledger(
            path,
            f"INSERT INTO sweeps ({columns}) VALUES {sweeps}",
            "INSERT INTO accounts VALUES ('casedev', 'a', 900, 40), ('casedev', 'b', 1, 2)",
        )
        with open_ledger(path) as ledger:
            account = Account("casedev", "a")
            bo = ledger.sweep(account, "bo", "poll")
            assert bo is not None
            assert (bo.start_ns, bo.position_ns, bo.cursor) == (200, 700, None)
            assert ledger.start_ns(account, if_new_ns=1) == 200
            assert ledger.pruned_through_ns(account) == 40
            assert ledger.start_ns(Account("casedev", "b"), if_new_ns=1) == 1

    def test_who_only_looks_leaves_an_older_ledger_as_it_is(
        self, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = filled.read_bytes()
        with_migration(monkeypatch, tmp_path, "INSERT INTO more VALUES ('moved')")
        with pytest.raises(LedgerOlder), Ledger.open_if_there(url(filled)):
            pass
        assert filled.read_bytes() == before

    def test_none_is_migrated_under_a_process_of_the_older_release(
        self, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with other_process("say('here')", filled) as (process, _):
            with_migration(monkeypatch, tmp_path, "INSERT INTO more VALUES ('moved')")
            for _ in "ab":
                assert "stop that one first" in refusal(filled)
            with closing(sqlite3.connect(filled)) as database:
                assert database.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
            process.kill()
            process.wait()
            with open_ledger(filled) as ledger:
                assert [count.rows for count in ledger.counts()] == [400]

    def test_one_that_fails_halfway_leaves_the_ledger_as_it_was(
        self, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:
            with_migration(broken, tmp_path, "INSERT INTO nowhere VALUES (1)")
            refusal(filled)
        with closing(sqlite3.connect(filled)) as database:
            assert database.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
        with open_ledger(filled) as ledger:
            assert [count.rows for count in ledger.counts()] == [400]

    def test_a_ledger_that_is_up_to_date_costs_no_alembic(self, filled: Path) -> None:
        script = (
            f"import sys; from runspan.ledger import Ledger; Ledger.open({url(filled)!r}).close()\n"
            "assert 'alembic' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", script], check=True)


def test_whatever_commits_a_power_failure_takes_no_position_is_ahead_of_its_rows(path: Path, tmp_path: Path) -> None:
    # Power failure under synchronous=NORMAL: the log is on the disk up to some byte, and the rest is not.
    clock = Clock()
    with open_ledger(path, clock) as ledger:
        for step in range(12):
            clock.advance(60)
            ledger.begin_sweep(ACCOUNT, "", "poll", window_start_ns=0, window_end_ns=None, position_ns=0)
            page = [row(f"run-{step}-{number}", created_ns=START_NS + step) for number in range(5)]
            ledger.note_page(ACCOUNT, "", "poll", page, cursor=None, high_ns=START_NS + step)
        log = Path(f"{path}-wal").read_bytes()
        positions = set()
        for kept in range(0, len(log), len(log) // 40):
            copy = tmp_path / f"after-{kept}.db"
            shutil.copy(path, copy)
            Path(f"{copy}-wal").write_bytes(log[:kept])
            with open_ledger(copy, clock) as survivor:
                sweep = survivor.sweep(ACCOUNT, "", "poll")
                position_ns = sweep.position_ns if sweep and sweep.position_ns else 0
                rows = survivor.runs(until_ns=position_ns + 1)
                steps = position_ns - START_NS + 1 if position_ns else 0
                assert len(rows) == 5 * steps
                positions.add(position_ns)
    assert len(positions) > 5


def test_after_a_prune_the_file_alone_holds_everything(path: Path, tmp_path: Path) -> None:
    """Who copies only it, or loses the log beside it, must not go back to the first day."""
    with open_ledger(path) as ledger:
        ledger.note_rows([row("a"), row("b")])
        ledger.prune(ACCOUNT, before_ns=0)
        shutil.copy(path, tmp_path / "copy.db")
    with open_ledger(tmp_path / "copy.db") as copy:
        assert {found.ref.run_id for found in copy.runs()} == {"a", "b"}


def test_a_run_in_a_state_that_there_is_not_is_damage(path: Path) -> None:
    """It would never be worked on, and nobody would know."""
    with open_ledger(path) as ledger:
        ledger.note_rows([row("a"), row("b")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET state = 'dte' WHERE run_id = 'b'")
    with pytest.raises(LedgerUnusable, match="damaged"):
        open_ledger(path)


@pytest.mark.parametrize("change", ["UPDATE meta SET value = '{\"a'", "DELETE FROM alembic_version"])
def test_what_reads_as_nothing_we_wrote_is_damage(path: Path, change: str) -> None:
    with open_ledger(path) as ledger:
        ledger.remember_destination("http://a")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    with pytest.raises(LedgerUnusable, match="damaged"), open_ledger(path) as ledger:
        ledger.remember_destination("http://a")
