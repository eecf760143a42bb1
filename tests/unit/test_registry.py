import importlib.metadata

import pytest

from runspan import sources
from runspan.errors import ConfigError
from runspan.sources.base import Source
from runspan.sources.casedev import CaseDev


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch):
    """Give the registry these entry points instead of the installed ones."""

    def packaged(**targets: str) -> None:
        entries = [
            importlib.metadata.EntryPoint(name, target, sources.ENTRY_POINT_GROUP) for name, target in targets.items()
        ]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)

    sources.registry.cache_clear()
    yield packaged
    sources.registry.cache_clear()


def test_the_four_platforms_are_built_in() -> None:
    registry = sources.registry()
    assert list(registry)[:4] == ["flowyble", "runtype", "elizaos", "casedev"]
    for name, source in registry.items():
        assert issubclass(source, Source)
        assert source.platform == name


def test_platforms_bring_their_keys_and_defaults() -> None:
    assert {name: info.default_rate for name, info in sources.platforms().items()} == {
        "flowyble": "90/min", "runtype": "60/min", "elizaos": "60/min", "casedev": "30/min",
    }  # fmt: skip


def test_a_package_registers_a_platform(packaged) -> None:
    packaged(acme="runspan.sources.runtype:Runtype")
    assert sources.registry()["acme"].__name__ == "Runtype"


def test_a_package_cannot_take_the_name_of_ours(packaged) -> None:
    packaged(casedev="runspan.sources.runtype:Runtype")
    assert sources.registry()["casedev"] is CaseDev


@pytest.mark.parametrize("target", ["no.such.module:X", "runspan.model:Nothing", "runspan.model:Run"])
def test_what_is_no_platform_is_named(packaged, target: str) -> None:
    packaged(acme=target)
    with pytest.raises(ConfigError, match="platform acme"):
        sources.registry()
