"""The open ledger: what the rest of the program asks of it. Why it is as it is stands in `runspan.ledger`."""

import functools
import json
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Connection

from runspan.errors import ConfigError
from runspan.ledger import budgets, facts, history, jobs, positions, rows, seat, store, work
from runspan.ledger.owners import Owners, folder_beside, new_owner
from runspan.ledger.values import (
    UNSETTLED,
    Account,
    Claim,
    Count,
    Finished,
    Job,
    JobCounts,
    NewRow,
    Noted,
    RowState,
    RunRow,
    Sendable,
    Sweep,
)
from runspan.model import Json, RunRef

LEASE_NS = 10 * 60 * 1_000_000_000


class Ledger:
    """One open ledger; every method is one transaction, may be called from any thread, and raises LedgerUnusable."""

    def __init__(self, opened: store.Store, now: Callable[[], int], *, read_only: bool) -> None:
        self.path: Path | None = opened.path
        """The database file; None in memory."""
        self.created: bool = opened.created
        """Whether it did not exist before: an unmounted volume looks just like a first start."""
        self.owner: str = new_owner()
        """This process, in its leases."""
        self._store = opened
        self._now = now
        self._owners: Owners | None = None
        if self.path and not read_only:
            owners = Owners(folder_beside(self.path), self.owner)
            with self._store.write():
                owners.arrive()
            self._owners = owners

    @classmethod
    def open(
        cls,
        url: str,
        *,
        now: Callable[[], int] = time.time_ns,
        read_only: bool = False,
        must_exist: bool = False,
        migrates: bool = True,
    ) -> Self:
        """Open the ledger at `url` (`sqlite:///path`; `sqlite://` in memory).

        A missing one is created unless `read_only` or `must_exist`; an older one is migrated if it `migrates`, unless
        `read_only`. `now` is the clock, in nanoseconds since the Unix epoch. Raises ConfigError for a URL that is none,
        LedgerOlder for an older ledger that is not migrated (also since another process has it open), LedgerReadOnly,
        and LedgerUnusable for a ledger that is missing, damaged, foreign or newer than this program.
        """
        opened = store.open_store(url, read_only=read_only, must_exist=must_exist, migrates=migrates)
        try:
            return cls(opened, now, read_only=read_only)
        except BaseException:
            opened.close()
            raise

    @classmethod
    @contextmanager
    def open_if_there(cls, url: str) -> Generator[Self | None]:
        """The ledger at `url`, closed at the end of the context; None where there is none.

        For who only looks: an older one is left as it is. Raises as `open` does.
        """
        path = store.path_of(url)
        if path is None or not store.is_there(path):
            yield None
        else:
            with cls.open(url, must_exist=True, migrates=False) as ledger:
                yield ledger

    @property
    def folder(self) -> Path | None:
        """The folder of the database file; None in memory."""
        return self.path.parent if self.path else None

    def close(self) -> None:
        """Give back what this process has leased, and close."""
        try:
            if self._owners:
                with self._store.write() as connection:
                    work.release_owners(connection, [self.owner])
                    self._owners.leave()
        finally:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Identity

    def pin_tenant(self, source: str, platform: str, tenant: str) -> None:
        """Remember the tenant of a source at its first start. Raises ConfigError where it is another one now."""
        with self._store.write() as connection:
            pinned = facts.pinned_tenant(connection, source, platform, tenant)
        if pinned != tenant:
            raise ConfigError(
                f"source {json.dumps(source)}: its run ids belong to the tenant {json.dumps(pinned)}, and would become "
                f"those of {json.dumps(tenant)}, so that every run would be sent again under new ids; "
                f"set tenant = {json.dumps(pinned)}, or give the source another name"
            )

    def remember_destination(self, endpoint: str) -> str | None:
        """Remember where runs are sent; gives the place before, where it was another."""
        with self._store.write() as connection:
            before: str | None = facts.recall(connection, "destination")
            if before != endpoint:
                facts.remember(connection, "destination", endpoint)
        return None if before == endpoint else before

    # Exclusion and leases

    def hold_daemon(self) -> AbstractContextManager[None]:
        """Be the one daemon of this ledger. Raises LedgerUnusable that names the other, if there is one."""
        return seat.held(self._store, self._owners, self.owner, self._now)

    def _release_dead(self, connection: Connection) -> int:
        """Give back the leases of processes that have died; gives how many there were."""
        if self._owners is None:
            return 0
        others = [owner for owner in work.lease_owners(connection) if owner != self.owner]
        return work.release_owners(connection, self._owners.dead(others))

    # Discovery

    def sweep(self, account: Account, scope: str, kind: str) -> Sweep | None:
        """How far a sweep (`poll`, `slow`, a job's) of a scope has come; None where it was never begun."""
        with self._store.read() as connection:
            return positions.sweep(connection, account, scope, kind)

    def begin_sweep(
        self,
        account: Account,
        scope: str,
        kind: str,
        *,
        window_start_ns: int | None,
        window_end_ns: int | None,
        position_ns: int | None,
    ) -> Sweep:
        """Start a new pass over a window. `position_ns` is only used when the sweep is begun for the first time."""
        with self._store.write() as connection:
            return positions.begin_sweep(
                connection,
                account,
                scope,
                kind,
                window_start_ns=window_start_ns,
                window_end_ns=window_end_ns,
                position_ns=position_ns,
            )

    def note_page(
        self,
        account: Account,
        scope: str,
        kind: str,
        new_rows: Sequence[NewRow],
        *,
        cursor: Json | None,
        high_ns: int | None,
        is_complete: Callable[[Noted], bool] = lambda noted: True,
        job: str | None = None,
        force: bool = False,
    ) -> Noted:
        """Store a page's rows together with where the sweep stands after it.

        `high_ns` is the latest time on the list's axis that the page has shown. Without a cursor the pass is over. A
        `poll` that then `is_complete` (asked at each page, with what noting it came to) moves its position up to the
        latest time that it has seen, unless that is still to come, or the pass began after the position. No other kind
        has a position. With `force` a job makes rows due again that were exported before it. Raises LookupError where
        the sweep was never begun.
        """
        with self._store.write() as connection:
            noted = self._note(connection, new_rows, job, force=force)
            complete = is_complete(noted) and cursor is None
            positions.note_page(
                connection, self._now(), account, scope, kind, cursor=cursor, high_ns=high_ns, complete=complete
            )
            return noted

    def note_rows(self, new_rows: Sequence[NewRow], *, job: str | None = None, force: bool = False) -> Noted:
        """Store runs that were named to us one by one, in a file or on standard input; else as `note_page`."""
        with self._store.write() as connection:
            return self._note(connection, new_rows, job, force=force)

    def _note(self, connection: Connection, new_rows: Sequence[NewRow], job: str | None, *, force: bool) -> Noted:
        noted, listed = rows.note(connection, self._now(), new_rows, job, force=force)
        if job is not None:
            jobs.count_listed(connection, job, listed.listed, listed.known)
        return noted

    def start_ns(self, account: Account, *, if_new_ns: int) -> int:
        """From when on the account's runs are read: as was said the first time, or `if_new_ns` where this is it."""
        with self._store.read() as connection:
            start_ns = positions.start_ns(connection, account)
        if start_ns is not None:
            return start_ns
        with self._store.write() as connection:
            return positions.begin(connection, account, if_new_ns)

    # Work

    def claim(
        self,
        account: Account,
        *,
        limit: int,
        most_open: int | None = None,
        states: Iterable[RowState] = UNSETTLED,
        job: str | None = None,
        due_before_ns: int | None = None,
        at_random: bool = False,
    ) -> list[Claim]:
        """Lease up to `limit` rows that are due (by `due_before_ns`; None: now), those due longest first.

        At most `most_open` of them (None: all) are of runs that have not ended, as far as is known. `at_random`: any
        that are due, since those due longest may all be bad ones.
        No other claimer, thread or process, gets them while the lease lasts.
        """
        with self._store.write() as connection:
            now_ns = self._now()
            some = functools.partial(
                work.claim,
                connection,
                now_ns,
                work.Lease(self.owner, now_ns + LEASE_NS),
                account,
                states=tuple(states),
                job=job,
                due_before_ns=now_ns if due_before_ns is None else due_before_ns,
                at_random=at_random,
            )
            open_left = limit if most_open is None else most_open
            claims = some(limit=limit, most_open=open_left)
            missing = limit - len(claims)
            if missing and self._release_dead(connection):
                open_left -= sum(claim.state is not RowState.DUE for claim in claims)
                claims += some(limit=missing, most_open=open_left)
            return claims

    def next_due_ns(
        self, account: Account, *, states: Iterable[RowState] = UNSETTLED, job: str | None = None
    ) -> int | None:
        """When a row can be claimed next (a leased one: when its lease ends); None where nothing waits."""
        with self._store.read() as connection:
            return work.next_due_ns(connection, account, states, job)

    def open_ids(self, account: Account, limit: int) -> list[str]:
        """Ids of open runs, those due longest first."""
        with self._store.read() as connection:
            return rows.open_ids(connection, account, limit)

    def settle_open(
        self,
        account: Account,
        still_open: Collection[str],
        *,
        listed_ns: int,
        ask_again: Callable[[int], int],
    ) -> int:
        """Take in a platform's complete list of open runs, asked for at `listed_ns`; gives how many have ended.

        An open row that is not in the list has ended: it is due now, unless it is being retried. One that is in the
        list is due again after `ask_again(age)`, both in nanoseconds, age counted from creation, else from first sight.
        Rows younger than the list and rows under a lease stay as they are.
        """
        with self._store.write() as connection:
            return rows.settle_open(connection, self._now(), account, still_open, listed_ns, ask_again)

    def about_to_send(self, digests: Sequence[tuple[RunRef, str]]) -> Sendable:
        """Commit what is about to be sent.

        What this process has no lease on any more must not be: it was stopped for longer than its leases last, and
        another process has taken these runs over, or even exported them.
        """
        with self._store.write() as connection:
            return work.about_to_send(connection, self.owner, digests)

    def finish(self, claims_done: Sequence[Finished]) -> int:
        """Write what became of claimed rows, and end their leases.

        Gives how many rows were left as they are because another process holds them by now. (Only EXPORTED is always
        written: what was acknowledged is acknowledged.)
        """
        with self._store.write() as connection:
            return work.finish(connection, self._now(), self.owner, claims_done)

    def release(self, refs: Iterable[RunRef]) -> None:
        """Give leases back; the rows stay as they were."""
        with self._store.write() as connection:
            work.release(connection, self.owner, refs)

    def renew(self, refs: Iterable[RunRef]) -> None:
        """Lengthen leases that are still held: work under a small rate may take longer than one lease."""
        with self._store.write() as connection:
            work.renew(connection, work.Lease(self.owner, self._now() + LEASE_NS), refs)

    def rewind(self, account: Account, *, latest_ns: int, start_ns: int) -> int:
        """Let lists be read from `start_ns` on whose position is later than `latest_ns`; gives how many there were.

        Such a position was set while the clock was ahead: runs until then would never be read.
        """
        with self._store.write() as connection:
            return positions.rewind(connection, account, latest_ns=latest_ns, start_ns=start_ns)

    def hasten(self, account: Account, latest_ns: Mapping[RowState, int]) -> int:
        """Let rows be due now that are due later than their state can be; gives how many there were.

        Such a time was set while the clock was ahead, and may be years away.
        """
        with self._store.write() as connection:
            return work.hasten(connection, self._now(), account, latest_ns)

    def retry(
        self,
        source: str | None = None,
        run_ids: Sequence[str] | None = None,
        reason_like: str | None = None,
    ) -> int:
        """Put quarantined rows back to due, all or those that match (`reason_like`: a part of the reason).

        Of the runs named by their ids, those that are gone too.
        """
        with self._store.write() as connection:
            return work.retry(connection, self._now(), source=source, run_ids=run_ids, reason_like=reason_like)

    # Rate budget

    def debit(self, key: str, interval_ns: int) -> int:
        """Ask for one request of a budget: 0 when granted, else how many nanoseconds to wait before asking again.

        Grants keep at least `interval_ns` between them, over all processes of the ledger, with no bursts.
        """
        with self._store.write() as connection:
            return budgets.debit(connection, self._now(), key, interval_ns)

    def delay(self, key: str, by_ns: int) -> None:
        """Put off the next grant of a budget, and with it all that follow."""
        with self._store.write() as connection:
            budgets.delay(connection, self._now(), key, by_ns)

    def pause(self, key: str, until_ns: int) -> None:
        """Grant nothing of a budget before `until_ns`: the platform has asked for that."""
        with self._store.write() as connection:
            budgets.pause(connection, self._now(), key, until_ns)

    # Jobs

    def job(self, job_id: str) -> Job | None:
        """A job as it stands; None where it was never started."""
        with self._store.read() as connection:
            return jobs.job(connection, job_id)

    def start_job(self, job_id: str, arguments: Mapping[str, Json]) -> Job:
        """Start a job, or go on with one of that id, finished or not; its own arguments stay."""
        with self._store.write() as connection:
            return jobs.start_job(connection, self._now(), job_id, arguments)

    def finish_job(self, job_id: str) -> None:
        """Mark a job as finished."""
        with self._store.write() as connection:
            jobs.finish_job(connection, self._now(), job_id)

    def job_waits(self, job_id: str, *, patience_ns: int) -> bool:
        """Whether something is still to be done for the job: not where all that is left has failed, and is not tried
        again within `patience_ns`, or has not ended.
        """
        with self._store.read() as connection:
            return jobs.job_waits(connection, self._now(), job_id, patience_ns)

    def job_counts(self, job_id: str) -> JobCounts:
        """How the job's rows stand, by state and by reason."""
        with self._store.read() as connection:
            return jobs.job_counts(connection, job_id)

    # Questions

    def states(self, account: Account, run_ids: Iterable[str]) -> dict[str, RowState]:
        """The state of each of these runs that has a row."""
        with self._store.read() as connection:
            return rows.states(connection, account, run_ids)

    def runs(
        self,
        *,
        source: str | None = None,
        state: RowState | None = None,
        agent: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        limit: int | None = None,
        job: str | None = None,
    ) -> list[RunRow]:
        """Rows that match, youngest first. `agent` is an id or a name; the times bound the creation of the run."""
        with self._store.read() as connection:
            return history.runs_matching(
                connection,
                source=source,
                state=state,
                agent=agent,
                since_ns=since_ns,
                until_ns=until_ns,
                limit=limit,
                job=job,
            )

    def find(self, run_id: str) -> list[RunRow]:
        """Every run with this id, of whatever account."""
        with self._store.read() as connection:
            return history.find(connection, run_id)

    def counts(self) -> list[Count]:
        """How many rows of each source stand in which state for which reason."""
        with self._store.read() as connection:
            return history.counts(connection)

    def oldest_due_ns(self, account: Account) -> int | None:
        """The earliest due time among runs that have ended and are not exported; None where there is none."""
        with self._store.read() as connection:
            return history.oldest_due_ns(connection, account)

    def prune(self, account: Account, *, before_ns: int, reach_ns: int = 0) -> int:
        """Delete exported, skipped and gone rows that became so before then; gives how many.

        Those stay that the lists still show: of an agent that has done nothing for long, each pass reads the last runs
        again, as far back as `reach_ns` before its position.

        Several transactions, so that others need not wait for a long one; cut short, the rest goes the next time.
        Afterwards the database file holds what was only in its log.
        """
        pruned = 0
        while True:
            with self._store.write() as connection:
                some = history.prune_some(connection, account, before_ns, reach_ns)
            pruned += some
            if some < history.PRUNE_CHUNK:
                self._store.checkpoint()
                return pruned

    def pruned_through_ns(self, account: Account) -> int | None:
        """The latest creation time of a run that was pruned: what was created up to then may be sent twice."""
        with self._store.read() as connection:
            return history.pruned_through_ns(connection, account)
