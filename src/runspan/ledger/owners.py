"""Which processes are alive: each holds a lock on a file of its own beside the database.

The operating system drops the lock when the process dies, however it dies, so the leases of a dead process can be told
from those of a slow one at once. Files are made and removed inside ledger transactions only, hence one at a time.
"""

import os
import socket
import uuid
from pathlib import Path

from filelock import FileLock, Timeout


def folder_beside(path: Path) -> Path:
    """Where the lock files of the ledger at `path` are."""
    return path.with_name(path.name + ".owners")


def anyone_lives(folder: Path) -> bool:
    """Whether any process has that ledger open for writing. To be asked within a transaction, before `arrive`."""
    return folder.is_dir() and not all(_is_free(path) for path in folder.iterdir())


def new_owner() -> str:
    """A name for this process: for people who and where, and a part that no other process ever has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"


class Owners:
    """The folder of lock files of one ledger."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._lock = _lock(self._path(owner))

    def arrive(self) -> None:
        """Take our own lock, for as long as this process lives, and clear away what dead processes left."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock.acquire(timeout=1)
        for path in self._folder.iterdir():
            if self._is_dead(path):
                path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Drop our lock, and its file."""
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def dead(self, owners: list[str]) -> list[str]:
        """Those of these processes that do not live any more."""
        return [owner for owner in owners if self._is_dead(self._path(owner))]

    def _path(self, owner: str) -> Path:
        return self._folder / owner.rpartition(":")[2]

    def _is_dead(self, path: Path) -> bool:
        if path == Path(self._lock.lock_file):
            return False
        return not path.exists() or _is_free(path)


def _is_free(path: Path) -> bool:
    try:
        with _lock(path):
            return True
    except Timeout:
        return False


def _lock(path: Path) -> FileLock:
    return FileLock(path, timeout=0, mode=0o600, thread_local=False)


def daemon_lock(path: Path) -> FileLock:
    """The lock that only one daemon of a ledger can hold."""
    return _lock(path)
