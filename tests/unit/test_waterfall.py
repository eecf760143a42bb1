"""The drawing of a trace: what is in it, how it is laid out, and that nothing from outside spoils it."""

import io
import re
from decimal import Decimal
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from runspan.cli import figures, waterfall
from runspan.cli.waterfall import Waterfall, print_trace
from runspan.model import Cost, Run, RunStatus, Step, StepError, Usage
from runspan.projection import project
from runspan.trace import Trace
from tests.unit.projection_runs import (
    MS,
    SECOND,
    SETTINGS,
    START,
    casedev_run,
    chat,
    elizaos_run,
    flowyble_run,
    iteration,
    note,
    runtype_run,
    tool,
    traced,
)

ANSI = re.compile("\x1b\\[[0-9;]*m")


def drawn(trace: Trace, width: int = 120, **console: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **console).print(Waterfall(trace))
    return file.getvalue()


def on_terminal(trace: Trace, width: int = 120) -> list[str]:
    return ANSI.sub("", drawn(trace, width, force_terminal=True, color_system="truecolor")).splitlines()


def long_trace(calls: int, *, failed: int | None = None) -> Trace:
    """Iterations of a model call and a tool each; one tool fails."""
    broken = StepError("502", "HTTP 502")
    return traced(
        *(
            iteration(n, chat("c", str(n)), tool("t", str(n), name="search", error=broken if n == failed else None))
            for n in range(calls)
        ),
        ended_ns=START + 60 * SECOND,
    )


RUNTYPE = """\
run exec_9f8b7c6d5a4e3f21  completed  max_iterations_reached
trace 2cfe9a8e45d3f06323f2c13d1cc7fa62  2026-03-29 10:00:01 UTC  test
                               0                                          2m15s   duration  tokens
queued                         ◂                                                  30.000 s
invoke_agent report-writer     ████████████████████████████████████████████████      2m15s    1450
├─ iteration 1                 ▒▒▒▒▒▒▒▒                                          ~20.000 s
│  ├─ chat                     ▒▒▒▒▒▒▒                                           ~19.188 s     250
│  └─ execute_tool search_docs       ██                                             812 ms
│     ✗ 502: HTTP 502
├─ chat  #2                           ▒▒▒▒▒▒▒▒▒▒▒                                ~28.750 s     300
├─ chat  #3                                     ▒▒▒▒▒▒▒▒▒▒▒                      ~28.750 s     300
├─ chat  #4                                               ▒▒▒▒▒▒▒▒▒▒▒            ~28.750 s     300
└─ chat  #5                                                         ▒▒▒▒▒▒▒▒▒▒▒  ~28.750 s     300
8 spans, 1 failed · 1450 tokens · 0.0234 usd (currency assumed)
parent run: exec_1a2b3c4d5e6f7g8h  trace 49d3588ae5c36762b37ad6315bf3117c
█ reported  ▒ inferred  ◂ before the run
"""

FLOWYBLE = """\
run 550e8400-e29b-41d4-a716-446655440000  Completed
trace 433785f0733a65e47eca5dd09f287054  2026-03-29 10:00:01 UTC  test
                                   0              11.000 s  duration      tokens
queued                             ◂                         1.000 s
invoke_agent stock-bot             ███████████████████████  11.000 s        2450
├─ iteration 1                     ▒▒▒▒▒▒▒▒▒                ~4.140 s
│  ├─ chat                         ▒▒▒▒▒▒▒                  ~2.940 s   850 → 120
│  └─ execute_tool SearchKnowledge       ▒▒▒                 1.200 s
├─ iteration 2                             ▒▒▒▒▒▒▒▒▒        ~3.920 s
│  ├─ chat                                 ▒▒▒▒▒▒▒          ~2.940 s  1100 → 150
│  └─ execute_tool SearchKnowledge               ▒▒▒          980 ms
└─ chat  final answer                              ▒▒▒▒▒▒▒  ~2.940 s
8 spans · 2 of 3 steps listed · 2450 tokens (230 unattributed) · 0.85 credits
█ reported  ▒ inferred  ◂ before the run
"""

ELIZAOS = """\
run d0b1  completed
trace 827d18faa3ca4e50d5260c006b9d5845  2026-03-29 10:00:01 UTC  test
                       0                              800 ms  duration
invoke_agent Eliza     █████████████████████████████████████    800 ms
✗ failed: model refused
├─ chat  TEXT_LARGE    ████████                                 140 ms
├─ execute_tool REPLY           ████████████████████            420 ms
│  └─ chat  TEXT_SMALL            █████████████████             350 ms
└─ embeddings                                              ▓      4 ms
5 spans, 1 failed
█ reported  ▓ moved or cut to fit
"""

CASEDEV = """\
run run_9  failed
trace 748f1488dae8b7cac55b49c69ec04145  2026-03-29 10:00:01 UTC  test
                               0                          59.000 s   duration     tokens        cost
queued                         ◂                                      1.000 s
invoke_agent contract-reviewer ███████████████████████████████████   59.000 s  900 → 120  0.0042 usd
✗ failed: tool failed
├─ chat vendor/model-x         ▒▒▒▒▒▒▒▒▒▒▒▒                         ~19.000 s  900 → 120  0.0042 usd
├─ thinking                      ◆
├─ execute_tool bash                      ██                           300 ms
├─ output                                                   ◆
└─ issue                                                         ◇
3 spans, 1 failed · 900 → 120 tokens · 0.0042 usd (currency assumed)
█ reported  ▒ inferred  ◆ event  ◇ event at an inferred time  ◂ before the run
"""


@pytest.mark.parametrize(
    ("run", "width", "picture"),
    [
        (runtype_run(), 100, RUNTYPE),
        (flowyble_run(), 80, FLOWYBLE),
        (elizaos_run(RunStatus.FAILED), 70, ELIZAOS),
        (casedev_run(), 100, CASEDEV),
    ],
    ids=["runtype", "flowyble", "elizaos", "casedev"],
)
def test_pictures(run: Run, width: int, picture: str):
    assert drawn(project(run, SETTINGS), width) == picture


class TestRows:
    def test_a_duration_that_was_said_stands_beside_the_one_shown(self):
        late = tool(name="late", end_ns=START + 12 * SECOND, duration_ns=11 * SECOND)
        assert "10.000 s of 11.000 s" in drawn(traced(late))

    def test_where_no_duration_is_known_none_is_shown(self):
        [row] = [row for row in waterfall.rows(traced(tool(name="t"))) if row.name == "execute_tool t"]
        assert (row.duration, row.mark) == ("", "▒")

    def test_problems_and_what_is_incomplete_are_told(self):
        calls = chat(usage=Usage(total_tokens=10))
        text = drawn(traced(calls, usage=Usage(total_tokens=5), incomplete=True, problems=("steps[1]: not an object",)))
        assert "! the platform no longer shows all of this run\n" in text
        assert "! steps[1]: not an object\n" in text
        assert "! usage: the calls report more tokens than the run\n" in text

    def test_a_column_that_only_the_run_would_fill_is_left_to_the_totals(self):
        heads = drawn(traced(chat(), cost=Cost(Decimal(2)), usage=Usage(total_tokens=9))).splitlines()
        assert heads[2].split() == ["0", "10.000", "s", "duration"]
        assert "2 spans · 9 tokens · 2 usd (currency assumed)" in heads
        heads = drawn(traced(chat(cost=Cost(Decimal(2), "credits"), usage=Usage(total_tokens=9)))).splitlines()
        assert heads[2].split()[-3:] == ["duration", "tokens", "cost"]

    def test_a_long_error_is_folded_and_lost_nowhere(self):
        words = " ".join(f"word{n}" for n in range(30))
        lines = on_terminal(traced(tool(name="t", error=StepError("tool_error", words))), 60)
        assert all(cell_len(line) <= 60 for line in lines)
        at = next(number for number, line in enumerate(lines) if "✗" in line)
        told = [line.strip(" ✗│") for line in lines[at : at + 6]]
        assert words in " ".join(told)

    def test_siblings_stand_in_the_order_of_their_starts(self):
        steps = [
            tool("b", name="b", start_ns=START + 2 * SECOND, duration_ns=SECOND),
            note("between", start_ns=START + SECOND),
            tool("a", name="a", start_ns=START, duration_ns=SECOND),
        ]
        assert [row.name for row in waterfall.rows(traced(*steps))][1:] == [
            "execute_tool a",
            "between",
            "execute_tool b",
        ]


class TestWidth:
    @pytest.mark.parametrize("width", [80, 100, 120, 250])
    def test_no_line_is_wider_than_the_terminal_and_none_ends_in_blanks(self, width: int):
        step = tool(
            name="検索ツール🔎 with a name that is far too long for any terminal whatsoever, and then some",
            error=StepError("502", "상류 서비스가 응답하지 않습니다 " * 8),
            usage=Usage(input_tokens=123456, output_tokens=7890),
            cost=Cost(Decimal("0.000123")),
        )
        trace = traced(step, chat(name="模型"), agent_name="日本語エージェント", created_ns=START - SECOND)
        lines = on_terminal(trace, width)
        assert max(map(cell_len, lines)) <= width
        assert [line for line in lines if line != line.rstrip()] == []
        bars = {cell_len(line[: re.search("[█▒◂]", line).start()]) for line in lines[3:6]}  # type: ignore[union-attr]
        assert len(bars) == 1, "the bars start in one column"

    @pytest.mark.parametrize("width", [1, 20, 40])
    def test_it_can_be_drawn_on_any_terminal(self, width: int):
        assert all(cell_len(line) <= width for line in on_terminal(long_trace(3, failed=1), width))

    def test_deep_trees_keep_their_names(self):
        def nested(depth: int) -> Step:
            return tool(str(depth), name=f"level-{depth}", children=(nested(depth + 1),) if depth < 40 else ())

        text = drawn(traced(nested(0)), 80)
        assert "level-40" in text


class TestLongRuns:
    def test_a_terminal_gets_the_ends_and_what_failed(self):
        lines = on_terminal(long_trace(3333, failed=1700))
        assert len(lines) < waterfall.MOST_ROWS
        at = next(number for number, line in enumerate(lines) if "✗ 502: HTTP 502" in line)
        assert "iteration 1700" in "".join(lines[at - 4 : at])
        gaps = [int(match[1]) for line in lines if (match := re.search(r"⋮ (\d+) more", line))]
        shown = sum(bool(re.search(r"(chat|execute_tool search|iteration \d+) ", line)) for line in lines)
        assert len(gaps) == 2
        assert sum(gaps) + shown == 3 * 3333
        assert "10000 spans, 1 failed" in lines

    def test_a_pipe_gets_everything(self):
        file = io.StringIO()
        print_trace(long_trace(300), Console(file=file))
        lines = file.getvalue().splitlines()
        assert not any("more" in line for line in lines)
        assert sum("iteration" in line for line in lines) == 300

    def test_of_a_run_where_all_failed_not_all_is_shown(self):
        failed = [tool(str(n), name=f"t{n}", error=StepError("500")) for n in range(5000)]
        rows = waterfall.shortened(list(waterfall.rows(traced(*failed))))
        assert len(rows) <= waterfall.MOST_ROWS + 2


class TestStyle:
    def test_into_a_pipe_goes_no_colour(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        file = io.StringIO()
        print_trace(project(casedev_run(), SETTINGS), Console(file=file))
        assert "\x1b" not in file.getvalue()

    def test_errors_are_red_and_no_colour_is_honoured(self, monkeypatch: pytest.MonkeyPatch):
        trace = project(runtype_run(), SETTINGS)
        red = re.compile("\x1b\\[(?:1;)?31m")
        coloured = drawn(trace, force_terminal=True, color_system="standard")
        assert [bool(red.search(line)) for line in coloured.splitlines() if "search_docs" in line] == [True]
        monkeypatch.setenv("NO_COLOR", "1")
        plain = drawn(trace, force_terminal=True, color_system="standard")
        assert not re.search("\x1b\\[[0-9;]*3[0-9]m", plain)
        assert ANSI.sub("", plain) == ANSI.sub("", coloured)

    def test_nothing_from_outside_commands_the_terminal(self):
        evil = "\x1b[31mred\x07\u202e[bold]x[/bold]"
        shown = drawn(
            traced(
                tool(name=evil, error=StepError(evil, evil)),
                note(evil),
                agent_name=evil,
                raw_status=evil,
                stop_reason=evil,
                parent_run_id=evil,
                problems=(evil,),
            )
        )
        assert not set("\x1b\x07\u202e") & set(shown)
        assert "[bold]x[/bold]" in shown


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (1, "0 ms"),
        (47_300, "47 µs"),
        (999_999, "999 µs"),
        (4 * MS, "4 ms"),
        (140_250_000, "140 ms"),
        (999_999_999, "999 ms"),
        (19 * SECOND + 188 * MS, "19.188 s"),
        (119_999 * MS, "119.999 s"),
        (135 * SECOND, "2m15s"),
        (3723 * SECOND, "1h02m03s"),
        (100 * 3600 * SECOND, "100h00m00s"),
    ],
)
def test_durations(duration_ns: int, text: str):
    assert figures.duration(duration_ns) == text


def test_what_platforms_round_is_no_difference():
    rounded = traced(ended_ns=START + 800 * MS, duration_ns=799 * MS)
    assert " of " not in drawn(rounded)
    assert "800 ms of 790 ms" in drawn(traced(ended_ns=START + 800 * MS, duration_ns=790 * MS))
