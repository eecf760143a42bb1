"""Real servers for the live tests, each started once.

RUNSPAN_LIVE says what happens where one is missing: unset, the tests skip; `required`, it is built or
installed, and whatever is skipped all the same fails; `off` skips them all.
"""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.live import elizaos as elizaos_server
from tests.live import jaeger as jaeger_server
from tests.live import phoenix as phoenix_server
from tests.live.elizaos import Elizaos, Run
from tests.live.jaeger import Jaeger
from tests.live.phoenix import Phoenix
from tests.live.process import Unavailable

MODE = os.environ.get("RUNSPAN_LIVE", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("live")
            # One test process runs them all, so that each server is started once.
            item.add_marker(pytest.mark.xdist_group("live"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if MODE == "off":
        pytest.skip("RUNSPAN_LIVE=off")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if MODE == "required" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"RUNSPAN_LIVE=required. {call.excinfo.value}" if call.excinfo else None
    return report


def _obtain(find: Callable[[], Path | None], get: Callable[[], Path], missing: str) -> Path:
    if MODE != "required":
        return find() or pytest.skip(f"{missing} (`make live` gets it)")
    try:
        return get()
    except Unavailable as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger v2 with empty in-memory storage."""
    binary = _obtain(jaeger_server.find, jaeger_server.find_or_build, "no Jaeger on PATH or in the cache folder")
    with jaeger_server.running(binary, tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """A Phoenix with an empty database."""
    folder = _obtain(phoenix_server.find, phoenix_server.find_or_install, "no Phoenix in the cache folder")
    with phoenix_server.running(folder, tmp_path_factory.mktemp("phoenix")) as server:
        yield server


@pytest.fixture(scope="session")
def elizaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elizaos]:
    """An elizaOS server with one agent and no run yet."""
    folder = _obtain(elizaos_server.find, elizaos_server.find_or_install, "no elizaOS in the cache folder")
    with elizaos_server.running(folder, tmp_path_factory.mktemp("elizaos")) as server:
        yield server


@pytest.fixture(scope="session")
def elizaos_runs(elizaos: Elizaos) -> dict[str, Run]:
    """One finished run per scenario, made one after the other, by the scenario's name.

    `fail` ended with an error; `self` was the agent's own message, which elizaOS ignores.
    """
    runs = {name: elizaos.run(name) for name in ("simple", "lookup", "broken", "ignore", "fail")}
    return runs | {"self": elizaos.run("simple", as_agent=True)}
