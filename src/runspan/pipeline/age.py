"""How old runs may be for their backend to show them, and what is said of older ones."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from runspan.config import DestinationConfig
from runspan.otlp.presets import PRESETS
from runspan.quantities import format_duration, nanoseconds

log = structlog.get_logger()

CATCH_UP_OVER = timedelta(hours=1)
"""After so long without a run that is too old, the next one begins another catch-up."""
TOLERANCE = timedelta(minutes=1)
"""`--since 72h` was 72 hours ago when it was typed."""


@dataclass(frozen=True, slots=True)
class AgeLimit:
    """What a backend shows: `age` back from now. `advice` is what to change there to have it show more."""

    backend: str
    age: timedelta
    advice: str

    def is_too_old(self, time_ns: int, now_ns: int) -> bool:
        """Whether what took place then is not shown any more."""
        return time_ns < now_ns - nanoseconds(self.age + TOLERANCE)

    def __str__(self) -> str:
        return f"{self.backend} may not show what is older than {format_duration(self.age)}; {self.advice}"


def age_limit(destination: DestinationConfig) -> AgeLimit | None:
    """The limit of a destination: as configured, else what its preset knows; None where there is none.

    A preset speaks of a backend, which a file or an SDK exporter does not tell.
    """
    preset, age = PRESETS[destination.preset], destination.max_span_age
    if age is None and destination.is_receiver and preset.max_span_age_seconds is not None:
        age = timedelta(seconds=preset.max_span_age_seconds)
    if not age:
        return None
    raised = "destination.max_span_age says how far back it shows them (0s: as far as one likes)"
    return AgeLimit(preset.name, age, f"{preset.age_advice}; {raised}" if preset.age_advice else raised)


class OldRuns:
    """Says of runs that are too old for their backend, once for each catch-up, that they are sent all the same."""

    def __init__(self, limit: AgeLimit | None, now: Callable[[], int]) -> None:
        self.limit = limit
        self._now = now
        self._last_ns: int | None = None

    def about_to_send(self, run_id: str, ended_ns: int) -> None:
        """A run that ended then is about to be sent."""
        if self.limit and self.limit.is_too_old(ended_ns, self._now()):
            self.warn(f"runs are sent that ended long ago: {self.limit}", run=run_id)

    def warn(self, text: str, **fields: str) -> None:
        """Say this, unless as much has been said in this catch-up."""
        now_ns, last_ns = self._now(), self._last_ns
        self._last_ns = now_ns
        if last_ns is None or now_ns - last_ns > nanoseconds(CATCH_UP_OVER):
            log.warning(text, action="older_than_backend_keeps", **fields)
