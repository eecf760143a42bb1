"""Backfill jobs: their arguments, whether they are done, and how their rows stand."""

from collections.abc import Mapping

from sqlalchemy import Connection, and_, func, insert, not_, or_, select, update

from runspan.ledger.schema import jobs, runs
from runspan.ledger.values import Job, JobCounts, JobState, RowState
from runspan.model import Json


def job(connection: Connection, job_id: str) -> Job | None:
    """The job, if it was ever started."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        return None
    return Job(
        id=row.id,
        arguments=row.arguments,
        state=JobState(row.state),
        started_ns=row.started_ns,
        finished_ns=row.finished_ns,
        listed=row.listed,
        known=row.known,
    )


def start_job(connection: Connection, now_ns: int, job_id: str, arguments: Mapping[str, Json]) -> Job:
    """The job as it stands, created where it is new; a finished one is running again."""
    if job(connection, job_id) is None:
        new = {"id": job_id, "arguments": dict(arguments), "state": JobState.RUNNING, "started_ns": now_ns}
        connection.execute(insert(jobs).values(new))
    else:
        change = update(jobs).where(jobs.c.id == job_id)
        connection.execute(change.values(state=JobState.RUNNING, finished_ns=None))
        # Who starts it again wants what has failed to be tried now.
        failed = and_(runs.c.state.in_((RowState.DUE, RowState.OPEN)), runs.c.reason.is_not(None))
        connection.execute(update(runs).where(runs.c.job == job_id, failed).values(due_ns=now_ns))
    started = job(connection, job_id)
    assert started is not None
    return started


def finish_job(connection: Connection, now_ns: int, job_id: str) -> None:
    """The job's list has been read to its end, and none of its rows is due."""
    change = update(jobs).where(jobs.c.id == job_id)
    connection.execute(change.values(state=JobState.FINISHED, finished_ns=now_ns))


def count_listed(connection: Connection, job_id: str, listed: int, known: int) -> None:
    """Add what a page brought that was new to the job."""
    change = update(jobs).where(jobs.c.id == job_id)
    connection.execute(change.values(listed=jobs.c.listed + listed, known=jobs.c.known + known))


def job_waits(connection: Connection, now_ns: int, job_id: str, patience_ns: int) -> bool:
    """Whether a row of the job is due, settles, or is tried again soon; see `Ledger.job_waits`."""
    due, is_open, failed = runs.c.state == RowState.DUE, runs.c.state == RowState.OPEN, runs.c.reason.is_not(None)
    waits = or_(
        and_(due, not_(failed)),
        and_(is_open, runs.c.due_ns <= now_ns),
        and_(or_(due, is_open), failed, runs.c.due_ns <= now_ns + patience_ns),
    )
    found = select(runs.c.run_id).where(runs.c.job == job_id, waits).limit(1)
    return connection.execute(found).first() is not None


def job_counts(connection: Connection, job_id: str) -> JobCounts:
    """How the job's rows stand."""
    counted = select(runs.c.state, runs.c.reason, func.count().label("rows")).where(runs.c.job == job_id)
    states: dict[RowState, int] = {}
    reasons: dict[tuple[RowState, str], int] = {}
    for row in connection.execute(counted.group_by(runs.c.state, runs.c.reason)):
        state = RowState(row.state)
        states[state] = states.get(state, 0) + row.rows
        if row.reason is not None:
            reasons[state, row.reason] = row.rows
    return JobCounts(states, reasons)
