"""Paging: a walk sees every row that was there all the while, or says why not, whatever a platform makes of cursors."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.model import Json
from runspan.sources.base import Window
from runspan.sources.walk import AGENT_PAGES, DOUBTS, EMPTY_PAGES, Shown, Walk

PAGE_SIZE = 3
Answer = tuple[list[Shown], str | None, bool | None]


@dataclass
class Platform:
    """A list, newest first, whose cursors are ids of rows, as case.dev's are. One that is deleted leads nowhere."""

    rows: list[str]
    always_names_a_cursor: bool = False
    says_more_of_a_full_page: bool = False
    asked: list[str | None] = field(default_factory=list)

    def page(self, cursor: str | None, size: int) -> Answer:
        self.asked.append(cursor)
        if cursor is not None and cursor not in self.rows:
            return [], None, False
        first = 0 if cursor is None else self.rows.index(cursor) + 1
        some = self.rows[first : first + size]
        more = first + size < len(self.rows) or (self.says_more_of_a_full_page and len(some) == size)
        if self.always_names_a_cursor:
            return [Shown(row) for row in some], some[-1] if some else None, None
        return [Shown(row) for row in some], some[-1] if more else None, more


def walked(
    page: Callable[[str | None, int], Answer], *, most_pages: int | None = None, size: int = PAGE_SIZE
) -> tuple[list[str], str | None]:
    """The ids that a walk came upon, and why it broke off, its state going through JSON as in the ledger."""
    seen: list[str] = []
    state: Json | None = None
    while True:
        walk = Walk.resumed(json.loads(json.dumps(state)))
        rows, token, more = page(walk.cursor, walk.rows(size))
        seen += [row.id for row in rows]
        onward, fault = walk.behind(rows, token, more, most_pages=most_pages)
        if onward is None:
            return seen, fault
        state = onward.state


numbers = st.integers(0, 12).map(lambda count: [f"run-{number}" for number in range(count)])
habits = st.fixed_dictionaries({"always_names_a_cursor": st.booleans(), "says_more_of_a_full_page": st.booleans()})


class TestTheEnd:
    @given(numbers, habits)
    def test_every_row_is_seen_and_the_end_costs_little(self, rows: list[str], habits: dict[str, bool]) -> None:
        platform = Platform(rows, **habits)
        seen, fault = walked(platform.page)
        assert (set(seen), fault) == (set(rows), None)
        assert len(platform.asked) <= len(rows) // PAGE_SIZE + 6
        if not any(habits.values()):
            assert seen == rows, "no row is asked for twice"

    @given(numbers, habits, st.lists(st.lists(st.integers(0, 11), max_size=4), max_size=12))
    def test_rows_that_are_deleted_while_it_walks_hide_no_others(
        self, rows: list[str], habits: dict[str, bool], deleted: list[list[int]]
    ) -> None:
        platform, steps = Platform(list(rows), **habits), iter(deleted)

        def page(cursor: str | None, size: int) -> Answer:
            answer = platform.page(cursor, size)
            gone = {f"run-{number}" for number in next(steps, [])}
            platform.rows = [row for row in platform.rows if row not in gone]
            return answer

        seen, fault = walked(page)
        assert set(platform.rows) <= set(seen) or fault is not None

    @pytest.mark.parametrize("page", range(1, 5))
    @pytest.mark.parametrize("pages_empty", [1, 2])
    def test_a_page_that_is_empty_for_once_is_not_the_end(self, page: int, pages_empty: int) -> None:
        platform = Platform([f"run-{number}" for number in range(12)])

        def ask(cursor: str | None, size: int) -> Answer:
            answer = platform.page(cursor, size)
            return ([], None, False) if page < len(platform.asked) <= page + pages_empty else answer

        seen, fault = walked(ask)
        if page < 4:  # behind the fourth nobody asks
            assert (set(seen), fault) == (set(platform.rows), None)

    def test_a_list_that_became_empty_meanwhile_is_no_list_read_to_its_end(self) -> None:
        platform = Platform([f"run-{number}" for number in range(12)])

        def ask(cursor: str | None, size: int) -> Answer:
            return platform.page(cursor, size) if len(platform.asked) < 2 else ([], None, False)

        assert walked(ask) == (platform.rows[:6], "pages that it promises are empty")

    @pytest.mark.parametrize("size", [2, 3, 50])
    def test_where_no_cursor_leads_anywhere_the_first_page_is_not_the_end(self, size: int) -> None:
        platform = Platform([f"run-{number}" for number in range(3 * size)], says_more_of_a_full_page=True)

        def ask(cursor: str | None, rows: int) -> Answer:
            return platform.page(None, min(size, rows)) if cursor is None else ([], None, False)

        seen, fault = walked(ask, size=size)
        assert (set(seen), fault) == (set(platform.rows[:size]), "pages that it promises are empty")
        assert len(platform.asked) <= 1 + DOUBTS

    @pytest.mark.parametrize("matching", [[], [0], [1], [3]])
    def test_a_platform_that_filters_what_it_has_paged_is_believed(self, matching: list[int]) -> None:
        """It pages all it has, and shows of each page what was asked for."""
        asked = 0

        def page(cursor: str | None, size: int) -> Answer:
            nonlocal asked
            asked += 1
            number = int(cursor or 0)
            rows = [Shown(f"run-{number}")] if number in matching else []
            return rows, str(number + 1) if number < 3 else None, number < 3

        assert walked(page) == ([f"run-{number}" for number in matching], None)
        assert asked == 4

    def test_an_empty_page_that_names_its_own_cursor_is_the_end(self) -> None:
        """There it is to be asked again for what comes."""
        platform = Platform([f"run-{number}" for number in range(7)])

        def page(cursor: str | None, size: int) -> Answer:
            rows, _, _ = platform.page(cursor, size)
            return rows, rows[-1].id if rows else cursor, None

        seen, fault = walked(page)
        assert (set(seen), fault) == (set(platform.rows), None)

    def test_one_empty_answer_behind_a_short_page_does_not_make_all_others_short(self) -> None:
        platform = Platform([f"run-{number}" for number in range(300)])

        def page(cursor: str | None, size: int) -> Answer:
            first = 1 if cursor is None else size
            answer = platform.page(cursor, first)
            return ([], None, False) if len(platform.asked) == 2 else answer

        seen, fault = walked(page, size=50)
        assert (set(seen), fault) == (set(platform.rows), None)
        assert len(platform.asked) < 15

    def test_more_and_no_word_where_is_a_fault(self) -> None:
        assert walked(lambda *_: ([Shown("a")], None, True))[1] == "it says that there is more, and not where"


class TestNoEnd:
    @pytest.mark.parametrize("period", [1, 2, 5])
    def test_the_same_pages_over_and_over_are_left_though_each_cursor_is_new(self, period: int) -> None:
        asked = 0

        def page(cursor: str | None, size: int) -> Answer:
            nonlocal asked
            asked += 1
            return [Shown(f"run-{asked % period}-{number}") for number in range(3)], f"c{asked}", True

        assert walked(page)[1] == "its pages run in a circle"
        assert asked <= 8 * (period + 3)

    def test_a_page_that_all_rows_move_on_to_is_no_circle(self) -> None:
        """As many new runs as a page holds, between two pages that are counted from the newest."""
        pages = iter([["c", "d"], ["c", "d"], ["e", "f"], ["e", "f"], ["g", "h"]])
        number = 0

        def page(cursor: str | None, size: int) -> Answer:
            nonlocal number
            number += 1
            return [Shown(id) for id in next(pages)], str(number), number < 5

        seen, fault = walked(page)
        assert ("h" in seen, fault) == (True, None)

    def test_pages_without_rows_are_left(self) -> None:
        asked = 0

        def page(cursor: str | None, size: int) -> Answer:
            nonlocal asked
            asked += 1
            return [], f"c{asked}", True

        assert walked(page)[1] == f"it does not end in {EMPTY_PAGES} pages"
        asked = 0
        assert walked(page, most_pages=AGENT_PAGES)[1] == f"it does not end in {AGENT_PAGES} pages"


class TestOrder:
    @pytest.mark.parametrize(
        ("pages", "left"),
        [
            ([[9, 8]], [False]),
            ([[9, 4], [4, 3]], [False, True]),
            ([[3, 2]], [True]),
            ([[2, 3]], [False]),
            ([[1, 2], [3, 4], [5, 9]], [False, False, False]),
            ([[3]], [False]),
            ([[3], [2]], [False, True]),
            ([[2], [3]], [False, False]),
            ([[3, 3], [3, 3]], [False, False]),
            ([[3, None, 2]], [True]),
            ([[None]], [False]),
            ([[9, 8], [2, 3]], [False, True]),
        ],
        ids=str,
    )
    def test_only_a_list_that_descends_has_left_the_window(
        self, pages: list[list[int | None]], left: list[bool]
    ) -> None:
        walk: Walk | None = Walk()
        said: list[bool] = []
        for number, times in enumerate(pages):
            assert walk is not None
            rows = [Shown(f"{number}-{place}", time_ns) for place, time_ns in enumerate(times)]
            said.append(walk.has_left(Window(5), rows))
            walk, _ = walk.behind(rows, f"c{number}", True)
        assert said == left
