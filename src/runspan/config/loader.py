"""From a TOML file, the environment and flags to a `Config`, or to errors that name file, line, key and remedy.

Each layer goes over the one before it: OTEL_EXPORTER_OTLP_*, the file, RUNSPAN_*, flags.
"""

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from runspan import files
from runspan.config import DEFAULT_ENDPOINTS, Config, Platforms, bind
from runspan.config.environment import otel_variables, runspan_variables
from runspan.errors import ConfigError
from runspan.quantities import Rate, Start, format_duration
from runspan.terminal import plain

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: `("source", 0, "settle")`."""

MAX_BYTES = 16 * 1024 * 1024
"""Of the file; it may be a pipe, as a shell makes of `<(...)`."""
DEEPEST_KEY = 16
"""Whatever lies deeper is none of ours; its line is that of what holds it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place; `place` tells a reader where a path's value stands there."""

    values: Mapping[str, Any]
    place: Callable[[KeyPath], str]


def load(
    path: Path | None,
    *,
    platforms: Platforms,
    environ: Mapping[str, str],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """The configuration. `overrides` are tables that flags of the command line set.

    Raises ConfigError, whose text has one line for each thing that is wrong.
    """
    file = _read(path) if path else Layer({}, lambda _: "configuration")
    ours = runspan_variables(environ)
    layers = [
        file,
        Layer(ours.values, lambda path: ours.names.get(_names(path), "environment")),
        Layer(overrides or {}, lambda _: "command line"),
    ]
    values = _merge(layers)
    # A file or an SDK exporter is no OTLP receiver: the variables speak of something else.
    if _children(values.get("destination")).get("protocol", "http/protobuf") in DEFAULT_ENDPOINTS:
        otel = otel_variables(environ)
        layers.insert(0, Layer(otel.values, lambda path: otel.names.get(_names(path), "environment")))
        values = _merge(layers)
    model = bind(platforms)
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        problems = {_path(error, values): error for error in reversed(invalid.errors(include_url=False))}
    # Outside the handler: the validation error quotes what was given, secrets too, and a traceback would show it.
    raise ConfigError(
        "\n".join(
            # Keys and names are quoted as they were written.
            plain(f"{_place(path, layers, file)}: {_describe(path, error, model, values)}")
            for path, error in reversed(problems.items())
        )
    )


def schema(platforms: Platforms) -> dict[str, Any]:
    """The JSON schema (2020-12) of the file, the platforms' own keys included."""
    document = bind(platforms).model_json_schema(schema_generator=_SchemaGenerator)
    return {"$schema": _SchemaGenerator.schema_dialect, **document, "title": "runspan configuration"}


class _SchemaGenerator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return str(dft) if isinstance(dft, Rate | Start) else super().encode_default(dft)


def key_lines(text: str) -> dict[KeyPath, int]:
    """On which line (from 1) each table and key of a valid TOML text stands.

    The standard parser tells no lines. But any statement is a document by itself.
    """
    lines: dict[KeyPath, int] = {}
    last_index: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for first, statement in _statements(text):
        try:
            parsed = tomllib.loads(statement)
        except RecursionError:
            continue  # the whole text was read with a few frames more to spare
        if parsed and statement.lstrip().startswith("["):
            table = _table_path(parsed, last_index)
            lines[table] = first
        else:
            lines.update((table + path, first) for path in _paths(parsed))
    return lines


_MARKS = re.compile(
    r"""
      "{3} (?: \\. | [^\\] )*? "{3,5}  # strings and comments, in which a bracket opens nothing
    | '{3} .*? '{3,5}
    | " (?: \\. | [^"\\] )* "
    | ' [^']* '
    | \# [^\n]*
    | (?P<opening> [\[{] )
    | (?P<closing> [\]}] )
    | (?P<end> \n )
    """,
    re.DOTALL | re.VERBOSE,
)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement of a valid TOML text, with the line (from 1) on which it begins: it ends where no bracket is open.

    One pass, since a list may have thousands of lines.
    """
    begin, first, depth = 0, 1, 0
    for mark in _MARKS.finditer(text + "\n"):
        depth += (mark.lastgroup == "opening") - (mark.lastgroup == "closing")
        if mark.lastgroup == "end" and depth == 0:
            statement = text[begin : mark.end()]
            yield first, statement
            begin, first = mark.end(), first + statement.count("\n")


def _table_path(header: Any, last_index: dict[KeyPath, int]) -> KeyPath:
    """The path that a parsed `[a.b]` or `[[a]]` opens, given the last index of each array of tables so far."""
    path: KeyPath = ()
    while children := _children(header):
        ((part, header),) = children.items()
        if isinstance(part, int):
            part = last_index[path] = last_index.get(path, -1) + 1
        path += (part,)
        if path in last_index and not isinstance(header, list):
            path += (last_index[path],)
    return path


def _children(node: Any) -> dict[str | int, Any]:
    """What a table holds by key, or an array by index; nothing for any other value."""
    if isinstance(node, Mapping):
        return dict(node)  # pyright: ignore[reportUnknownArgumentType]
    return dict(enumerate(node)) if isinstance(node, list) else {}  # pyright: ignore[reportUnknownArgumentType]


def _paths(node: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    for part, child in _children(node).items():
        yield (*above, part)
        if len(above) < DEEPEST_KEY:
            yield from _paths(child, (*above, part))


def _read(path: Path) -> Layer:
    try:
        # Editors on Windows put a mark before UTF-8, which TOML does not know.
        text = files.read(path, MAX_BYTES).decode("utf-8-sig")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: `runspan init` writes one") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|(end of document))\)", str(error), re.DOTALL)
        where = f" line {found[2]}, column {found[3]}" if found and found[2] else ""
        raise ConfigError(f"{path}{where}: not TOML: {found[1] if found else error}") from None
    except ValueError:
        raise ConfigError(f"{path} holds a number of thousands of digits: write one that can be meant") from None
    except RecursionError:
        raise ConfigError(f"{path} holds arrays or tables too deep within each other: write them flat") from None

    known_lines = functools.cache(lambda: key_lines(text))

    def place(key_path: KeyPath) -> str:
        lines = known_lines()
        while key_path and key_path not in lines:
            key_path = key_path[:-1]
        return f"{path} line {lines[key_path]}" if key_path else str(path)

    return Layer(values, place)


def _merge(layers: Sequence[Layer]) -> dict[str, Any]:
    def over(low: Any, high: Any) -> Any:
        if isinstance(low, Mapping) and isinstance(high, Mapping):
            both: dict[str, Any] = {**low}
            for key, value in high.items():  # pyright: ignore[reportUnknownVariableType]
                both[key] = over(both[key], value) if key in both else value
            return both
        return high  # pyright: ignore[reportUnknownVariableType]

    values: Any = {}
    for layer in layers:
        values = over(values, layer.values)
    return values


def _path(error: ErrorDetails, values: object) -> KeyPath:
    """The error's place in the values: pydantic's own path without the members of unions that it went through."""
    may_be_absent = error["type"] in ("missing", "refused")
    path: list[str | int] = []
    node: Any = values
    for part in error["loc"]:
        children = _children(node)
        if part in children or (may_be_absent and part != children.get("platform")):
            path.append(part)
            node = children.get(part)
    if error["type"].startswith("union_tag"):
        path.append("platform")
    return tuple(path)


def _place(path: KeyPath, layers: Sequence[Layer], file: Layer) -> str:
    """Where a reader has to look: at what was given last, else at the table that lacks it, in the file."""
    given = next((layer for layer in reversed(layers) if _holds(layer.values, path)), file)
    return given.place(path)


def _describe(path: KeyPath, error: ErrorDetails, model: type[Config], values: Mapping[str, Any]) -> str:
    table, key = _table_and_key(path, values)
    inside = f" in {table}" if table else ""
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key `{key}`{inside}; {_remedy(path[-1], _keys_at(model, error['loc'][:-1]))}"
        case "missing" | "union_tag_not_found":
            return f"`{key}` is missing{inside}"
        case "union_tag_invalid":
            known = [name.strip("'") for name in str(context["expected_tags"]).split(", ")]
            return f"unknown platform `{context['tag']}`{inside}; {_remedy(context['tag'], known)}"
        case "literal_error":
            text = f"write {str(context['expected']).replace(chr(39), '')}"
        case "value_error":
            text = str(context["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            text = "write a table"
        case "tuple_type":
            text = "write an array"
        case _:
            text = error["msg"][:1].lower() + error["msg"][1:]
    return f"`{key}`{inside}: {text}"


def _remedy(unknown: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(unknown).lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"


def _holds(values: object, path: KeyPath) -> bool:
    node: Any = values
    for part in path:
        children = _children(node)
        if part not in children:
            return False
        node = children[part]
    return True


def _names(path: KeyPath) -> tuple[str, ...]:
    return tuple(str(part) for part in path[:2])


def _table_and_key(path: KeyPath, values: Mapping[str, Any]) -> tuple[str, str]:
    match path:
        case ("source", int(index), _, *_):
            name = values["source"][index].get("name", f"number {index + 1}")
            return f"[[source]] {name}", ".".join(map(str, path[2:]))
        case (table, _, *_):
            return f"[{table}]", ".".join(map(str, path[1:]))
        case _:
            return "", ".".join(map(str, path))


def _keys_at(model: type[BaseModel], location: KeyPath) -> list[str]:
    """The keys of the table at a pydantic location, which names the platform behind each source's index."""
    models = [model]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        inner = [model for kind in fields for model in _models_in(kind)]
        # What is no field is a platform's name, or a key that the file's writer chose.
        models = inner or [one for one in models if one.__name__ == part] or models
    return [key for one in models for key in one.model_fields]


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _models_in(inner)
