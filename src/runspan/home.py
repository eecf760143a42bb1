"""Paths as people write them."""

from pathlib import Path

from runspan.errors import ConfigError


def expanded(path: str) -> Path:
    """The absolute path, a leading ~ being the user's home.

    Raises ConfigError where the user has none, as the one of a container may.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{path}: this user has no home directory; write the whole path, from / on") from None
