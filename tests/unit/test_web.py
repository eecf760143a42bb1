"""What the daemon's window answers when what it would show cannot be had."""

from typing import Any, cast

from starlette.testclient import TestClient
from structlog.testing import capture_logs

from runspan.daemon import web
from runspan.daemon.web import app
from runspan.ledger import Count, RowState


class Broken:
    def expose(self, accept: str) -> bytes:
        raise ValueError("prompt")


def test_a_figure_that_cannot_be_had_is_said_without_its_words() -> None:
    window = TestClient(app(cast("Any", None), cast("Any", Broken()), only_local=False), raise_server_exceptions=True)
    with capture_logs() as logs:
        answer = window.get("/metrics")
    assert (answer.status_code, answer.text) == (500, "this failed; the log says why\n")
    [line] = logs
    assert (line["action"], line["log_level"], line["path"]) == ("page_failed", "error", "/metrics")
    assert line["event"].startswith("ValueError at expose:")
    assert "prompt" not in line["event"]
    assert window.get("/healthz").text == "ok\n"


def test_a_reason_for_each_run_makes_no_page_without_end() -> None:
    counts = [Count("a", RowState.QUARANTINED, f"run {number} is bad", 1) for number in range(1000)]
    counts += [Count("a", RowState.EXPORTED, None, 7), Count("a", RowState.QUARANTINED, "HTML", 12)]
    told = web._counts(counts)["a"]
    assert told.startswith("7 exported, 1012 quarantined (12 HTML; 1 run 0 is bad; ")
    assert told.endswith("; ...)")
    assert len(told) < 300
