"""When a row is due next: pure rules over what is known of a run.

All arguments and answers are integer nanoseconds since the epoch, or durations as timedelta.
"""

from datetime import timedelta

from runspan.config import SourceConfig
from runspan.ledger import SAMPLED_OUT, NewRow, RowState
from runspan.model import ENDED, RunRef, RunStatus
from runspan.projection.ids import trace_id
from runspan.quantities import nanoseconds
from runspan.sources.base import Listed

OPEN_ASK_CEILING = timedelta(minutes=15)
EXPIRED_ASK_EVERY = timedelta(days=1)
SETTLED_MARGIN = timedelta(minutes=5)
"""A run that ended this much before its settle delay would be over has no late rows to come."""
RETRY_FLOOR = timedelta(seconds=2)
RETRY_CEILING = timedelta(minutes=15)
FRESH = timedelta(hours=1)
LONGEST_WAIT = timedelta(hours=1)
"""No row is due later than this from now, but for its settle delay and for expired ones: nobody who is asked to wait
longer does so."""
RANDOM_BYTES = 7
"""At the end of a trace id; see OpenTelemetry, "Probability Sampling"."""


def settled_at(now_ns: int, ended_ns: int | None, settle: timedelta) -> int:
    """When a run first seen terminal now may be exported: at once if it ended long ago, else after the settle delay."""
    if ended_ns is not None and ended_ns < now_ns - nanoseconds(settle + SETTLED_MARGIN):
        return now_ns
    return now_ns + nanoseconds(settle)


def ask_interval(age_ns: int, poll_every: timedelta) -> int:
    """How long until an open run is asked for again: a tenth of its age, between `poll_every` and 15 minutes."""
    return min(max(age_ns // 10, nanoseconds(poll_every)), nanoseconds(OPEN_ASK_CEILING))


def retry_at(now_ns: int, attempts: int, asked_seconds: float | None = None) -> int:
    """When a failed row is tried again: doubling from 2 seconds to 15 minutes, or as late as the platform asked."""
    wait_ns = min(nanoseconds(RETRY_FLOOR) << min(attempts, 20), nanoseconds(RETRY_CEILING))
    return now_ns + max(wait_ns, int((asked_seconds or 0.0) * 1e9))


def latest_due(now_ns: int, settle: timedelta) -> dict[RowState, int]:
    """What the rules of this module can set at most: a later time was set by a clock that was ahead."""
    soon_ns = now_ns + nanoseconds(max(LONGEST_WAIT, settle))
    return {RowState.OPEN: soon_ns, RowState.DUE: soon_ns, RowState.EXPIRED: now_ns + nanoseconds(EXPIRED_ASK_EVERY)}


def row_of(listed: Listed, ref: RunRef, config: SourceConfig, now_ns: int, probe_after_seconds: float) -> NewRow:
    """The row that a listed run becomes when it is new: skipped, due after its settle delay, or open.

    `probe_after_seconds`, where not 0: an open run of that age may have ended without its list saying so.
    """
    state, due_ns, terminal_seen_ns = RowState.OPEN, None, None
    reason, exports = listed.skip_reason, exported_statuses(ref, config)
    if reason is None and listed.terminal and listed.status is not None and listed.status not in exports:
        reason = filter_reason(listed.status, config)
    if reason is not None:
        state = RowState.SKIPPED
    elif listed.terminal:
        state, due_ns = RowState.DUE, settled_at(now_ns, listed.ended_ns, config.settle)
        terminal_seen_ns = now_ns
    else:
        since_ns = min(ref.locator.created_ns or now_ns, now_ns)
        if probe_after_seconds:
            due_ns = max(now_ns, since_ns + int(probe_after_seconds * 1e9))
        else:
            due_ns = now_ns + ask_interval(now_ns - since_ns, config.poll_every)
    return NewRow(
        ref=ref,
        source=config.name,
        state=state,
        due_ns=due_ns,
        reason=reason,
        raw_status=listed.raw_status,
        created_ns=ref.locator.created_ns,
        terminal_seen_ns=terminal_seen_ns,
        exports=exports,
    )


def is_wanted(agent_id: str | None, agent_name: str | None, config: SourceConfig) -> bool:
    """Whether the configuration's `agents` and `exclude_agents` (ids or names) let this agent's runs through."""
    names = {name for name in (agent_id, agent_name) if name}
    if config.exclude_agents and names & set(config.exclude_agents):
        return False
    return not config.agents or bool(names & set(config.agents))


def exported_statuses(ref: RunRef, config: SourceConfig) -> frozenset[RunStatus]:
    """With which statuses the configuration's `statuses` and `keep_success` let this run through."""
    statuses = frozenset(RunStatus(status) for status in config.statuses) or ENDED
    if is_kept(trace_id(ref.platform, ref.tenant, ref.run_id), config.keep_success):
        return statuses
    return statuses - {RunStatus.SUCCESS}


def filter_reason(status: RunStatus, config: SourceConfig) -> str:
    """Why a run that ended so is not exported: the reason of its skipped row."""
    by_status = bool(config.statuses) and status.value not in config.statuses
    return f"filtered: {status}" if by_status else SAMPLED_OUT


def is_kept(trace: bytes, fraction: float) -> bool:
    """Whether a trace id is within that share of all; whoever samples by the W3C's random bits decides alike."""
    return int.from_bytes(trace[-RANDOM_BYTES:]) >= round((1 - fraction) * 2 ** (8 * RANDOM_BYTES))
