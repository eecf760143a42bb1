"""When a row is due next."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.config import SourceConfig
from runspan.ledger import RowState
from runspan.model import Locator, RunRef, RunStatus
from runspan.otlp.delivery import LONGEST_ASKED_SECONDS
from runspan.pipeline import standing
from runspan.projection import trace_id
from runspan.sources.base import Listed
from runspan.waits import LONGEST_PAUSE_SECONDS

SECOND = 1_000_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
NOW = 1_780_000_000 * SECOND


def config(**settings: Any) -> SourceConfig:
    return SourceConfig(name="s", platform="casedev", base_url="https://api.case.dev", **settings)


def row(listed: dict[str, Any], *, created_ns: int | None = NOW - MINUTE, probe_after_seconds: float = 0.0):
    locator = Locator(agent_id="agent-1", created_ns=created_ns)
    found = Listed(**({"run_id": "a", "locator": locator, "terminal": True, "time_ns": NOW} | listed))
    ref = RunRef("casedev", "t", "a", locator)
    return standing.row_of(found, ref, config(settle="5s", poll_every="30s"), NOW, probe_after_seconds)


@pytest.mark.parametrize(
    ("ended_ns", "due_ns"),
    [
        pytest.param(None, NOW + 5 * SECOND, id="no end is told"),
        pytest.param(NOW, NOW + 5 * SECOND, id="just now"),
        pytest.param(NOW + HOUR, NOW + 5 * SECOND, id="in the future"),
        pytest.param(NOW - 5 * MINUTE - 5 * SECOND, NOW + 5 * SECOND, id="at the edge"),
        pytest.param(NOW - 5 * MINUTE - 6 * SECOND, NOW, id="long ago"),
    ],
)
def test_runs_settle_unless_they_ended_long_ago(ended_ns: int | None, due_ns: int):
    assert standing.settled_at(NOW, ended_ns, timedelta(seconds=5)) == due_ns


@pytest.mark.parametrize(
    ("age_ns", "interval_ns"),
    [
        (0, 30 * SECOND),
        (-HOUR, 30 * SECOND),
        (5 * MINUTE, 30 * SECOND),
        (20 * MINUTE, 2 * MINUTE),
        (150 * MINUTE, 15 * MINUTE),
        (30 * DAY, 15 * MINUTE),
    ],
)
def test_the_older_an_open_run_the_rarer_it_is_asked_for(age_ns: int, interval_ns: int):
    assert standing.ask_interval(age_ns, timedelta(seconds=30)) == interval_ns


def test_polls_rarer_than_the_ceiling_give_way_to_it():
    assert standing.ask_interval(0, timedelta(hours=1)) == 15 * MINUTE


@pytest.mark.parametrize(
    ("attempts", "asked_seconds", "wait_ns"),
    [
        (0, None, 2 * SECOND),
        (1, None, 4 * SECOND),
        (3, 0.0, 16 * SECOND),
        (8, None, 512 * SECOND),
        (9, None, 15 * MINUTE),
        (10_000, None, 15 * MINUTE),
        (0, 90.5, int(90.5 * SECOND)),
        (9, 1.0, 15 * MINUTE),
    ],
)
def test_failures_wait_longer_each_time_and_never_shorter_than_was_asked(
    attempts: int, asked_seconds: float | None, wait_ns: int
):
    assert standing.retry_at(NOW, attempts, asked_seconds) == NOW + wait_ns


class TestRows:
    def test_an_ended_run_is_due_once_it_has_settled(self):
        new = row({"ended_ns": NOW - SECOND, "raw_status": "failed"})
        assert (new.state, new.due_ns, new.terminal_seen_ns) == (RowState.DUE, NOW + 5 * SECOND, NOW)
        assert (new.raw_status, new.created_ns, new.source) == ("failed", NOW - MINUTE, "s")

    def test_what_is_not_to_be_exported_is_skipped_ended_or_not(self):
        for terminal in (True, False):
            new = row({"terminal": terminal, "skip_reason": "external"})
            assert (new.state, new.reason, new.due_ns) == (RowState.SKIPPED, "external", None)

    @pytest.mark.parametrize(
        ("created_ns", "probe_after_seconds", "due_ns"),
        [
            pytest.param(NOW - MINUTE, 0, NOW + 30 * SECOND, id="young"),
            pytest.param(NOW - HOUR, 0, NOW + 6 * MINUTE, id="old"),
            pytest.param(None, 0, NOW + 30 * SECOND, id="no creation is told"),
            pytest.param(NOW + DAY, 0, NOW + 30 * SECOND, id="created in the future"),
            pytest.param(NOW - 10 * SECOND, 60, NOW + 50 * SECOND, id="too young to be probed"),
            pytest.param(NOW - HOUR, 60, NOW, id="old enough to be probed"),
            pytest.param(NOW + DAY, 60, NOW + 60 * SECOND, id="probed, created in the future"),
        ],
    )
    def test_an_open_run_is_asked_again(self, created_ns: int | None, probe_after_seconds: float, due_ns: int):
        new = row({"terminal": False}, created_ns=created_ns, probe_after_seconds=probe_after_seconds)
        assert (new.state, new.due_ns, new.terminal_seen_ns) == (RowState.OPEN, due_ns, None)


def test_no_rule_lets_a_row_wait_longer_than_the_latest():
    latest = standing.latest_due(NOW, timedelta(seconds=5))
    assert latest[RowState.DUE] == latest[RowState.OPEN] == NOW + HOUR
    assert standing.retry_at(NOW, 99, LONGEST_PAUSE_SECONDS) <= latest[RowState.DUE]
    assert standing.retry_at(NOW, 99, LONGEST_ASKED_SECONDS) <= latest[RowState.DUE]
    assert NOW + standing.ask_interval(365 * DAY, timedelta(hours=9)) <= latest[RowState.OPEN]
    assert standing.settled_at(NOW, NOW, timedelta(days=2)) <= standing.latest_due(NOW, timedelta(days=2))[RowState.DUE]
    assert latest[RowState.EXPIRED] == NOW + DAY


@pytest.mark.parametrize(
    ("settings", "agent_id", "agent_name", "is_wanted"),
    [
        ({}, "a1", "Freja", True),
        ({}, None, None, True),
        ({"agents": ("a1",)}, "a1", None, True),
        ({"agents": ("Freja",)}, "a1", "Freja", True),
        ({"agents": ("a1",)}, "a2", "Freja", False),
        ({"agents": ("a1",)}, None, None, False),
        ({"exclude_agents": ("a1",)}, "a1", "Freja", False),
        ({"exclude_agents": ("Freja",)}, "a1", "Freja", False),
        ({"exclude_agents": ("a1",)}, None, None, True),
        ({"agents": ("a1",), "exclude_agents": ("Freja",)}, "a1", "Freja", False),
    ],
)
def test_agents_are_wanted_by_id_or_name(
    settings: dict[str, Any], agent_id: str | None, agent_name: str | None, is_wanted: bool
):
    assert standing.is_wanted(agent_id, agent_name, config(**settings)) is is_wanted


@given(st.binary(min_size=16, max_size=16), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_each_smaller_one(trace: bytes, one: float, other: float):
    assert standing.is_kept(trace, max(one, other)) >= standing.is_kept(trace, min(one, other))
    assert standing.is_kept(trace, 1.0)
    assert not standing.is_kept(trace, 0.0)


def test_a_share_is_that_share_of_all_runs():
    kept = sum(standing.is_kept(trace_id("casedev", "t", str(n)), 0.1) for n in range(5000))
    assert kept == pytest.approx(500, abs=70)


def test_the_share_is_decided_as_a_consistent_probability_sampler_decides():
    """OpenTelemetry, Probability Sampling: keep where the last 56 bits are at least (1 - p) * 2^56."""
    assert standing.is_kept(bytes(9) + bytes.fromhex("c0000000000000"), 0.25)
    assert not standing.is_kept(bytes([255] * 9) + bytes.fromhex("bfffffffffffff"), 0.25)


@pytest.mark.parametrize(
    ("settings", "status", "reason"),
    [
        ({}, "success", None),
        ({"statuses": ["failed"]}, "failed", None),
        ({"statuses": ["failed"]}, "success", "filtered: success"),
        ({"statuses": ["failed"], "keep_success": 0.0}, "success", "filtered: success"),
        ({"keep_success": 0.0}, "success", "sampled out"),
        ({"keep_success": 0.0}, "failed", None),
        ({"keep_success": 0.0}, "timeout", None),
        ({"statuses": ["success"], "keep_success": 0.0}, "success", "sampled out"),
        ({"statuses": ["success"]}, "cancelled", "filtered: cancelled"),
    ],
)
def test_a_run_passes_by_how_it_ended(settings: dict[str, Any], status: str, reason: str | None):
    chosen, ended = config(**settings), RunStatus(status)
    listed = Listed("a", Locator(), terminal=True, time_ns=NOW, status=ended)
    new = standing.row_of(listed, RunRef("casedev", "t", "a"), chosen, NOW, 0.0)
    assert (new.state, new.reason) == ((RowState.SKIPPED, reason) if reason else (RowState.DUE, None))
    assert (ended in new.exports) is (reason is None)
    unsure = standing.row_of(replace(listed, status=None), RunRef("casedev", "t", "a"), chosen, NOW, 0.0)
    assert unsure.state is RowState.DUE
