"""One pass over one list: page by page, each page's rows and the cursor behind them become one transaction.

A pass that dies goes on where it stood. It is made in turns, since another list of the source may wait for its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from runspan.errors import RunGone, RunUnreadable, SourceBusy, SourceRefused, SourceUnavailable
from runspan.ledger import UNWANTED, Ledger, NewRow, Noted, RowState, Sweep
from runspan.model import Json, Locator, RunRef
from runspan.pipeline import standing
from runspan.pipeline.line import Line
from runspan.quantities import nanoseconds
from runspan.sources.base import Listed, Page, Scope, Source, Window

log = structlog.get_logger()

PAGES_A_TURN = 50
"""A list may be without end, so after so many pages the others have their turn."""
PROBLEMS_REMEMBERED = 1000
PASSES_AT_MOST = 3
"""So often a stretch is read, or gone on with, for the sake of runs that were pushed past the edge of a page."""


@dataclass(slots=True)
class Found:
    """What one look at a source brought: counts of rows, and what was said of lists that could not be read."""

    pages: int = 0
    listed: int = 0
    new: int = 0
    became_due: int = 0
    failures: list[str] = field(default_factory=list[str])

    def add(self, page: Page, noted: Noted) -> None:
        """Count one page in."""
        self.pages += 1
        self.listed += len(page.rows)
        self.new += noted.new
        self.became_due += noted.became_due


class Doubt:
    """Whether a pass over a list is to be made again, since it may have pushed runs past the edge of a page unseen.

    So deletions do where a list is paged by position. A pass of several pages that came upon a run that is new, and was
    created `before_ns`, is not the last one; nor is one that goes on after a stop, of whose beginning nothing is known.
    `number`: how many passes over this stretch there have been, with this one. `always`: whatever it comes upon.
    """

    def __init__(self, source: Source, before_ns: int, *, number: int, goes_on: bool, always: bool = False) -> None:
        self._applies = source.pages_shift and number < PASSES_AT_MOST
        self._before_ns = before_ns
        self._pages = 1 if goes_on else 0
        self._found_old = goes_on or always
        self.remains = False
        """The list has been read to its end, and is to be read once more."""

    def is_over(self, page: Page, noted: Noted) -> bool:
        """Count a page in; gives whether it was the list's last, and nothing is left to doubt."""
        self._pages += 1
        self._found_old |= any(self._is_old(row) and row.run_id in noted.new_ids for row in page.rows)
        is_end = page.cursor is None and page.broken_off is None
        self.remains = is_end and self._applies and self._pages > 1 and self._found_old
        return is_end and not self.remains

    def _is_old(self, row: Listed) -> bool:
        return row.time_ns is None or row.time_ns <= self._before_ns


class Pass:
    """One pass over the list of a scope, from where its `sweep` stands in the ledger.

    `begun_ns`: when it began. `number`: how many passes over this stretch there have been, with this one. `said`: which
    rows of this list are known to be unreadable; it grows.
    """

    def __init__(
        self,
        line: Line,
        ledger: Ledger,
        scope: Scope,
        sweep: Sweep,
        *,
        begun_ns: int,
        said: set[str],
        number: int = 1,
    ) -> None:
        assert sweep.window_start_ns is not None
        window = Window(sweep.window_start_ns, sweep.window_end_ns)
        self.scope = scope
        self.begun_ns = begun_ns
        self.number = number
        self.is_over = False
        """Nothing is left of its list; or it has failed, and another pass goes on from its cursor."""
        self._line = line
        self._ledger = ledger
        self._sweep = sweep
        self._cursor = sweep.cursor
        self._pages = pages(lambda cursor: line.source.page(scope, window, cursor), sweep.cursor)
        self._said = said
        self._read = 0
        older_ns = begun_ns - nanoseconds(line.config.overlap)
        self._doubt = Doubt(line.source, older_ns, number=number, goes_on=sweep.cursor is not None)

    @property
    def has_read(self) -> bool:
        """Whether any page came."""
        return self._read > 0

    @property
    def is_again(self) -> bool:
        """Whether its stretch is to be read once more."""
        return self._doubt.remains

    def goes_on_from(self, sweep: Sweep) -> bool:
        """Whether this pass stands where the ledger says: another process may have read on, or put it back."""
        here = (self._cursor, self._sweep.window_start_ns)
        return not self.is_over and here == (sweep.cursor, sweep.window_start_ns)

    async def turn(self, now: Callable[[], int], found: Found) -> str | None:
        """Read some pages; gives why the list broke off, where it did.

        Raises what the source raises, LedgerUnusable.
        """
        self.is_over = True  # unless we come to the end of our turn
        async for page in self._pages:
            self._read += 1
            noted = await self._note(page, now())
            found.add(page, noted)
            report_problems(page, self._line.name, self.scope, self._said)
            self._cursor = page.cursor
            if page.broken_off:
                return page.broken_off
            if self._read % PAGES_A_TURN == 0 and page.cursor is not None:
                self.is_over = False
                break
        return None

    async def _note(self, page: Page, now_ns: int) -> Noted:
        # A run that came since the pass began may stand where the pass has been already, in a list of any order: what
        # is younger, or dated into the future, says nothing of how far we have come.
        times_ns = [row.time_ns for row in page.rows if row.time_ns is not None and row.time_ns <= self.begun_ns]
        return await asyncio.to_thread(
            self._ledger.note_page,
            self._line.account,
            self.scope.key,
            self._sweep.kind,
            rows_of(page.rows, self._line, now_ns, self.scope),
            cursor=page.cursor,
            high_ns=max(times_ns, default=None),
            is_complete=lambda noted: self._doubt.is_over(page, noted),
        )


async def pages(read: Callable[[Json | None], Awaitable[Page]], cursor: Json | None) -> AsyncIterator[Page]:
    """The pages from `cursor` on. Where the platform does not know it any more, the list is read from its start, once;
    so it is where it gives no answer to a cursor of a pass before, since that may be for the cursor's sake.

    Raises what `read` raises.
    """
    resumed, restarted = cursor is not None, False
    while True:
        try:
            page = await read(cursor)
        except (RunGone, RunUnreadable, SourceUnavailable) as error:
            is_of_all = isinstance(error, SourceRefused | SourceBusy)
            at_fault = not isinstance(error, SourceUnavailable) or (resumed and not is_of_all)
            if cursor is None or restarted or not at_fault:
                raise
            # All that was read so far is noted; reading it again only costs requests.
            cursor, restarted = None, True
            continue
        yield page
        cursor, resumed = page.cursor, False
        if cursor is None:
            return


def rows_of(listed: Sequence[Listed], line: Line, now_ns: int, scope: Scope) -> list[NewRow]:
    """The rows to note for a page; runs of agents that are not wanted are noted as skipped."""
    rows: list[NewRow] = []
    for row in listed:
        locator = row.locator
        agent_name = locator.agent_name or scope.agent_name or line.config.agent_names.get(locator.agent_id or "")
        if agent_name != locator.agent_name:
            locator = replace(locator, agent_name=agent_name)
        if not standing.is_wanted(locator.agent_id, agent_name, line.config):
            row = replace(row, skip_reason=UNWANTED)
        ref = RunRef(line.source.platform, line.source.tenant, row.run_id, locator)
        rows.append(standing.row_of(row, ref, line.config, now_ns, line.source.probe_open_after_seconds))
    return rows


def rows_of_ids(entries: Sequence[tuple[str, Locator]], line: Line, now_ns: int) -> list[NewRow]:
    """Rows for run ids that came from a file or standard input: due at once, whatever their state is."""
    refs = [RunRef(line.source.platform, line.source.tenant, run_id, locator) for run_id, locator in entries]
    return [
        NewRow(
            ref=ref,
            source=line.name,
            state=RowState.DUE,
            due_ns=now_ns,
            exports=standing.exported_statuses(ref, line.config),
        )
        for ref in refs
    ]


def report_problems(page: Page, source: str, scope: Scope, said: set[str]) -> list[str]:
    """Rows that could not be read are said aloud: they are runs we may never see. Gives those not `said` before."""
    if len(said) > PROBLEMS_REMEMBERED:
        said.clear()
    news = [problem for problem in page.problems if problem not in said]
    said.update(news)
    for problem in news:
        log.error(problem, action="row_unreadable", source=source, scope=scope.key)
    return news
