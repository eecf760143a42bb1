import json
import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest
import structlog

from runspan import logs
from runspan.config import LogConfig
from runspan.secrets import Secret

pytestmark = pytest.mark.usefixtures("logs_restored")


def ours() -> structlog.stdlib.BoundLogger:
    return structlog.get_logger("runspan.test")


def test_an_event_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig(format="json"))
    ours().info("polled", action="poll", source="case-prod", runs=3)
    out, err = capsys.readouterr()
    event = json.loads(err)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "polled", "action": "poll", "level": "info", "source": "case-prod", "runs": 3}
    assert out == ""


def test_away_from_a_terminal_auto_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig())
    ours().info("polled", action="poll")
    assert json.loads(capsys.readouterr().err)["action"] == "poll"


def test_a_console_line_is_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig(format="console"))
    ours().warning("slow", action="poll")
    line = capsys.readouterr().err
    assert "[warning" in line
    assert "action=poll" in line


def test_a_console_line_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig(format="console"))
    ours().warning("run \x1b[2J\nis odd", action="poll", run="a\x07b")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not {"\x1b", "\x07"} & set(err)
    assert "is odd" in err


def test_libraries_speak_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig(format="json"))
    logging.getLogger("asyncio").info("started")
    logging.getLogger("asyncio").warning("missed by %s\nfuture: <Task exception=ValueError('prompt')>", "3 s")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application")
    logging.getLogger("apscheduler.scheduler").warning("skipped, as it is at every tick under a small quota")
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["action"], event["logger"]) == ("missed by 3 s", "library", "asyncio")


def test_what_asyncio_repeats_is_said_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where descriptors have run out it complains for each connection that waits."""
    seconds = iter((1000.0, 1000.1, 1059.0, 1061.0, 1062.0))
    monkeypatch.setattr("runspan.logs.time.monotonic", lambda: next(seconds))
    logs.set_up(LogConfig(format="json"))
    for _ in range(5):
        logging.getLogger("asyncio").error("socket.accept() out of system resource")
    assert len(capsys.readouterr().err.splitlines()) == 2


class TestAReaderThatStandsStill:
    @pytest.fixture
    def pipe(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
        """Standard error is a pipe; this is its other end."""
        reads, writes = os.pipe()
        with open(writes, "w", encoding="utf-8") as stream, open(reads, "rb"):
            monkeypatch.setattr("sys.stderr", stream)
            logs.set_up(LogConfig(format="json"))
            yield reads
            logs.flush()

    def test_nobody_waits_for_it_and_what_is_lost_is_counted(self, pipe: int) -> None:
        for number in range(logs.MOST_WAITING * 2):
            ours().info("x" * 200, action="poll", number=number)
        written = bytearray()

        def read() -> None:
            while part := os.read(pipe, 1 << 20):
                written.extend(part)

        threading.Thread(target=read, daemon=True).start()
        logs.flush(30)
        ours().info("goes on", action="poll", number=-1)
        logs.flush(30)
        deadline = time.monotonic() + 30
        while b'"number": -1' not in written or not written.endswith(b"\n"):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        events = [json.loads(line) for line in written.splitlines()]
        numbers = [event["number"] for event in events if event["action"] == "poll"]
        assert numbers[:-1] == sorted(set(numbers[:-1]))
        lost = sum(event["lines"] for event in events if event["action"] == "logs_lost")
        assert len(numbers) - 1 + lost == logs.MOST_WAITING * 2
        assert lost > 0

    def test_every_line_is_written_whole_and_in_order(self, pipe: int) -> None:
        for number in range(100):
            ours().info("é\n" * 50, action="poll", number=number)
        logs.flush()
        lines = os.read(pipe, 1 << 20).splitlines()
        assert [json.loads(line)["number"] for line in lines] == list(range(100))


def test_below_the_level_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig(level="error"))
    ours().warning("slow", action="poll")
    logging.getLogger("uvicorn").warning("slow")
    assert capsys.readouterr().err == ""


def test_a_second_set_up_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig(format="console"))
    logs.set_up(LogConfig(format="json"))
    ours().info("once", action="poll")
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_is_logged(format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "swordfish-17")
    key = Secret("env:RUNSPAN_TEST_KEY").reveal()
    logs.set_up(LogConfig.model_validate({"format": format}))
    ours().error(f"refused {key}", action="poll", headers={"x-api-key": key})
    logging.getLogger("httpx").error("GET /?key=%s", key)
    try:
        raise ValueError(key)
    except ValueError:
        ours().exception("failed", action="poll")
    written = capsys.readouterr().err
    assert written.count("[secret]") == 3
    assert key not in written


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_shows_no_values(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogConfig.model_validate({"format": format}))
    prompt = "".join(["what the ", "user said"])
    try:
        raise ValueError(prompt)
    except ValueError as error:
        ours().exception("failed", action="poll")
        logging.getLogger("asyncio").error("failed", exc_info=error)
    written = capsys.readouterr().err
    assert written.count("ValueError at test_a_traceback_shows_no_values:") == 2
    assert prompt not in written
