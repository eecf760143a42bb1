import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from runspan.config import Config, bind, loader
from runspan.config.example import example
from runspan.sources import platforms

FILE = Path(__file__).parents[2] / "config.example.toml"


def everything_switched_on() -> str:
    text = re.sub(r"^#(?! |$)", "", FILE.read_text(), flags=re.MULTILINE)
    # Whose default path asks for an agent.
    return text.replace('order = "desc"', 'order = "desc"\nagents = ["a1"]').replace("\nagents = []", "")


def keys_of(kind: Any, above: str = "") -> Iterator[str]:
    """Every key of a model, a table's as `table.key`."""
    for key, field in kind.model_fields.items():
        # A table under keys of the writer's choice is written in one line.
        inner = () if get_origin(field.annotation) is dict else get_args(field.annotation)
        tables: list[Any] = [one for one in (field.annotation, *inner) if is_table(one)]
        for table in tables:
            yield from keys_of(table, f"{above}{key}.")
        if not tables:
            yield f"{above}{key}"


def is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_the_file_is_what_init_writes() -> None:
    assert FILE.read_text() == example(platforms()), "write it anew: runspan init --force config.example.toml"


def test_the_file_loads_as_it_stands() -> None:
    config = loader.load(FILE, platforms=platforms(), environ={})
    assert [source.platform for source in config.source] == ["casedev"]
    defaults = bind(platforms()).model_validate(
        {"source": [{"name": "casedev-prod", "platform": "casedev", "api_key": "env:CASEDEV_API_KEY"}]}
    )
    assert config.model_dump() == defaults.model_dump()


def test_every_key_can_be_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(everything_switched_on())
    config = loader.load(path, platforms=platforms(), environ={})
    assert {source.platform for source in config.source} == set(platforms())


def test_every_key_is_in_the_file() -> None:
    document = tomllib.loads(everything_switched_on())

    def written(node: dict[str, Any], above: str = "") -> Iterator[str]:
        for key, value in node.items():
            yield f"{above}{key}"
            if isinstance(value, dict):
                yield from written(value, f"{above}{key}.")

    sources = {source["platform"]: set(written(source)) for source in document.pop("source")}
    outside = {key for key in keys_of(Config) if not key.startswith("source.")}
    assert outside <= set(written(document))
    common = sources["casedev"]
    for platform, info in platforms().items():
        assert set(keys_of(info.config_type)) - common - sources[platform] <= {"agents", "list.agents"}


@pytest.mark.parametrize("kind", [Config, *(info.config_type for info in platforms().values())])
def test_every_key_is_described(kind: type[BaseModel]) -> None:
    for key, field in kind.model_fields.items():
        assert field.description or is_table(field.annotation) or key == "source", key
