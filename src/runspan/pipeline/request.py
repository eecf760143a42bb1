"""What a backfill is asked to bring."""

import hashlib
from dataclasses import dataclass

from runspan.model import Locator
from runspan.pipeline.line import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to backfill: a stretch [since, until) of creation times, or ids. Texts identify the job, instants do not."""

    since: str | None = None
    until: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    ids: tuple[tuple[str, Locator], ...] | None = None
    limit: int | None = None
    force: bool = False
    verify: bool = False
    dry_run: bool = False
    """Nothing will be sent: what would stop it otherwise is only said."""

    def job_id(self, line: Line) -> str:
        """The job that the same command has on every start."""
        digest = hashlib.sha256()
        parts = [line.account.platform, line.account.tenant, self.since, self.until, self.limit, self.force]
        for part in [*parts, *sorted(run_id for run_id, _ in self.ids or ())]:
            text = repr(part).encode()
            digest.update(len(text).to_bytes(4, "big") + text)
        return digest.hexdigest()[:12]
