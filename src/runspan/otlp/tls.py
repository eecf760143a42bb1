"""The PEM files of a destination, which may be replaced while we run: short-lived certificates are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Version: TypeAlias = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The authorities to trust in place of the system's, and our certificate with its key for mutual TLS."""

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    @property
    def version(self) -> Version:
        """Another value once one of the files was replaced; a connection is good for one version."""
        return tuple(_state(file) for file in (self.ca_file, self.client_cert, self.client_key))


NO_FILES = TlsFiles()


def _state(file: Path | None) -> tuple[int, int, int] | None:
    try:
        state = file.stat() if file else None
    except OSError:
        return None
    return (state.st_ino, state.st_size, state.st_mtime_ns) if state else None
