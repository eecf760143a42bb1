"""The drawing of a trace: what is in it, how it is laid out, and that nothing from outside spoils it."""

import io
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from runspan.cli import figures, rows
from runspan.cli.rows import Row
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


def row_of(name: str, *steps: Step, **fields: Any) -> Row:
    [row] = [row for row in rows.rows(traced(*steps, **fields)) if row.name == name]
    return row


STATUS = "runspan.tool.status"
COLOURED: dict[str, Any] = {"force_terminal": True, "color_system": "standard"}

NAMES = st.text("abc DEF検索🔎", min_size=1, max_size=70).map(str.strip)
TOKENS = st.integers(0, 10**9)
TIMES: dict[str, Any] = {
    "start_ns": st.integers(START - SECOND, START + 12 * SECOND),
    "duration_ns": st.integers(0, 100 * SECOND) | st.none(),
}
COSTS = st.builds(Cost, st.decimals(0, 1000, places=7), st.sampled_from(["usd", "credits"]))
CALLS = st.builds(
    chat,
    st.uuids().map(str),
    name=NAMES,
    usage=st.builds(Usage, input_tokens=TOKENS, output_tokens=TOKENS | st.none(), total_tokens=TOKENS | st.none()),
    cost=COSTS | st.none(),
    **TIMES,
)
ATTRIBUTES = st.sampled_from([{}, {"runspan.incomplete": True}, {STATUS: "denied"}, {STATUS: "completed"}])
TOOLS = st.recursive(
    st.builds(tool, st.uuids().map(str), name=NAMES, attributes=ATTRIBUTES, **TIMES),
    lambda inner: st.builds(
        tool, st.uuids().map(str), name=NAMES, children=st.lists(inner | CALLS, max_size=2).map(tuple), **TIMES
    ),
    max_leaves=9,
)
TRACES = st.builds(
    lambda steps, **fields: traced(*steps, **fields),
    st.lists(CALLS | TOOLS, max_size=6),
    created_ns=st.integers(START - 5000 * SECOND, START),
    ended_ns=st.integers(START, START + 10_000 * SECOND),
    usage=st.builds(Usage, total_tokens=TOKENS | st.none()),
    cost=COSTS | st.none(),
    agent_name=NAMES,
)


def parted(trace: Trace, lines: list[str]) -> tuple[list[str], list[str]]:
    """Of a drawing where nothing failed the lines of its rows, and the heads of its columns."""
    first = next(n for n, line in enumerate(lines) if line.startswith(("queued", "invoke_")))
    heads = [head for head in ("duration", "said", "tokens", "cost") if head in lines[first - 1].split()]
    return lines[first : first + len(list(rows.rows(trace)))], heads


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
8 spans · 1450 tokens · 0.0234 usd (currency assumed)
failed: execute_tool search_docs at 19.188 s (502)
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
5 spans
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
3 spans · 900 → 120 tokens · 0.0042 usd (currency assumed)
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
        lines = drawn(traced(late)).splitlines()
        assert lines[2].split()[-2:] == ["duration", "said"]
        assert lines[4].endswith("  10.000 s  11.000 s")

    def test_where_no_duration_is_known_none_is_shown(self):
        row = row_of("execute_tool t", tool(name="t"))
        assert (row.duration, row.mark, row.doubt) == ("", "▒", "")

    def test_a_tool_without_an_end_looks_like_no_finished_one(self):
        hanging = tool(name="t", start_ns=START + 4 * SECOND, attributes={"runspan.incomplete": True})
        row = row_of("execute_tool t", hanging)
        assert (row.duration, row.doubt) == ("no end told", "no end told")
        text = drawn(traced(hanging))
        assert "in doubt: execute_tool t at 4.000 s (no end told)\n" in text
        yellow = [line for line in drawn(traced(hanging), **COLOURED).splitlines() if "\x1b[33m" in line]
        assert len(yellow) == 2, "its row and the line below the drawing"

    @pytest.mark.parametrize("status", ["pending", "skipped", "Denied"])
    def test_a_tools_status_is_told_unless_it_is_one_of_success(self, status: str):
        def with_status(word: str, **fields: Any) -> Row:
            return row_of("execute_tool t", tool(name="t", duration_ns=SECOND, attributes={STATUS: word}, **fields))

        assert with_status(status).title == f"execute_tool t  {status}"
        assert with_status(status).duration == "1.000 s"
        told = with_status(status, error=StepError("502"))
        assert (told.title, told.doubt, told.error) == ("execute_tool t", "", "502")
        for word in ("completed", "success", "SUCCEEDED", "ok"):
            assert (with_status(word).title, with_status(word).doubt) == ("execute_tool t", "")
        text = drawn(traced(tool(name="t", start_ns=START, duration_ns=SECOND, attributes={STATUS: status})))
        assert f"in doubt: execute_tool t at 0 ms ({status})\n" in text

    def test_an_event_that_failed_is_marked_and_counted(self):
        failed = note("embedding", start_ns=START + 4 * SECOND, error=StepError("quota"))
        lines = drawn(traced(failed, chat())).splitlines()
        at = next(number for number, line in enumerate(lines) if "embedding" in line)
        assert lines[at + 1].strip(" │") == "✗ quota"
        assert "failed: embedding at 4.000 s (quota)" in lines

    def test_evaluators_are_told_apart(self):
        attributes = {"runspan.elizaos.evaluator": "REFLECTION"}
        for evaluator in (
            note("evaluator", end_ns=START + SECOND, attributes=attributes),
            note("evaluator", end_ns=START + SECOND, duration_ns=MS, attributes=attributes),
        ):
            assert row_of("evaluator", evaluator).label == "REFLECTION"

    def test_an_agent_without_a_name_is_told_by_its_id(self):
        assert row_of("invoke_agent", agent_id="agent_7").label == "agent_7"
        assert row_of("invoke_agent Ann", agent_id="agent_7", agent_name="Ann").label == ""

    def test_what_the_calls_tell_beyond_the_run_is_shown_as_not_counted(self):
        steps = [
            chat("a", usage=Usage(input_tokens=900, output_tokens=120), cost=Cost(Decimal(3), "credits")),
            chat("b", usage=Usage(total_tokens=7)),
        ]
        trace = traced(*steps, usage=Usage(total_tokens=5), cost=Cost(Decimal(1), "credits"))
        assert [(row.tokens, row.cost) for row in rows.rows(trace)] == [
            ("5", "1 credits"),
            ("(900 → 120)", "(3 credits)"),
            ("(7)", ""),
        ]
        legend = "( ) not counted: the run's own total is less"
        assert legend in drawn(trace)
        assert legend not in drawn(trace, 30), "there is no room for these columns"
        assert legend not in drawn(traced(*steps))

    def test_problems_and_what_is_incomplete_are_told(self):
        calls = chat(usage=Usage(total_tokens=10))
        text = drawn(traced(calls, usage=Usage(total_tokens=5), incomplete=True, problems=("steps[1]: not an object",)))
        assert "! the platform no longer shows all of this run\n" in text
        assert "no end told" not in text
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

    def test_what_starts_at_once_stands_in_the_traces_order_after_events(self):
        steps = [
            chat("asks", duration_ns=0, start_ns=START),
            tool("long", name="long", start_ns=START, duration_ns=3 * SECOND),
            tool("short", name="short", start_ns=START, duration_ns=SECOND),
            tool("longer", name="longer", start_ns=START, duration_ns=4 * SECOND),
            note("thought", start_ns=START),
        ]
        names = [row.name for row in rows.rows(traced(*steps))][1:]
        assert names == ["thought", "chat", "execute_tool long", "execute_tool short", "execute_tool longer"]

    def test_siblings_stand_in_the_order_of_their_starts(self):
        steps = [
            tool("b", name="b", start_ns=START + 2 * SECOND, duration_ns=SECOND),
            note("between", start_ns=START + SECOND),
            tool("a", name="a", start_ns=START, duration_ns=SECOND),
        ]
        assert [row.name for row in rows.rows(traced(*steps))][1:] == [
            "execute_tool a",
            "between",
            "execute_tool b",
        ]


class TestTotals:
    """What stands below the drawing."""

    @pytest.mark.parametrize(
        ("usage", "told"),
        [
            (Usage(input_tokens=900, output_tokens=120), "900 → 120 tokens"),
            (Usage(input_tokens=900, output_tokens=120, total_tokens=1020), "900 → 120 tokens"),
            (Usage(input_tokens=900, output_tokens=120, total_tokens=1100), "1100 tokens (900 → 120)"),
            (Usage(input_tokens=900, total_tokens=1100), "1100 tokens (900 → ?)"),
            (Usage(input_tokens=900), "900 → ? tokens"),
            (Usage(total_tokens=1100), "1100 tokens"),
        ],
    )
    def test_a_total_that_is_not_the_sum_is_told(self, usage: Usage, told: str):
        assert f"1 span · {told}" in drawn(traced(usage=usage)).splitlines()

    def test_unattributed_tokens_stand_beside_the_total_they_are_part_of(self):
        call = chat(usage=Usage(input_tokens=400, output_tokens=20))
        trace = traced(call, usage=Usage(input_tokens=900, output_tokens=120, total_tokens=1100))
        assert "2 spans · 1100 tokens (900 → 120, 680 unattributed)" in drawn(trace).splitlines()

    def test_the_first_that_failed_are_named_and_the_run_is_none_of_them(self):
        failed = [
            chat("m", name="x", start_ns=START + SECOND, end_ns=START + 2 * SECOND, error=StepError("429")),
            *(
                tool(n, name=n, start_ns=START + 3 * SECOND, duration_ns=MS, error=StepError("tool_error"))
                for n in "abcd"
            ),
        ]

        def told(*steps: Step) -> list[str]:
            trace = traced(*steps, status=RunStatus.FAILED, error_description="gone")
            return [line for line in drawn(trace, 250).splitlines() if line.startswith("failed:")]

        assert told() == []
        assert told(failed[0]) == ["failed: chat x at 1.000 s (429)"]
        first = "failed: chat x at 1.000 s (429), execute_tool a at 3.000 s (tool_error), "
        assert told(*failed[:3]) == [f"{first}execute_tool b at 3.000 s (tool_error)"]
        assert told(*failed) == [f"{first}execute_tool b at 3.000 s (tool_error) and 2 more"]

    def test_where_it_failed_is_no_more_certain_than_its_bar(self):
        late = iteration(2, chat("c", error=StepError("429")), tool("t", name="t", duration_ns=SECOND))
        assert "failed: chat at ~5.000 s (429)\n" in drawn(traced(tool(name="s", duration_ns=5 * SECOND), late))


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

    @given(trace=TRACES, width=st.integers(20, 160))
    def test_every_figure_is_whole_and_no_line_is_too_wide(self, trace: Trace, width: int):
        lines = drawn(trace, width).splitlines()
        assert max(map(cell_len, lines)) <= width
        assert [line for line in lines if line != line.rstrip()] == []
        drawn_rows, heads = parted(trace, lines)
        for row, line in zip(rows.rows(trace), drawn_rows, strict=True):
            told = " ".join(getattr(row, head) for head in heads).split()
            shown = line.split()
            assert shown[len(shown) - len(told) :] == told
            assert not re.search(r"\d", "".join(shown[: len(shown) - len(told)]))

    @settings(max_examples=10)
    @given(trace=TRACES)
    def test_with_less_room_columns_go_one_after_the_other(self, trace: Trace):
        order = ["duration", "cost", "tokens", "said"]
        widest = [head for head in order if head in parted(trace, drawn(trace, 160).splitlines())[1]]
        for width in range(160, 19, -1):
            heads = parted(trace, drawn(trace, width).splitlines())[1]
            left = [head for head in order if head in heads]
            assert left == widest[: len(left)], "what matters most is the last to go"
            widest = left
        assert widest == []

    def test_names_and_bar_give_way_before_figures(self):
        trace = project(casedev_run(), SETTINGS)
        shown = "  900 → 120  0.0042 usd"
        for width in range(65, 121):
            assert sum(line.endswith(shown) for line in drawn(trace, width).splitlines()) == 2, width
        narrow = drawn(trace, 48)
        assert "├─ bash " in narrow, "the word for its kind is what a tool's name needs least"
        assert "tokens  " not in narrow
        assert re.search("█ +59.000 s  0.0042 usd\n", narrow)

    def test_what_tells_rows_apart_outlives_their_names(self):
        calls = [
            tool("t", name="a name that is too long for this", attributes={STATUS: "denied"}),
            chat("c", name="a model that is too long for this", attributes={"runspan.call": "final_answer"}),
        ]
        lines = drawn(traced(*calls), 60).splitlines()
        assert any(re.match("├─ a name.*…  denied ", line) for line in lines)
        assert any(re.match("└─ chat.*…  final answer ", line) for line in lines)

    @pytest.mark.parametrize("width", [20, 25, 40])
    def test_errors_are_told_whole_on_any_terminal(self, width: int):
        words = " ".join(f"word{n}" for n in range(9))

        def nested(depth: int) -> Step:
            children = (nested(depth + 1),) if depth < 8 else ()
            return tool(str(depth), name="x", children=children, error=None if children else StepError("", words))

        lines = drawn(traced(nested(0)), width).splitlines()
        assert max(map(cell_len, lines)) <= width
        assert words in " ".join(" ".join(lines).replace("✗", " ").split())

    def test_deep_trees_keep_their_names(self):
        def nested(depth: int) -> Step:
            return tool(str(depth), name=f"level-{depth}", children=(nested(depth + 1),) if depth < 40 else ())

        for width in (80, 30):
            assert "level-40" in drawn(traced(nested(0)), width)


class TestLongRuns:
    def test_a_terminal_gets_the_ends_and_what_failed(self):
        lines = on_terminal(long_trace(3333, failed=1700))
        assert len(lines) < rows.MOST_ROWS
        at = next(number for number, line in enumerate(lines) if "✗ 502: HTTP 502" in line)
        assert "iteration 1700" in "".join(lines[at - 4 : at])
        gaps = [int(match[1]) for line in lines if (match := re.search(r"⋮ (\d+) more", line))]
        shown = sum(bool(re.search(r"─ (chat|execute_tool search|iteration \d+) ", line)) for line in lines)
        assert len(gaps) == 2
        assert sum(gaps) + shown == 3 * 3333
        assert "10000 spans" in lines
        assert any(re.fullmatch(r"failed: execute_tool search at ~30\.\d+ s \(502\)", line) for line in lines)

    def test_what_may_have_failed_is_kept_too(self):
        hanging = tool("h", name="hanging", attributes={"runspan.incomplete": True})
        steps = [tool(str(n), name="t", duration_ns=MS) for n in range(1000)]
        lines = on_terminal(traced(*steps[:500], hanging, *steps[500:]))
        assert sum("execute_tool hanging " in line for line in lines) == 2

    def test_a_pipe_gets_everything(self):
        file = io.StringIO()
        print_trace(long_trace(300), Console(file=file))
        lines = file.getvalue().splitlines()
        assert not any("more" in line for line in lines)
        assert sum("iteration" in line for line in lines) == 300

    def test_of_a_run_where_all_failed_not_all_is_shown(self):
        failed = [tool(str(n), name=f"t{n}", error=StepError("500")) for n in range(5000)]
        shown = rows.shortened(list(rows.rows(traced(*failed))))
        assert len(shown) <= rows.MOST_ROWS + 2


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
        assert [bool(red.search(line)) for line in coloured.splitlines() if "search_docs" in line] == [True, True]
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
    assert " said" not in drawn(rounded)
    assert "  800 ms  790 ms\n" in drawn(traced(ended_ns=START + 800 * MS, duration_ns=790 * MS))
