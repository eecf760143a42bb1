"""What the daemon's window answers when what it would show cannot be had."""

from typing import Any, cast

from starlette.testclient import TestClient
from structlog.testing import capture_logs

from runspan.daemon.web import app


class Broken:
    def expose(self, accept: str) -> bytes:
        raise ValueError("prompt")


def test_a_figure_that_cannot_be_had_is_said_without_its_words() -> None:
    window = TestClient(app(cast("Any", None), cast("Any", Broken())), raise_server_exceptions=True)
    with capture_logs() as logs:
        answer = window.get("/metrics")
    assert (answer.status_code, answer.text) == (500, "this failed; the log says why\n")
    [line] = logs
    assert (line["action"], line["log_level"], line["path"]) == ("page_failed", "error", "/metrics")
    assert line["event"].startswith("ValueError at expose:")
    assert "prompt" not in line["event"]
    assert window.get("/healthz").text == "ok\n"
