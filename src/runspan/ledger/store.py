"""The ledger's database: opening it, checking it, and turning its errors into words.

SQLite only, for now. Everything that knows that is here, but for the dialect's `INSERT ... ON CONFLICT`.
"""

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    Pool,
    QueuePool,
    RootTransaction,
    StaticPool,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from runspan.errors import ConfigError, LedgerOlder, LedgerReadOnly, LedgerUnusable
from runspan.ledger import owners, schema
from runspan.ledger.values import RowState
from runspan.paths import expanded

BUSY_TIMEOUT_SECONDS = 30
"""How long to wait for another process' transaction. Ours take milliseconds, so a longer wait means that something else
holds the file: an editor of databases, a backup, a stopped process."""
PARTING_SECONDS = 1.0
"""How long all that comes after such a wait may wait together: mostly what is still to be given back on the way out."""


class Store:
    """A database that was found sound, and transactions on it.

    `path` is None for a ledger in memory. `created` says that it did not exist before. `guard` looks at each
    transaction that may write before anything is written, and raises LedgerUnusable where nothing may be any more.
    """

    def __init__(self, engine: Engine, path: Path | None, *, created: bool) -> None:
        self.path = path
        self.created = created
        self.guard: Callable[[Connection], None] | None = None
        self._engine = engine
        self._inode = path.stat().st_ino if path else None
        # Threads of one process wait here, in turn, and not in SQLite's polling; in memory they share one connection.
        self._turn = threading.Lock()
        self._gave_up_seconds: float | None = None
        """When a transaction first waited in vain for another process'; None once one has come through."""

    @contextmanager
    def write(self) -> Generator[Connection]:
        """A transaction that may write; all of it is committed, or nothing. Raises LedgerUnusable."""
        with explained(self.path), self._turn:
            if self.path and not self._still_there(self.path):
                raise LedgerUnusable(
                    f"the ledger at {self.path} was removed or replaced while it was in use; "
                    f"put it back, or restart to use what is there now"
                )
            with self._engine.connect() as connection, self._begun(connection):
                if self.guard:
                    self.guard(connection)
                yield connection

    def _begun(self, connection: Connection) -> RootTransaction:
        patience_seconds: float = BUSY_TIMEOUT_SECONDS
        if self._gave_up_seconds is not None:
            patience_seconds = max(0.0, self._gave_up_seconds + PARTING_SECONDS - time.monotonic())
        connection.execution_options(wait_seconds=patience_seconds)
        try:
            transaction = connection.begin()
        except DBAPIError as error:
            if _is_locked(error.orig) and self._gave_up_seconds is None:
                self._gave_up_seconds = time.monotonic()
            raise
        self._gave_up_seconds = None
        return transaction

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A transaction that sees one state of the ledger and waits for nobody. Raises LedgerUnusable."""
        if self.path is None:
            with self.write() as connection:
                yield connection
        else:
            with explained(self.path), self._engine.connect() as connection:
                connection.execution_options(reads_only=True)
                with connection.begin():
                    yield connection

    def checkpoint(self) -> None:
        """Bring what is in the write-ahead log into the database file, as far as nobody is in the way.

        SQLite does so by itself only after some megabytes: a quiet ledger could stand in its log alone for weeks.
        Raises LedgerUnusable.
        """
        if self.path:
            with explained(self.path), self._engine.connect() as connection:
                # No transaction: a checkpoint within one is refused.
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _still_there(self, path: Path) -> bool:
        try:
            return path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False


def open_store(url: str, *, read_only: bool, must_exist: bool, migrates: bool) -> Store:
    """Open a sound ledger of the newest schema, creating or migrating it where that is allowed.

    Raises ConfigError for a URL that is none, LedgerOlder, LedgerReadOnly, LedgerUnusable for everything else.
    """
    path = path_of(url)
    if path is None:
        engine = _engine(":memory:", StaticPool)
        with explained(None), engine.begin() as connection:
            _build(connection)
        return Store(engine, None, created=True)
    with explained(path):
        created = False
        if not is_there(path):
            if read_only or must_exist:
                raise LedgerUnusable(
                    f"there is no ledger at {path}; `runspan run` or `runspan backfill` creates it, "
                    f"or [ledger] url points to the wrong place"
                )
            created = _create(path)
        if path.is_dir():
            raise LedgerUnusable(f"{path} is a folder: set [ledger] url to a file in it, such as ledger.db")
        if path.stat().st_size == 0:
            raise LedgerUnusable(
                f"the ledger at {path} is an empty file: it was cut off; restore it from a backup, "
                f"or remove it to start anew (runs of the last days will then be sent again)"
            )
        if not read_only and not is_writable(path):
            raise LedgerReadOnly(_unwritable(path, "by this user"))
        if not read_only and path.stat().st_nlink > 1:
            _leave_one_name(path)
        engine = _engine(f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}", QueuePool)
        try:
            _check(engine, path)
            _update(engine, path, read_only=read_only, migrates=migrates)
        except BaseException:
            engine.dispose()
            raise
        return Store(engine, path, created=created)


def path_of(url: str) -> Path | None:
    """The database file that a URL means, None in memory. Raises ConfigError for a URL that is none."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the second for what is no port
        raise ConfigError("[ledger] url is no database URL; write it as sqlite:////path/to/ledger.db") from None
    if parsed.get_backend_name() != "sqlite":
        raise ConfigError(
            f"[ledger] url: there is no ledger on {parsed.get_backend_name()} yet; write sqlite:////path/to/ledger.db"
        )
    if parsed.database in (None, "", ":memory:"):
        return None
    # Who comes by a link must meet the same locks beside it.
    return expanded(parsed.database).resolve()


def is_there(path: Path) -> bool:
    """Whether there is such a file. Raises LedgerUnusable where that cannot be told, as in a folder closed to us."""
    with explained(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_writable(path: Path) -> bool:
    """Whether this user may write the file, and make SQLite's others beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def _engine(database: str, pool: type[Pool]) -> Engine:
    """An engine on `database`, in SQLite's URI form."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            database, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False
        )
        # On a read-only root there may be no folder for temporary files, and sorting many rows would want one.
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=pool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        # sqlite3 would begin only at the first INSERT or UPDATE, after our SELECTs: two processes could read the same
        # row and both go on to write. With IMMEDIATE the second one waits before it reads.
        options = connection.get_execution_options()
        if "wait_seconds" in options:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(options['wait_seconds'] * 1000)}").close()
        connection.exec_driver_sql("BEGIN" if options.get("reads_only", False) else "BEGIN IMMEDIATE")

    return engine


def _create(path: Path) -> bool:
    """Make a new ledger aside and put it in place whole; False where another process was faster.

    So an empty file at `path` is always a damaged ledger, never one that is being made.
    """
    wal = path.with_name(path.name + "-wal")
    if is_there(wal) and not is_there(path):
        raise LedgerUnusable(
            f"there is no ledger at {path}, but its write-ahead log {wal.name} is there; "
            f"restore both from a backup, or remove the log too to start anew"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{_draft_of(path)}{uuid.uuid4().hex}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        engine = _engine(f"{draft.as_uri()}?mode=rw", NullPool)
        with engine.begin() as connection:
            _build(connection)
        with closing(sqlite3.connect(draft)) as connection:
            # The mode is kept in the file. Set now, no two processes can be in each other's way over it.
            _tune(connection)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _draft_of(path: Path) -> str:
    return f".{path.name}."


def _leave_one_name(path: Path) -> None:
    """Take away drafts of the ledger. Raises LedgerUnusable where it has yet another name, a hard link.

    SQLite's locks and log go by the name: who comes by another one is not seen, and both together damage the file.
    """
    for draft in path.parent.iterdir():
        with suppress(FileNotFoundError):  # whoever makes it takes it away too
            if draft.name.startswith(_draft_of(path)) and draft.samefile(path):
                draft.unlink()
    if path.stat().st_nlink > 1:
        raise LedgerUnusable(
            f"the ledger at {path} has another name too (a hard link), and would be damaged by being used under both; "
            f"remove the link (find it with `find -samefile`)"
        )


def _build(connection: Connection) -> None:
    from runspan.ledger.migrations import migrate

    connection.execute(text(f"PRAGMA application_id = {schema.APPLICATION_ID}"))
    migrate(connection)


def _check(engine: Engine, path: Path) -> None:
    """Read the whole file once: damage is found now, and not when a damaged row is needed.

    SQLite keeps no checksums, so this finds damage to the structure; a bit flipped within a value looks like a value.
    """
    with engine.connect() as connection:
        connection.execution_options(reads_only=True)
        found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        if found != "ok":
            raise LedgerUnusable(_damaged(path, found.splitlines()[-1]))
        if connection.execute(text("PRAGMA application_id")).scalar_one() != schema.APPLICATION_ID:
            raise LedgerUnusable(f"{path} is a database of another program; point [ledger] url elsewhere")
        # A run in no state that we know would never be worked on. Read off the rows, since indexes are not compared.
        states = ", ".join(f"'{state.value}'" for state in RowState)
        unknown = connection.execute(text(f"SELECT count(*) FROM runs NOT INDEXED WHERE state NOT IN ({states})"))  # noqa: S608
        if number := unknown.scalar_one():
            raise LedgerUnusable(_damaged(path, f"{number} runs are in a state that there is not"))


def _update(engine: Engine, path: Path, *, read_only: bool, migrates: bool) -> None:
    """Set up the connections, and migrate if this ledger is older than we are and nobody else has it open."""
    version_of = text("SELECT version_num FROM alembic_version")
    with engine.connect() as connection:
        connection.execution_options(reads_only=True)
        version = connection.execute(version_of).scalar_one()
    if version > schema.REVISION:
        raise LedgerUnusable(
            f"the ledger at {path} was written by a newer runspan (schema {version}, this one knows "
            f"{schema.REVISION}); install that release again, or restore the ledger from before it"
        )
    older = f"the ledger at {path} is of an older runspan (schema {version})"
    if version != schema.REVISION and (read_only or not migrates):
        raise LedgerOlder(f"{older}; `runspan run` or `runspan backfill` brings it up to date")
    if read_only:
        return
    engine.dispose()
    event.listen(engine, "connect", _tune)
    with engine.begin() as connection:
        # Writes nothing, yet fails where nothing can be written: better now than after the first fetch.
        connection.execute(text("UPDATE meta SET value = value WHERE key = ''"))
        if connection.execute(version_of).scalar_one() != schema.REVISION:
            from runspan.ledger.migrations import migrate

            # Of the older release, or it would be no older ledger: its tables must not change under it.
            if owners.anyone_lives(owners.folder_beside(path)):
                raise LedgerOlder(f"{older}, and a process of that release works on it: stop that one first")
            migrate(connection)


def _tune(connection: sqlite3.Connection, record: object = None) -> None:
    # WAL: readers wait for nobody. NORMAL: a commit is not forced to the disk at once. A process that dies loses
    # nothing by that; after a power failure the ledger may be some commits behind, never damaged or out of order.
    # It then stands as at an earlier moment: pages after that are read again, and runs sent after that are sent
    # again, with the same bytes. No position can be ahead of its rows, since one commit holds both.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def explained(path: Path | None) -> Generator[None]:
    """Turn what databases and file systems raise into LedgerUnusable: what, where, what to do."""
    where = path or "in memory"
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise LedgerUnusable(_words(where, error.orig if isinstance(error, DBAPIError) else error)) from error
    except (SQLAlchemyError, ValueError) as error:
        # No row where there must be one, or a value that reads as nothing we wrote.
        raise LedgerUnusable(_damaged(where, type(error).__name__)) from error
    except OSError as error:
        raise LedgerUnusable(
            f"the ledger at {where} cannot be reached ({error.strerror}); check the path and its permissions"
        ) from error


def _damaged(where: object, what: str) -> str:
    return (
        f"the ledger at {where} is damaged ({what}); restore it from a backup, "
        f"or move it away to start anew (runs of the last days will then be sent again)"
    )


def _unwritable(where: object, why: str) -> str:
    return f"the ledger at {where} cannot be written {why}; check its permissions, its folder's and the mount"


def _is_locked(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _words(where: object, error: BaseException | None) -> str:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    what = str(error)
    if name == "SQLITE_NOTADB":
        return f"{where} is not a ledger ({what}); restore it from a backup, or point [ledger] url elsewhere"
    if name.startswith("SQLITE_CORRUPT") or what.startswith("no such "):
        return _damaged(where, what)
    if name.startswith("SQLITE_READONLY"):
        return _unwritable(where, f"({what})")
    if _is_locked(error):
        return (
            f"the ledger at {where} was locked for over {BUSY_TIMEOUT_SECONDS} s ({what}); "
            f"find the program that holds it (a backup, a database browser) and let it end"
        )
    if name == "SQLITE_FULL":
        return f"the disk of the ledger at {where} is full; make room and start again: nothing is lost"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"the ledger at {where} cannot be opened ({what}); check the path and its permissions"
    return f"the ledger at {where} failed ({name}: {what}); check its disk"
