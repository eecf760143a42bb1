"""A trace drawn for the terminal: one line a span, with its bar on the run's time axis.

A solid bar was reported by the platform, a hatched one is inferred, a dotted one was moved or cut to fit. Without a
terminal the same text comes without colour.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from runspan.cli.screen import plain
from runspan.model import AttributeValue
from runspan.trace import Span, SpanEvent, Trace

BAR_CELLS = 40
BARS = {"reported": "█", "inferred": "▒", "clamped": "▓"}
INSTANT = "◆"
LEGEND = "█ reported  ▒ inferred  ▓ moved or cut to fit  ◆ event"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the drawing: a span, or an event on the span above it."""

    prefix: str
    name: str
    timing: str
    start_ns: int
    end_ns: int
    tokens: str = ""
    cost: str = ""
    error: str = ""
    is_event: bool = False


def draw(trace: Trace) -> RenderableType:
    """The whole drawing: a headline, the waterfall, the legend."""
    root = trace.root
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("span", no_wrap=True, overflow="ellipsis", max_width=46)
    table.add_column(_axis(root), no_wrap=True, width=BAR_CELLS)
    table.add_column("duration", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    for line in lines(trace):
        style = "red" if line.error else ("dim" if line.is_event else "")
        name = Text(line.prefix, style="dim") + Text(plain(line.name), style=style)
        if line.error:
            name.append(f"  {line.error}", style="bold red")
        mark = "~" if line.timing == "inferred" else ""
        duration = "" if line.is_event else mark + seconds(line.end_ns - line.start_ns)
        table.add_row(name, Text(bar(line, root), style=style or "cyan"), duration, line.tokens, line.cost)
    return Group(_headline(trace), table, Text(LEGEND, style="dim"))


def print_trace(trace: Trace, console: Console | None = None) -> None:
    """Draw on the terminal, or as plain text of 120 columns into a pipe."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=120, no_color=True, highlight=False)
    console.print(draw(trace))


def lines(trace: Trace) -> Iterator[Line]:
    """The lines in the order of the tree; siblings in the order of their starts."""
    children: dict[bytes | None, list[Span]] = {}
    for span in trace.spans:
        children.setdefault(span.parent_id, []).append(span)
    for siblings in children.values():
        siblings.sort(key=lambda span: (span.start_ns, -span.end_ns))
    yield _line(trace.root, "")
    yield from _below(trace.root, children, "")


def _below(span: Span, children: Mapping[bytes | None, list[Span]], indent: str) -> Iterator[Line]:
    under: list[Span | SpanEvent] = [*span.events, *children.get(span.span_id, [])]
    under.sort(key=lambda item: item.start_ns if isinstance(item, Span) else item.time_ns)
    for index, item in enumerate(under):
        last = index == len(under) - 1
        prefix = indent + ("└─ " if last else "├─ ")
        if isinstance(item, Span):
            yield _line(item, prefix)
            yield from _below(item, children, indent + ("   " if last else "│  "))
        else:
            yield Line(prefix, item.name, "", item.time_ns, item.time_ns, is_event=True)


def _line(span: Span, prefix: str) -> Line:
    attributes = span.attributes
    return Line(
        prefix=prefix,
        name=span.name,
        timing=str(attributes.get("runspan.timing", "reported")),
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        tokens=tokens(attributes),
        cost=cost(attributes),
        error=str(attributes.get("error.type", "")) if span.error is not None else "",
    )


def bar(line: Line, root: Span) -> str:
    """The line's bar on the root's axis, `BAR_CELLS` wide; what has no length is one mark."""
    whole_ns = max(root.end_ns - root.start_ns, 1)
    first = (line.start_ns - root.start_ns) * BAR_CELLS // whole_ns
    last = -(-(line.end_ns - root.start_ns) * BAR_CELLS // whole_ns)
    first = min(max(first, 0), BAR_CELLS - 1)
    length = max(min(last, BAR_CELLS) - first, 1)
    mark = INSTANT if line.is_event else BARS.get(line.timing, BARS["reported"])
    return " " * first + mark * length


def tokens(attributes: Mapping[str, AttributeValue]) -> str:
    """`850 → 120` where both sides are known, else the total, else nothing."""
    for into, out in (
        ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
        ("runspan.run.input_tokens", "runspan.run.output_tokens"),
    ):
        if into in attributes or out in attributes:
            return f"{attributes.get(into, '?')} → {attributes.get(out, '?')}"
    for total in ("runspan.run.total_tokens", "runspan.usage.total_tokens"):
        if total in attributes:
            return str(attributes[total])
    return ""


def cost(attributes: Mapping[str, AttributeValue]) -> str:
    """`0.0234 usd`, `0.85 credits`, or nothing."""
    for key, amount in attributes.items():
        for prefix in ("runspan.run.cost.", "runspan.cost."):
            unit = key.removeprefix(prefix)
            if unit != key and isinstance(amount, float | int) and not isinstance(amount, bool):
                return f"{amount:.6g} {unit}"
    return ""


def seconds(duration_ns: int) -> str:
    """A duration as people read it: `812 ms`, `19.188 s`, `2m15s`."""
    if duration_ns < 1_000_000_000:
        return f"{duration_ns / 1e6:.4g} ms"
    if duration_ns < 120_000_000_000:
        return f"{duration_ns / 1e9:.3f} s"
    minutes, rest_ns = divmod(duration_ns, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{rest_ns // 1_000_000_000:02d}s"


def _axis(root: Span) -> str:
    whole = seconds(root.end_ns - root.start_ns)
    return "0" + whole.rjust(BAR_CELLS - 1)


def _headline(trace: Trace) -> Text:
    attributes = trace.root.attributes
    facts = [
        str(trace.resource.get("service.name", "")),
        str(attributes.get("runspan.run.status", "")),
        str(attributes.get("runspan.run.stop_reason", "")),
        f"queued {attributes['runspan.run.queue_seconds']} s" if "runspan.run.queue_seconds" in attributes else "",
        trace.root.error or "",
    ]
    text = Text(f"run {plain(trace.ref.run_id)}", style="bold")
    text.append(
        "  " + " · ".join(plain(fact) for fact in facts if fact), style="red" if trace.root.error is not None else ""
    )
    text.append(f"\ntrace {trace.trace_id.hex()}", style="dim")
    return text
