"""Figures of a span as people read them. What the platform did not say gives an empty text."""

from collections.abc import Mapping

from runspan.model import AttributeValue

_MICROSECOND_NS = 1_000
_MILLISECOND_NS = 1_000_000
_SECOND_NS = 1_000_000_000
_TOKENS = ("runspan.run.", "gen_ai.usage.", "runspan.usage.")
_TOKENS_APART = "runspan.usage.reported_"
_COSTS = ("runspan.run.cost.", "runspan.cost.")
_COSTS_APART = "runspan.cost.reported_"


def duration(duration_ns: int) -> str:
    """`47 µs`, `812 ms`, `19.188 s`, `2m15s`, `1h02m03s`. A single nanosecond stands for no length at all: `0 ms`."""
    if duration_ns < _MICROSECOND_NS:
        return "0 ms"
    if duration_ns < _MILLISECOND_NS:
        return f"{duration_ns // _MICROSECOND_NS} µs"
    if duration_ns < _SECOND_NS:
        return f"{min(duration_ns / _MILLISECOND_NS, 999):.3g} ms"
    if duration_ns < 120 * _SECOND_NS:
        return f"{duration_ns // _MILLISECOND_NS / 1000:.3f} s"
    minutes, seconds = divmod(duration_ns // _SECOND_NS, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m{seconds:02d}s" if hours else f"{minutes}m{seconds:02d}s"


def tokens(attributes: Mapping[str, AttributeValue]) -> str:
    """`850 → 120` where a side is known, else the total; `(850 → 120)` where the run's total counts instead."""
    apart = _tokens(attributes, _TOKENS_APART)
    return f"({apart})" if apart else next(filter(None, (_tokens(attributes, prefix) for prefix in _TOKENS)), "")


def tokens_of_run(attributes: Mapping[str, AttributeValue]) -> str:
    """`900 → 120 tokens (40 unattributed)`; `1100 tokens (900 → 120)` where that is not the sum."""
    counted = _tokens(attributes, "runspan.run.")
    into, out, total, unattributed = (
        attributes.get(f"runspan.run.{name}_tokens") for name in ("input", "output", "total", "unattributed")
    )
    is_sum = isinstance(into, int) and isinstance(out, int) and into + out == total
    notes = [f"{unattributed} unattributed"] if unattributed else []
    if total is not None and not is_sum and counted != str(total):
        notes.insert(0, counted)
        counted = str(total)
    return f"{counted} tokens" + (f" ({', '.join(notes)})" if notes else "") if counted else ""


def cost(attributes: Mapping[str, AttributeValue]) -> str:
    """`0.0234 usd`, `0.85 credits`; both where both are known. `(0.4 usd)` where the run's cost counts instead."""
    apart = _cost(attributes, _COSTS_APART)
    return f"({apart})" if apart else next(filter(None, (_cost(attributes, prefix) for prefix in _COSTS)), "")


def _tokens(attributes: Mapping[str, AttributeValue], prefix: str) -> str:
    into, out, total = (attributes.get(f"{prefix}{part}_tokens") for part in ("input", "output", "total"))
    if into is None and out is None:
        return "" if total is None else str(total)
    return f"{'?' if into is None else into} → {'?' if out is None else out}"


def _cost(attributes: Mapping[str, AttributeValue], prefix: str) -> str:
    return ", ".join(
        f"{amount:.6g} {name.removeprefix(prefix)}"
        for name, amount in attributes.items()
        if name.startswith(prefix) and isinstance(amount, float)
    )
