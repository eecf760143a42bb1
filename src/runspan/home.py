"""Paths as people write them."""

from pathlib import Path

from runspan.errors import ConfigError


def expanded(path: str) -> Path:
    """The absolute path, a leading ~ being the user's home.

    Raises ConfigError where the user has none, as the one of a container may, and for what can be no path.
    """
    if "\0" in path:
        raise ConfigError("a path holds a NUL character, which no file's name has: write the path anew")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{path}: this user has no home directory; write the whole path, from / on") from None
