"""Figures of a span as people read them. What the platform did not say gives an empty text."""

from collections.abc import Iterator, Mapping

from runspan.model import AttributeValue

_MICROSECOND_NS = 1_000
_MILLISECOND_NS = 1_000_000
_SECOND_NS = 1_000_000_000
_TOKENS = (
    ("runspan.run.input_tokens", "runspan.run.output_tokens"),
    ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
)
_TOTALS = ("runspan.run.total_tokens", "runspan.usage.total_tokens")
_COSTS = ("runspan.run.cost.", "runspan.cost.")


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
    """`850 → 120` where a side is known, else the total."""
    for into, out in _TOKENS:
        if into in attributes or out in attributes:
            return f"{attributes.get(into, '?')} → {attributes.get(out, '?')}"
    return next((str(attributes[total]) for total in _TOTALS if total in attributes), "")


def cost(attributes: Mapping[str, AttributeValue]) -> str:
    """`0.0234 usd`, `0.85 credits`; both where both are known."""
    return ", ".join(f"{amount:.6g} {unit}" for unit, amount in _amounts(attributes))


def _amounts(attributes: Mapping[str, AttributeValue]) -> Iterator[tuple[str, float]]:
    for name, amount in attributes.items():
        unit = next((name.removeprefix(prefix) for prefix in _COSTS if name.startswith(prefix)), None)
        if unit is not None and isinstance(amount, float):
            yield unit.removeprefix("reported_"), amount
