"""`runspan demo`, as the README has it."""

import json
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.acceptance.program import DEADLINE_SECONDS, RUNSPAN, Program, Started, wait_until

PLATFORMS = ("flowyble", "runtype", "elizaos", "casedev")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A folder and an environment; the demo brings its own configuration."""
    return Program(tmp_path, destination="http://127.0.0.1:1", sources=[], keys={})


def traces_in(file: Path) -> dict[str, list[dict[str, object]]]:
    """The spans of each trace in a file of OTLP JSON lines."""
    spans: dict[str, list[dict[str, object]]] = {}
    for line in file.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    spans.setdefault(span["traceId"], []).append(span)
    return spans


def test_once_runs_it_through_and_draws_one_run_of_each_platform(program: Program, tmp_path: Path) -> None:
    ended = subprocess.run(
        [RUNSPAN, "demo", "--once"],
        cwd=tmp_path,
        env=program.environ,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    blocks = re.split(rf"^({'|'.join(PLATFORMS)})$", ended.stdout, flags=re.MULTILINE)
    drawn = dict(zip(blocks[1::2], blocks[2::2], strict=True))
    assert set(drawn) == set(PLATFORMS)
    traces = traces_in(tmp_path / "demo-traces.jsonl")
    for platform, text in drawn.items():
        found = re.search(r"^trace ([0-9a-f]{32})  ", text, re.MULTILINE)
        assert found, text
        # What is drawn is what is in the file, a line a span, each with its bar.
        bars = [line for line in text.splitlines() if re.search("[█▒▓]", line) and " reported" not in line]
        assert len(bars) == len(traces[found[1]]) > 2, text
        assert f"{platform}-demo" in text
    count = re.search(r"^(\d+) runs became traces in demo-traces.jsonl$", ended.stdout, re.MULTILINE)
    assert count
    assert int(count[1]) == len(traces) > 30
    platforms = {attribute["value"]["stringValue"] for spans in traces.values() for span in spans
                 for attribute in span["attributes"] if attribute["key"] == "runspan.platform"}  # fmt: skip
    assert platforms == set(PLATFORMS)
    assert {sum("parentSpanId" not in span for span in spans) for spans in traces.values()} == {1}
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml", "demo-traces.jsonl"}, "it clears up"


@pytest.mark.parametrize("output", ["/", "none/traces.jsonl"])
def test_a_file_that_cannot_be_written_is_told_before_anything_begins(
    output: str, program: Program, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [RUNSPAN, "demo", "--once", "--output", output],
        cwd=tmp_path,
        env=program.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    told = "/ is no file: write the path of one" if output == "/" else f"there is no folder {tmp_path}/none"
    assert ended.returncode == 3
    assert ended.stderr.endswith(f"{told}\n")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_it_stays_up_with_its_status_page_until_it_is_interrupted(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "seen.jsonl"
    with Started(program, [str(RUNSPAN), "demo", "--output", str(file)], tmp_path / "demo") as demo:
        url = demo_url(demo)
        wait_until(lambda: file.exists() and len(traces_in(file)) > 5, "some traces")
        page = read(url)
        assert "<h1>runspan</h1>" in page
        for platform in PLATFORMS:
            assert f"{platform}-demo" in page
        assert "exported" in page
        assert read(f"{url}/healthz") == "ok\n"
        assert demo.process.poll() is None
        begun = time.monotonic()
        assert demo.signalled(signal.SIGINT) == 130
        assert time.monotonic() - begun < 10
    assert re.search(rf"^\d+ runs became traces in {re.escape(str(file))}$", demo.stdout, re.MULTILINE)
    assert "Traceback" not in demo.stderr


def demo_url(demo: Started) -> str:
    """Where its page is; the first line of its log is not JSON but for people."""
    wait_until(lambda: "web_started" in demo.stderr or demo.process.poll() is not None, "the status page")
    found = re.search(r'"url": "([^"]+)"', demo.stderr)
    assert found, demo.stderr
    return found[1]


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
