"""The layout of a drawn trace: names, bars and figures in columns, no wider than the terminal, and no figure cut."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from runspan.cli import figures
from runspan.cli.rows import Row
from runspan.trace import Span

WIDEST_BAR, NARROWER_BAR, NARROWEST_BAR = 48, 16, 8
WIDEST_NAME, NARROWER_NAME, NARROWEST_NAME = 60, 24, 16
"""With the tree's lines before it. Names give way until a bar is narrower, then both do."""
SHORTEST_NAME = 8
"""Of a name alone, between the tree's lines and what is told beside it."""
NARROWEST_ERROR = 24
"""An error stands under its row unless there is less room than that."""
DROPPED = ("said", "tokens", "bar", "cost", "duration")
"""What is dropped, one after the other, where there is no room for all."""


class Layout:
    """The columns and what stands in them."""

    def __init__(self, rows: Sequence[Row], root: Span, width: int) -> None:
        self._root = root
        self._width = width
        self._numbers = _numbers(rows)
        has_bar = True
        for dropped in DROPPED:
            least = min(_widest(rows), NARROWEST_NAME) + (1 + NARROWEST_BAR if has_bar else 0)
            if least + _cells_of(self._numbers) <= width:
                break
            has_bar = has_bar and dropped != "bar"
            self._numbers.pop(dropped, None)
        room = width - _cells_of(self._numbers) - (1 if has_bar else 0)
        self._rows = rows
        self._names = _share_of_names(_widest(rows), room) if has_bar else room
        if self._names < min(_widest(rows), WIDEST_NAME):
            self._rows = [replace(row, name=row.name.removeprefix("execute_tool ")) for row in rows]
        widest = _widest(self._rows)
        self._names = _share_of_names(widest, room) if has_bar else min(widest, room)
        self._bar = min(room - self._names, WIDEST_BAR) if has_bar else 0

    @property
    def shown(self) -> Sequence[str]:
        """The columns that there is room for."""
        return [*(["bar"] if self._bar else []), *self._numbers]

    def lines(self, console: Console) -> Iterator[Text]:
        """The heading, and every row with its error below."""
        heading = Text(f"{' ' * self._names}{self._axis()}{self._cells(self._numbers)}", "dim")
        heading.rstrip()
        if heading:
            yield heading
        for row in self._rows:
            style = "red" if row.error is not None else "yellow" if row.doubt else "" if row.is_span else "dim"
            prefix, title = _fitted(row, self._names)
            line = Text.assemble(
                (prefix, "dim"),
                (title, style),
                (self._bar_of(row), style or "cyan"),
                self._cells([getattr(row, head) for head in self._numbers]),
            )
            line.rstrip()
            yield line
            if row.error is not None:
                yield from self._error(row, console)

    def _cells(self, texts: Iterable[str]) -> str:
        columns = zip(texts, self._numbers.values(), strict=True)
        return "".join(" " * (2 + width - cell_len(text)) + text for text, width in columns)

    def _axis(self) -> str:
        whole = figures.duration(self._root.end_ns - self._root.start_ns)
        axis = f"0{whole.rjust(self._bar - 1)}" if len("0 ") + len(whole) <= self._bar else " " * self._bar
        return f" {axis}" if self._bar else ""

    def _bar_of(self, row: Row) -> str:
        """The row's bar on the root's axis; what has no length is one mark. Padded to the column's width."""
        if not self._bar:
            return ""
        whole_ns = max(self._root.end_ns - self._root.start_ns, 1)
        first = (row.start_ns - self._root.start_ns) * self._bar // whole_ns
        last = -(-(row.end_ns - self._root.start_ns) * self._bar // whole_ns)
        first = min(max(first, 0), self._bar - 1)
        length = max(min(last, self._bar) - first, 1)
        return " " + (" " * first + row.mark * length).ljust(self._bar)

    def _error(self, row: Row, console: Console) -> Iterator[Text]:
        below = row.below if self._width - cell_len(row.below) >= NARROWEST_ERROR else ""
        told = Text(row.error or "").wrap(console, max(self._width - cell_len(below) - len("✗ "), 1))
        for number, line in enumerate(told):
            yield Text.assemble((below + ("  " if number else "✗ "), "dim"), (line.plain.rstrip(), "bold red"))


def _numbers(rows: Sequence[Row]) -> dict[str, int]:
    """The columns of figures that are not empty, and how wide they are."""
    # What only the run itself has spent stands in the line of totals.
    steps = [row for row in rows if row.prefix]
    filled = {
        "duration": True,
        "said": any(row.said for row in rows),
        "tokens": any(row.tokens for row in steps),
        "cost": any(row.cost for row in steps),
    }
    return {
        head: max(map(cell_len, [head, *(getattr(row, head) for row in rows)]))
        for head, is_filled in filled.items()
        if is_filled
    }


def _cells_of(numbers: Mapping[str, int]) -> int:
    return sum(2 + cells for cells in numbers.values())


def _widest(rows: Sequence[Row]) -> int:
    return max(cell_len(row.prefix + row.title) for row in rows)


def _share_of_names(widest: int, room: int) -> int:
    """How much is for the names of what they and the bar have together."""
    whole, narrower, narrowest = (min(widest, most) for most in (WIDEST_NAME, NARROWER_NAME, NARROWEST_NAME))
    return max(min(whole, room - NARROWER_BAR), min(narrower, room - NARROWEST_BAR), narrowest)


def _fitted(row: Row, cells: int) -> tuple[str, str]:
    """The lines of the tree, and the title: together as wide as the column. The name is cut, not what is beside it."""
    prefix, title = row.prefix, row.title
    if cell_len(prefix + title) > cells:
        prefix = prefix[-max(cells - SHORTEST_NAME, len("├─ ")) :]
        beside = row.title.removeprefix(row.name)
        room = max(cells - cell_len(prefix + beside), SHORTEST_NAME)
        title = cut(row.name, room) + beside
    fitted = set_cell_size(cut(prefix + title, cells), cells)
    return fitted[: len(prefix)], fitted[len(prefix) :]


def cut(text: str, cells: int) -> str:
    """The text, or its beginning with an ellipsis: no wider than so many cells."""
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"
