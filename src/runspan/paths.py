"""Paths as people write them."""

from pathlib import Path
from typing import TypeVar

from runspan.errors import ConfigError

PathOrText = TypeVar("PathOrText", Path, str)


def possible(path: PathOrText) -> PathOrText:
    """The path. Raises ValueError for what can be none."""
    if "\0" in str(path):
        raise ValueError("a path has no NUL character")
    return path


def expanded(path: str) -> Path:
    """The absolute path, a leading ~ being the user's home.

    Raises ConfigError where the user has none, as the one of a container may.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{path}: this user has no home directory; write the whole path, from / on") from None
