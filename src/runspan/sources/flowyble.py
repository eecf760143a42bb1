"""Flowyble: runs are asked for by id, and each tells its steps in one document.

No list of runs is documented, so ids come from a file or standard input; where an account does have a list,
the configuration describes it. Steps carry a number, the iteration (one turn of the model) they belong to and how long
the tool took, but no times: those are inferred when the trace is laid out. Facts: docs.flowyble.com.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import model_validator

from runspan.config import SourceConfig, refusal, refuse
from runspan.errors import AnswerTooLarge, RunGone, RunUnreadable, SourceUnavailable
from runspan.model import (
    NO_CONTENT,
    NO_USAGE,
    AttributeValue,
    Content,
    Cost,
    Json,
    Locator,
    Message,
    Run,
    RunBody,
    RunRef,
    RunStatus,
    Step,
    StepKind,
    Usage,
)
from runspan.sources import runlist
from runspan.sources.answers import TOOL_CALL, find_traceparent, rows_of, unwrapped
from runspan.sources.base import Listed, Page, Scope, Scopes, Source, Window
from runspan.sources.client import Client
from runspan.sources.fields import LAST, Fields, in_order, row_key
from runspan.sources.walk import Walk, broken_off, shown

ABSENT_SECONDS = 600.0
STATUSES = {
    "completed": RunStatus.SUCCESS,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "canceled": RunStatus.CANCELLED,
    "pending": RunStatus.OPEN,
    "running": RunStatus.OPEN,
}


class FlowybleConfig(SourceConfig):
    """One account of Flowyble."""

    list: runlist.ListConfig | None = None
    """How runs can be listed, if they can. Default: ids come from --ids-file or standard input."""

    @model_validator(mode="after")
    def _list_has_agents(self) -> "FlowybleConfig":
        if self.list and not runlist.scope_keys(self.list, self.agents):
            refuse([refusal(("list", "agents"), "missing: the path has {agentId}, so say which agents' runs to list")])
        return self


class Flowyble(Source):
    """The platform `flowyble`."""

    platform: ClassVar[str] = "flowyble"
    default_base_url: ClassVar[str | None] = "https://api.flowyble.com/v1"
    default_rate: ClassVar[str] = "90/min"
    config_type: ClassVar[type[SourceConfig]] = FlowybleConfig
    config: FlowybleConfig

    def __init__(self, config: SourceConfig, http: Client) -> None:
        super().__init__(config, http)
        keys = runlist.scope_keys(self.config.list, config.agents) if self.config.list else ()
        self._scopes = [Scope(key) for key in keys]
        self._absent_until: dict[str, float] = {}
        """Until when, by the monotonic clock, lists that are not there are left alone."""
        self._ends: dict[str, str] = {}
        """The last row of each list that was read to its end."""

    @staticmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        """The key in a header of its own."""
        return {"x-api-key": api_key} if api_key else {}

    @property
    def lists(self) -> bool:
        """Whether a list is configured."""
        return bool(self._scopes)

    @property
    def pages_shift(self) -> bool:
        """Whatever its list is paged by, nobody says what its cursors hold."""
        return True

    async def scopes(self) -> Scopes:
        """The configured agents whose list is there, or one scope for a list of them all."""
        now_seconds = time.monotonic()
        return Scopes(tuple(s for s in self._scopes if self._absent_until.get(s.key, 0.0) <= now_seconds))

    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        """A page of the configured list; see `Source.page`.

        A list that is not there is gone, and left alone for a while.
        """
        config, walk = self.config.list, Walk.resumed(cursor)
        assert config is not None
        where = f"source {self.config.name}: {config.path}"
        known_end = self._ends.get(scope.key)
        try:
            document = await self.http.get_json(runlist.segments(config, scope.key), runlist.params(config, walk))
        except AnswerTooLarge as error:
            raise SourceUnavailable(f"{error}: lower list.page_size") from None
        except (RunGone, RunUnreadable) as error:
            if cursor is None:
                self._absent_until[scope.key] = time.monotonic() + ABSENT_SECONDS
                raise RunGone(
                    f"{error}: there is no such list, so it is left alone for ten minutes; mend list.path of source "
                    f"{self.config.name}, or give run ids by --ids-file"
                ) from None
            if not (isinstance(error, RunGone) and config.pagination == "page"):
                raise
            rows, problems = [], []
            onward, fault = runlist.beyond(walk, known_end)
        else:
            answer = runlist.Answer.of(document, config.items_path, where)
            items = rows_of(answer.envelope, answer.key, where)
            rows = [listed for item in items if (listed := read_listed(item, config, scope)) is not None]
            problems = answer.problems
            onward, fault = None, None
            if not (config.order == "desc" and walk.has_left(window, shown(rows))):
                onward, fault = runlist.onward(config, walk, answer, rows, len(items), known_end)
        if not (rows or onward or fault) and walk.last_id is not None:
            self._ends[scope.key] = walk.last_id
        return Page(
            tuple(row for row in rows if window.holds(row.time_ns)),
            onward.state if onward else None,
            tuple(problems),
            broken_off=broken_off(where, fault),
        )

    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        """The run's one document; while it is open, the shorter one without steps. See `Source.fetch`."""
        run = ("agents", "run", ref.run_id)
        if known_open:
            document = await self.http.get_json((*run, "status"))
            if read_status(Fields(unwrapped(document), [])) is RunStatus.OPEN:
                return RunBody(ref, {"detail": document})
        document = await self.http.get_json((*run, "details"))
        return RunBody(ref, {"detail": document})

    def read(self, body: RunBody) -> Run:
        """The document as a Run; see `read_run`."""
        return read_run(body)


def read_run(body: RunBody) -> Run:
    """The document `detail` as a Run; pure. Raises RunUnreadable where it is no run at all."""
    detail = Fields(unwrapped(body.documents.get("detail")), [])
    if not is_run(detail):
        raise RunUnreadable("Flowyble's answer has neither a status nor an end: it is no run", retryable=True)
    status = read_status(detail)
    rows = in_order(detail.rows("steps"), by_number)
    return Run(
        ref=body.ref,
        status=status,
        raw_status=detail.text("status"),
        agent_id=detail.identifier("agentId"),
        created_ns=detail.time_ns("createdAt"),
        started_ns=detail.time_ns("startedAt"),
        ended_ns=detail.time_ns("finishedAt"),
        usage=Usage(total_tokens=detail.integer("tokensUsed")),
        cost=read_credits(detail),
        error_description=None if status is RunStatus.SUCCESS else detail.text("errorMessage"),
        steps=(*read_iterations(rows), *read_final_answer(detail), *read_mishap(detail, status)),
        steps_reported=detail.integer("stepsExecuted"),
        steps_listed=len(rows),
        # A run is started with nothing but a text.
        traceparent=find_traceparent(detail.value("metadata"), detail.value("userMessage")),
        content=read_conversation(detail),
        problems=tuple(detail.problems),
    )


def is_run(detail: Fields) -> bool:
    """Whether a document tells at least how a run stands."""
    return detail.text("status") is not None or detail.time_ns("finishedAt") is not None


def read_status(detail: Fields) -> RunStatus:
    """How the run stands; an unknown status is over if the run has an end, and failed if it has an error."""
    known = STATUSES.get((detail.text("status") or "").lower())
    if known is not None:
        return known
    if detail.time_ns("finishedAt") is None:
        return RunStatus.OPEN
    return RunStatus.FAILED if detail.text("errorMessage") else RunStatus.SUCCESS


def read_credits(detail: Fields) -> Cost | None:
    """What the run cost, in the platform's own credits."""
    amount = detail.decimal("creditsUsed")
    return None if amount is None else Cost(amount, "credits")


def read_iterations(rows: Iterable[Fields]) -> list[Step]:
    """The steps, grouped by the turn of the model they belong to; a step that names none stands for itself."""
    turns: dict[tuple[int | None, int], list[Fields]] = {}
    for index, row in enumerate(rows):
        number = row.integer("iterationNumber")
        turns.setdefault((number, index if number is None else 0), []).append(row)
    return [
        read_tool_call(turn[0]) if number is None else read_iteration(number, turn)
        for (number, _), turn in turns.items()
    ]


def read_iteration(number: int, rows: Sequence[Fields]) -> Step:
    """One turn of the model: its call, then the tools it called for."""
    tools = [read_tool_call(row) for row in rows if calls_a_tool(row)]
    model_call = Step(
        kind=StepKind.MODEL_CALL,
        key=("chat", str(number)),
        usage=read_usage(rows),
        content=replace(read_reasoning(rows), finish_reason=TOOL_CALL if tools else None),
    )
    return Step(
        kind=StepKind.ITERATION,
        key=("iteration", str(number)),
        iteration=number,
        children=(model_call, *tools),
    )


def read_tool_call(row: Fields) -> Step:
    """One step: a tool, what it was given, what it gave back, and how long it took."""
    number = row.integer("stepNumber")
    attributes: dict[str, AttributeValue] = {"gen_ai.tool.type": "extension"}
    if number is not None:
        attributes["runspan.step"] = number
    return Step(
        kind=StepKind.TOOL_CALL,
        # Numbers alone do not do: they can be double.
        key=row_key("step", row, ("stepNumber", "iterationNumber", "toolName", "duration")),
        name=row.text("toolName"),
        duration_ns=row.duration_ns("duration"),
        content=Content(arguments=row.json_text("inputData"), result=row.json_text("outputData")),
        attributes=attributes,
    )


def read_usage(rows: Sequence[Fields]) -> Usage:
    """The tokens of an iteration: each of its steps repeats them, so the first that has them counts."""
    for row in rows:
        tokens = row.child("tokenUsage")
        usage = Usage(input_tokens=tokens.integer("inputTokens"), output_tokens=tokens.integer("outputTokens"))
        if usage != NO_USAGE:
            return usage
    return NO_USAGE


def read_reasoning(rows: Sequence[Fields]) -> Content:
    """What the model thought before it called these tools; parallel calls repeat one thought."""
    thoughts = dict.fromkeys(text for row in rows if (text := row.text("reasoning")))
    return Content(output=tuple(Message(role="assistant", reasoning=thought) for thought in thoughts))


def read_final_answer(detail: Fields) -> list[Step]:
    """The model's last call, which gave the answer. It is no step, so nothing is known of it but that it was."""
    answer = detail.text("finalOutput")
    if answer is None:
        return []
    return [
        Step(
            kind=StepKind.MODEL_CALL,
            key=("final_answer",),
            content=Content(output=(Message(role="assistant", text=answer),)),
            attributes={"runspan.call": "final_answer"},
        )
    ]


def read_mishap(detail: Fields, status: RunStatus) -> list[Step]:
    """The error of a run that ended well all the same."""
    text = detail.text("errorMessage") if status is RunStatus.SUCCESS else None
    return [Step(kind=StepKind.NOTE, key=("error",), name="error", content=Content(text=text))] if text else []


def read_conversation(detail: Fields) -> Content:
    """What the run was asked and what it answered."""
    asked, answered = detail.text("userMessage"), detail.text("finalOutput")
    if asked is None and answered is None:
        return NO_CONTENT
    return Content(
        input=(Message(role="user", text=asked),) if asked else (),
        output=(Message(role="assistant", text=answered),) if answered else (),
    )


def calls_a_tool(row: Fields) -> bool:
    """Whether a step is more than a thought."""
    return any(row.value(name) not in (None, "") for name in ("toolName", "inputData", "outputData"))


def by_number(row: Fields) -> tuple[int]:
    """A step's place in its run; a step without a number stands last."""
    number = row.integer("stepNumber")
    return (LAST if number is None else number,)


def read_listed(row: Fields, config: runlist.ListConfig, scope: Scope) -> Listed | None:
    """One row of the configured list; None, with a line in its problems, where it has no id."""
    run_id = row.identifier(config.id_field)
    if run_id is None:
        row.note(f"no {config.id_field}")
        return None
    return Listed(
        run_id,
        Locator(agent_id=row.identifier("agentId") or scope.key or None, created_ns=row.time_ns("createdAt")),
        terminal=is_run(row) and read_status(row) is not RunStatus.OPEN,
        time_ns=row.time_ns(config.time_field),
        raw_status=row.text("status"),
        ended_ns=row.time_ns("finishedAt"),
        # What an unknown word means depends on more than a list may show.
        status=STATUSES.get((row.text("status") or "").lower()),
    )
