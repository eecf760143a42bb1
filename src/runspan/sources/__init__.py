"""The platforms, one module each, and the registry that names them."""

import importlib
import importlib.metadata
from functools import cache
from typing import TYPE_CHECKING

from runspan.errors import ConfigError

if TYPE_CHECKING:
    from runspan.config import PlatformInfo
    from runspan.sources.base import Source

ENTRY_POINT_GROUP = "runspan.sources"
"""Under which a package registers a platform of its own: its name, and a subclass of `Source`."""

_BUILT_IN = {
    "flowyble": "runspan.sources.flowyble:Flowyble",
    "runtype": "runspan.sources.runtype:Runtype",
    "elizaos": "runspan.sources.elizaos:ElizaOS",
    "casedev": "runspan.sources.casedev:CaseDev",
}


@cache
def registry() -> "dict[str, type[Source]]":
    """Every platform by name, ours first; a package cannot take the name of one of ours.

    Raises ConfigError for a package whose platform cannot be loaded.
    """
    sources: dict[str, type[Source]] = {}
    for platform, target in _BUILT_IN.items():
        module, _, name = target.partition(":")
        sources[platform] = getattr(importlib.import_module(module), name)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry.name not in sources:
            sources[entry.name] = _load(entry)
    return sources


def platforms() -> "dict[str, PlatformInfo]":
    """What each platform brings to the configuration. Raises ConfigError as `registry` does."""
    from runspan.config import PlatformInfo

    return {
        name: PlatformInfo(source.config_type, source.default_base_url, source.default_rate)
        for name, source in registry().items()
    }


def _load(entry: importlib.metadata.EntryPoint) -> "type[Source]":
    from runspan.sources.base import Source

    try:
        source = entry.load()
    except Exception as error:  # a stranger's module may raise anything
        raise ConfigError(f"platform {entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}") from error
    if not (isinstance(source, type) and issubclass(source, Source)):
        raise ConfigError(f"platform {entry.name} ({entry.value}) is not a subclass of runspan.sources.base.Source")
    return source
