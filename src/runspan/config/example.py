"""config.example.toml, written from the models: every key with its description and its default.

Prose stands behind `# `, keys that are switched off behind a bare `#`, so that removing that one character switches a
key on.
"""

import json
import re
import textwrap
from collections.abc import Container, Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from runspan.config import Config, PlatformInfo, Platforms, SourceConfig

SHOWN_FIRST = "casedev"
"""The platform whose source is switched on, and stands for the keys that all have in common."""

_HEAD = """\
# runspan's configuration. Every key is here. One behind a `#` is switched off and shows its default, or an example
# where it says so. Durations: 500ms, 30s, 5m, 24h, 90d. Rates: 2/s, 90/min. Sizes: 64MB.
#
# A secret never stands here: write env:NAME or file:/path. Every key outside [[source]] can also be set by the
# environment, as RUNSPAN_<TABLE>__<KEY>; that goes before this file, and the flags of a command before both.
"""


def example(platforms: Platforms) -> str:
    """The whole file, for these platforms."""
    blocks = [_HEAD]
    for name, field in Config.model_fields.items():
        if name != "source":
            (table,) = _tables_in(field.annotation)
            blocks.append("\n".join([*_prose(table.__doc__ or ""), f"[{name}]", *_keys(table.model_fields), ""]))
    in_order = sorted(platforms, key=lambda name: name != SHOWN_FIRST)
    blocks.extend("\n".join([*_source(platform, platforms[platform]), ""]) for platform in in_order)
    return "\n".join(blocks)


def _source(platform: str, info: PlatformInfo) -> Iterator[str]:
    origin = info.default_base_url or "https://agents.example.com"
    shown = {
        "name": f"{platform}-prod",
        "platform": platform,
        "base_url": origin,
        "tenant": origin,
        "api_key": f"env:{platform.upper()}_API_KEY",
        "rate": info.default_rate,
    }
    fields = info.config_type.model_fields
    common = {key: field for key, field in fields.items() if key in SourceConfig.model_fields}
    own = {key: field for key, field in fields.items() if key not in common}
    # A key that stands behind a table's head would be one of that table's.
    tables = {key: field for key, field in common.items() if any(_tables_in(field.annotation))}
    if platform == SHOWN_FIRST:
        yield from _prose("One account of a platform. Repeat this table for each.")
        yield "[[source]]"
        keys = {key: field for key, field in common.items() if key not in tables}
        yield from _keys(keys, values=shown, switched_on={"name", "platform", "api_key"})
    else:
        yield from _prose(f"An account of {platform}; the keys that every source has are told above.")
        yield "#[[source]]"
        yield from _keys({key: common[key] for key in shown if key != "tenant"}, values=shown, with_prose=False)
    if own:
        yield from _prose(f"These keys are {platform}'s alone.")
        yield from _keys(own, above="source.")
    if platform == SHOWN_FIRST:
        yield from _keys(tables, above="source.", with_prose=False)


def _keys(
    keys: Mapping[str, FieldInfo],
    *,
    values: Mapping[str, Any] = MappingProxyType({}),
    switched_on: Container[str] = (),
    with_prose: bool = True,
    above: str = "",
) -> Iterator[str]:
    """The lines of a table's keys. `values` go before defaults and examples; tables inside it come last."""
    inner: dict[str, type[BaseModel]] = {}
    for key, field in keys.items():
        if tables := list(_tables_in(field.annotation)):
            inner[key] = tables[0]
            continue
        if with_prose:
            yield from _prose(_description(field))
        value = values[key] if key in values else _value(field)
        yield f"{'' if key in switched_on else '#'}{key} = {_toml(value)}"
    for key, table in inner.items():
        yield from _prose(keys[key].description or "")
        yield f"#[{above}{key}]"
        yield from _keys(table.model_fields, with_prose=with_prose, above=f"{above}{key}.")


def _description(field: FieldInfo) -> str:
    text = field.description or ""
    if field.examples and "Default:" not in text and not field.is_required():
        text += " Default: none."
    return text


def _value(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    default = field.get_default(call_default_factory=True, validated_data={})
    return TypeAdapter(field.rebuild_annotation()).dump_python(default, mode="json")


def _tables_in(kind: Any) -> Iterator[type[BaseModel]]:
    """The tables that a key holds; not those under keys of the writer's choice, which are written in one line."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in () if get_origin(kind) is dict else get_args(kind):
        yield from _tables_in(part)


def _prose(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width=110, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        pairs = ", ".join(f"{_toml_key(key)} = {_toml(one)}" for key, one in inner.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    # Text, numbers, truth values and flat arrays look in TOML as they do in JSON.
    return json.dumps(value, ensure_ascii=False)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
