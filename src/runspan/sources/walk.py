"""How far a list has been paged, and what its pages tell of the way: the page to ask for next, its end, or a fault.

Pure. Lists end falsely (an empty page behind a cursor that was the id of a deleted run), go in circles, or do not end:
a walk holds just enough of the pages before to tell, and is kept beside the rows as its cursor.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, cast

from runspan.model import Json
from runspan.sources.base import Listed, Window
from runspan.sources.fields import canonical

MAX_PAGES = 100_000
"""No list is longer; one that never ends is."""
AGENT_PAGES = 400
"""No list of agents is longer. It is read before anything else is, so it must not go on for hours."""
REPEATS_BELIEVED = 3
"""So many times an answer may be the one before: more is a list that goes nowhere."""
EMPTY_PAGES = 1000
"""So many pages in a row may be empty, where a platform filters what it has paged."""
DOUBTS = 5
"""So often a page is read again because what it promised was not there."""


class Shown(NamedTuple):
    """What a walk looks at in a row: its id, and its place on the list's time axis."""

    id: str
    time_ns: int | None = None


def shown(rows: Iterable[Listed]) -> list[Shown]:
    """Rows of a list of runs, as a walk looks at them."""
    return [Shown(row.run_id, row.time_ns) for row in rows]


def broken_off(where: str, fault: str | None) -> str | None:
    """The line that says of a list why it leads no further, where it does not."""
    return f"{where} breaks off, {fault}" if fault else None


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a list goes on, after some pages of it."""

    cursor: str | None = None
    """What to ask with next; None: the first page."""
    pages: int = 0
    mark: str | None = None
    """The cursor and the rows of an earlier page, renewed at each power of two: Brent's way of telling a circle while
    keeping only one old page."""
    marked_rows: str | None = None
    repeats: int = 0
    empty: int = 0
    """Pages without rows, in a row."""
    before: str | None = None
    """What the page before was asked with."""
    last_id: str | None = None
    last_ns: int | None = None
    """The last row that was seen, and its time."""
    last_count: int = 0
    """How many rows that page had."""
    promised: bool = False
    """Whether the page before had rows, and led on."""
    doubts: int = 0
    doubted_id: str | None = None
    """The last row behind which nothing was, when that was doubted."""
    agreed: int = 0
    """How often it was the last row again."""
    since: int = 0
    """Pages with rows since then."""
    most_rows: int | None = None
    """Fewer rows are to be asked for, so that what is known to be there is behind a cursor again."""

    @classmethod
    def resumed(cls, state: Json | None) -> "Walk":
        """From what `state` gave; None begins at the first page."""
        return cls(**cast("Mapping[str, Any]", state)) if state is not None else cls()

    def rows(self, wished: int) -> int:
        """How many rows to ask for, where `wished` are the most."""
        return min(wished, self.most_rows or wished)

    @property
    def state(self) -> Json:
        """As JSON, to be kept between pages."""
        return {field.name: told for field in fields(self) if (told := getattr(self, field.name)) != field.default}

    def has_left(self, window: Window, rows: Sequence[Shown]) -> bool:
        """Whether a list that should be newest first has come to what is older than the window.

        One that is oldest first begins with that: only a page that descends tells them apart.
        """
        times_ns = [row.time_ns for row in rows if row.time_ns is not None]
        if not times_ns or max(times_ns) >= window.start_ns:
            return False
        return (times_ns[0] if self.last_ns is None else self.last_ns) > times_ns[-1]

    def behind(
        self,
        rows: Sequence[Shown],
        token: str | None,
        more: bool | None,
        *,
        most_pages: int | None = None,
        known_end: str | None = None,
        times: int = 1,
    ) -> "tuple[Walk | None, str | None]":
        """Where the list goes on behind a page of `rows`, or why it leads no further; neither at its end.

        The page named `token` to go on with, and said whether there is `more`, as far as it did. `known_end`: the last
        row of a walk before, behind which nothing was. `times`: so often it must be asked again that it is the last.
        """
        if token is None and more:
            return None, "it says that there is more, and not where"
        # Some name the cursor they were asked with where there is nothing behind it yet.
        if token is None or more is False or (token == self.cursor and not rows and not more):
            return self.at_the_end(rows, known_end, times=times)
        page = _digest(rows) if rows else None
        is_repeat = token == self.cursor or (page is not None and page == self.marked_rows)
        onward = replace(
            self,
            cursor=token,
            pages=self.pages + 1,
            repeats=self.repeats + is_repeat,
            empty=0 if rows else self.empty + 1,
            before=self.cursor,
            last_id=rows[-1].id if rows else self.last_id,
            last_ns=rows[-1].time_ns if rows else self.last_ns,
            last_count=len(rows) or self.last_count,
            since=self.since + bool(rows),
            # A page without rows that leads on is one of a platform that filters what it has paged: it promises none.
            promised=bool(rows),
            most_rows=self.most_rows if self.since < 1 else None,
        )
        if onward.repeats > REPEATS_BELIEVED or (token == self.mark and token != self.cursor):
            return None, "its pages run in a circle"
        if onward.pages >= (most_pages or MAX_PAGES) or onward.empty >= EMPTY_PAGES:
            return None, f"it does not end in {onward.pages} pages"
        if onward.pages & self.pages == 0 and token != self.cursor:
            onward = replace(onward, mark=token, marked_rows=page, repeats=0)
        return onward, None

    def at_the_end(
        self, rows: Sequence[Shown], known_end: str | None = None, *, times: int = 1
    ) -> "tuple[Walk | None, str | None]":
        """As `behind` a page that leads no further."""
        if rows or not self.promised or (self.last_id is not None and self.last_id == known_end):
            return None, None
        # Another page was promised, and there is none. It may have been the last one; or its cursor is worth nothing,
        # for ever (the run that it was is deleted) or for now. So the page before is read again, by halves: what was
        # its end must be found behind its middle.
        agreed = self.agreed + (self.last_id is not None and self.last_id == self.doubted_id)
        if agreed >= times:
            return None, None
        if self.doubts >= DOUBTS:
            return None, "pages that it promises are empty"
        is_news = self.doubted_id is None or self.since > 1
        again = Walk(
            self.before,
            self.pages,
            promised=True,
            doubts=self.doubts + 1,
            doubted_id=self.last_id if is_news else self.doubted_id,
            agreed=agreed,
            most_rows=max(1, self.last_count // 2) if self.last_count else None,
        )
        return again, None


def _digest(rows: Iterable[Shown]) -> str:
    return hashlib.sha256(canonical(sorted(row.id for row in rows)).encode()).hexdigest()[:16]
