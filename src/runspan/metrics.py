"""What we measure of ourselves, for /metrics and the status page; what we measure of runs stands in `run_metrics`.

Rows are counted in the ledger when they are asked for, so the figures hold over restarts and over all processes.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry, Counter, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from runspan.ledger import Ledger, RowState
from runspan.run_metrics import RunMetrics

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
        self._runs = RunMetrics(self.registry)

    def watch(self, pipeline: "Pipeline") -> None:
        """Report on this pipeline from now on."""
        self._pipeline = pipeline
        self.registry.register(self)

    def on_marked(self, parcel: "Parcel", state: RowState) -> None:
        """Count one run that was marked."""
        source, summary = parcel.claim.source, parcel.summary
        self._marked.labels(source, state.value).inc()
        if state is RowState.EXPORTED and not _is_backfilled(parcel):
            status = summary.status or ""
            self._runs.count(parcel.encoded.trace, source=source, status=status, error_type=summary.error_type)

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """All figures, and the type of their text: OpenMetrics, which has the exemplars, unless `accept` prefers the
        classic form.
        """
        if _weight(accept, "text/plain") > _weight(accept, "application/openmetrics-text"):
            return exposition.generate_latest(self.registry), exposition.CONTENT_TYPE_PLAIN_0_0_4
        text = cast("bytes", openmetrics.generate_latest(self.registry))  # pyright: ignore[reportUnknownMemberType]
        return text, openmetrics.CONTENT_TYPE_LATEST

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
            paused.add_metric([line.name], float(line.listing.paused_seconds > 0 or line.fetching.paused_seconds > 0))
            if line.last_success_ns is not None:
                success.add_metric([line.name], line.last_success_ns / 1e9)
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


def _is_backfilled(parcel: "Parcel") -> bool:
    """Whether a backfill brought the run up, though a daemon sent it: old runs all at once would fake a spike.

    A run that ended after it was first seen is news, whoever saw it; unless it is sent again.
    """
    claim, ended_ns = parcel.claim, parcel.summary.ended_ns
    return claim.job is not None and (claim.sent or ended_ns is None or ended_ns <= claim.first_seen_ns)


def _weight(accept: str, media_type: str) -> float:
    """How much an Accept header wants a type: its largest q, 0 where it does not name the type."""
    weights = [0.0]
    for offer in accept.lower().split(","):
        name, *parameters = [part.strip() for part in offer.split(";")]
        if name == media_type:
            found = [match[1] for part in parameters if (match := re.fullmatch(r"q=([01](?:\.[0-9]*)?)", part))]
            weights.append(float(found[0]) if found else 1.0)
    return max(weights)
