"""The configuration: one TOML file, typed.

Every table is a frozen model; the docstring under a key is its description in the JSON schema and in
config.example.toml. A platform may bring keys of its own, which `Platforms` tells of: this package itself knows no
platform. `runspan.config.loader` reads the file, the environment and the flags into these models.
"""

from runspan.config.destination import DEFAULT_ENDPOINTS, DestinationConfig
from runspan.config.source import PlatformInfo, Platforms, SourceConfig
from runspan.config.table import Table, refusal, refuse
from runspan.config.tables import (
    Config,
    LedgerConfig,
    LimitsConfig,
    LogConfig,
    ResourceConfig,
    WebConfig,
    bind,
)
from runspan.config.trace import ContentConfig, PricesConfig
from runspan.config.urls import is_loopback

__all__ = [
    "DEFAULT_ENDPOINTS",
    "Config",
    "ContentConfig",
    "DestinationConfig",
    "LedgerConfig",
    "LimitsConfig",
    "LogConfig",
    "PlatformInfo",
    "Platforms",
    "PricesConfig",
    "ResourceConfig",
    "SourceConfig",
    "Table",
    "WebConfig",
    "bind",
    "is_loopback",
    "refusal",
    "refuse",
]
