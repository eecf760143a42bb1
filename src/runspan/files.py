"""Files that people name, read whole; but a device or a pipe may have no end, and a pipe nobody may write to."""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO


def read(path: Path, most_bytes: int) -> bytes:
    """All of a file, a pipe or a device. Raises OSError, also for what has more than `most_bytes`."""
    with path.open("rb") as stream:
        return _whole(stream, most_bytes)


def read_input(path: Path, most_bytes: int) -> bytes:
    """As `read`, and all of standard input where the path is `-`."""
    return _whole(sys.stdin.buffer, most_bytes) if str(path) == "-" else read(path, most_bytes)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """All of a regular file, for which nobody has to be waited. Raises OSError as `read` does, and for all others."""
    with open(path, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file: put what it holds into one")
        return _whole(stream, most_bytes)


def _without_waiting(path: str, flags: int) -> int:
    # Otherwise a pipe would be waited for before it can be told from a file.
    return os.open(path, flags | os.O_NONBLOCK)


def _whole(stream: BinaryIO, most_bytes: int) -> bytes:
    content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes: is this the right file?")
    return content
