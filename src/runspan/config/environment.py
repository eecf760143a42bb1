"""What the environment says about the configuration: `RUNSPAN_<TABLE>__<KEY>`, and the OTLP exporter's own variables.

The OTLP variables and their meaning: OpenTelemetry specification, "OpenTelemetry Protocol Exporter".
"""

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runspan.config import Config, Table
from runspan.errors import ConfigError
from runspan.secrets import Secret

PREFIX = "RUNSPAN_"


@dataclass(frozen=True, slots=True)
class Variables:
    """Values as nested tables, and by path the variable that gave each."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    names: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])

    def put(self, path: tuple[str, str], value: object, name: str) -> None:
        """Set one key of one table."""
        self.values.setdefault(path[0], {})[path[1]] = value
        self.names[path] = name


def known_variables() -> dict[str, tuple[str, str]]:
    """Every variable of ours, with the table and key it sets: all keys outside [[source]]."""
    return {
        f"{PREFIX}{table}__{key}".upper(): (table, key)
        for table, info in Config.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Table)
        for key in info.annotation.model_fields
    }


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like ours and set nothing: a typing error, or a name that Kubernetes made of a service's."""
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known_variables())


def runspan_variables(environ: Mapping[str, str]) -> Variables:
    """What `RUNSPAN_*` sets; an empty value is as good as none. Tables and arrays are written as JSON."""
    found = Variables()
    for name, path in known_variables().items():
        if text := environ.get(name):
            found.put(path, _json_or_text(text), name)
    return found


def otel_variables(environ: Mapping[str, str]) -> Variables:
    """What `OTEL_EXPORTER_OTLP_*` sets; the variant for traces goes before the general one.

    The headers' values are secrets from here on, since most of them are. Raises ConfigError where they are no headers.
    """
    found = Variables()
    for key, suffix in (
        ("protocol", "PROTOCOL"),
        ("endpoint", "ENDPOINT"),
        ("timeout", "TIMEOUT"),
        ("compression", "COMPRESSION"),
        ("ca_file", "CERTIFICATE"),
        ("client_key", "CLIENT_KEY"),
        ("client_cert", "CLIENT_CERTIFICATE"),
        ("headers", "HEADERS"),
    ):
        for name in (f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"):
            if text := environ.get(name, "").strip():
                value = {"timeout": _milliseconds, "headers": _headers}.get(key, _as_it_stands)(text, name)
                found.put(("destination", key), value, name)
                break
    return found


def _json_or_text(text: str) -> object:
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _as_it_stands(text: str, name: str) -> str:
    return text


def _milliseconds(text: str, name: str) -> str:
    return f"{text}ms"


def _headers(text: str, name: str) -> dict[str, Secret]:
    headers: dict[str, Secret] = {}
    for pair in filter(str.strip, text.split(",")):
        key, _, encoded = pair.partition("=")
        value = urllib.parse.unquote(encoded.strip())
        if not (key.strip() and value and value.isascii() and value.isprintable()):
            # Not quoted: a credential may stand where its name is missing.
            raise ConfigError(
                f"{name}: write name=value, with commas between headers; a value is plain ASCII, with %xx"
            )
        headers[key.strip()] = Secret.known(value, name)
    return headers
