"""What we measure of ourselves, for /metrics and the status page.

Rows are counted in the ledger when they are asked for, so the figures hold over restarts and over all processes.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from runspan.ledger import Ledger, RowState

if TYPE_CHECKING:
    from runspan.pipeline.assembly import Pipeline
    from runspan.pipeline.outbox import Parcel


class Metrics(Collector):
    """One registry; `watch` ties it to a running pipeline."""

    def __init__(self, ledger: Ledger) -> None:
        self.registry = CollectorRegistry()
        self._ledger = ledger
        self._pipeline: Pipeline | None = None
        self._marked = Counter(
            "runspan_runs_marked",
            "Runs marked in the ledger after a delivery was tried, by what became of them.",
            ["source", "state"],
            registry=self.registry,
        )

    def watch(self, pipeline: "Pipeline") -> None:
        """Report on this pipeline from now on."""
        self._pipeline = pipeline
        self.registry.register(self)

    def on_marked(self, parcel: "Parcel", state: RowState) -> None:
        """Count one run that was marked."""
        self._marked.labels(parcel.claim.source, state.value).inc()

    def expose(self) -> bytes:
        """All figures in the OpenMetrics text form."""
        return openmetrics.generate_latest(self.registry)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape; an empty answer keeps registering from reading the ledger."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The state of things now. Reads the ledger."""
        pipeline = self._pipeline
        assert pipeline is not None
        now_ns = pipeline.now()

        rows = GaugeMetricFamily("runspan_rows", "Runs in the ledger.", labels=["source", "state"])
        counted: dict[tuple[str, str], int] = {}
        for count in self._ledger.counts():
            label = (count.source, count.state.value)
            counted[label] = counted.get(label, 0) + count.rows
        for (source, state), number in sorted(counted.items()):
            rows.add_metric([source, state], number)
        yield rows

        oldest = GaugeMetricFamily(
            "runspan_oldest_due_seconds", "For how long the oldest due run has been waiting.", labels=["source"]
        )
        paused = GaugeMetricFamily("runspan_source_paused", "1 while a source is left alone.", labels=["source"])
        success = GaugeMetricFamily(
            "runspan_source_last_success_timestamp_seconds", "When a source last answered.", labels=["source"]
        )
        for line in pipeline.lines:
            due_ns = self._ledger.oldest_due_ns(line.account)
            oldest.add_metric([line.name], max(0.0, (now_ns - due_ns) / 1e9) if due_ns is not None else 0.0)
            paused.add_metric([line.name], float(line.health.paused_seconds > 0))
            if line.health.last_success_ns is not None:
                success.add_metric([line.name], line.health.last_success_ns / 1e9)
        yield from (oldest, paused, success)

        healthy = GaugeMetricFamily("runspan_destination_healthy", "1 while the destination takes traces.")
        healthy.add_metric([], float(pipeline.outbox.delivery.healthy))
        yield healthy
        yield CounterMetricFamily(
            "runspan_repeats_differing",
            "Runs that were sent again with another body than before, since the platform had changed it.",
            value=pipeline.outbox.differing,
        )
        created = GaugeMetricFamily("runspan_ledger_created", "1 if this process had to create its ledger.")
        created.add_metric([], float(self._ledger.created))
        yield created
