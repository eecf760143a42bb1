"""A list of runs that no vendor documents: where it is and how it is paged is all configuration."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from runspan.config import Table, refusal, refuse
from runspan.model import Json
from runspan.sources import answers
from runspan.sources.answers import REPEATS_BELIEVED, Walk, walk_on
from runspan.sources.base import Listed, Window
from runspan.sources.fields import Fields, canonical

AGENT_ID = "{agentId}"


class ListConfig(Table):
    """A list of runs, where the account has one: the vendor documents none."""

    path: str = "/agents/{agentId}/runs"
    """Below base_url. {agentId} is filled in for each of `agents`."""
    items_path: str = "items"
    """Where the rows stand in the answer, such as items or data.runs; empty where the answer is the list itself."""
    pagination: Literal["page", "offset", "cursor"] = "page"
    """page (page and pageSize), offset (offset and limit) or cursor (cursor and limit, continued by nextCursor)."""
    page_size: int = Field(default=50, ge=1, le=1000)
    """How many rows to ask for at once."""
    id_field: str = "id"
    """The key of a row's run id."""
    time_field: str = "createdAt"
    """The key of the time that the list is sorted by."""
    order: Literal["desc", "asc", "none"] = "desc"
    """desc: newest first, so reading stops at what is known. asc, none: each look reads all of it."""
    agents: tuple[str, ...] = ()
    """The agents whose lists are read, by id. Default: the source's own `agents`."""

    @model_validator(mode="after")
    def _is_a_path(self) -> "ListConfig":
        if not self.path.startswith("/") or set("?#") & set(self.path):
            refuse([refusal(("path",), "write a path that begins with / and has no query, such as /runs")])
        return self


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the list: `envelope` is the object that holds the rows under `key`, `root` the one around it all."""

    root: Fields
    envelope: Fields
    key: str

    @staticmethod
    def of(document: Json, items_path: str) -> "Answer":
        """The answer whose rows stand at `items_path`."""
        *outer, key = (items_path or "items").split(".")
        root = Fields(document if items_path else {key: document}, [])
        envelope = root
        for name in outer:
            envelope = envelope.child(name)
        return Answer(root, envelope, key)

    @property
    def problems(self) -> list[str]:
        """What could not be read."""
        return self.root.problems

    def next_cursor(self) -> tuple[str | None, bool | None]:
        """Where the list goes on, and whether it does, by its own account: `nextCursor` and `hasMore`, which stand
        beside the rows, around them or in `pagination`."""
        places = (self.envelope, self.root, self.envelope.child("pagination"), self.root.child("pagination"))
        for fields in places:
            if token := fields.identifier("nextCursor"):
                return token, fields.boolean("hasMore")
        return None, any(fields.boolean("hasMore") for fields in places)


def scope_keys(config: ListConfig, agents: Sequence[str]) -> tuple[str, ...]:
    """What the list is read by: each agent where its path has a place for one, else all at once (an empty key)."""
    return tuple(dict.fromkeys(config.agents or agents)) if AGENT_ID in config.path else ("",)


def segments(config: ListConfig, agent_id: str) -> tuple[str, ...]:
    """The path of one agent's list, for `Client.get_json`."""
    return tuple(segment.replace(AGENT_ID, agent_id) for segment in config.path.split("/") if segment)


def params(config: ListConfig, cursor: Json | None) -> dict[str, str | int | None]:
    """What to ask with for the page that `cursor` (made by `onward`) stands for; None: the first."""
    match config.pagination:
        case "page":
            return {"page": cursor[0] if cursor else 1, "pageSize": config.page_size}
        case "offset":
            return {"offset": cursor[0] if cursor else 0, "limit": config.page_size}
        case "cursor":
            return {"cursor": Walk.resumed(cursor).cursor, "limit": config.page_size}


def onward(
    config: ListConfig, cursor: Json | None, answer: Answer, rows: Sequence[Listed], window: Window
) -> tuple[Json | None, str | None]:
    """The cursor behind a page of `rows`, or why the list breaks off; neither at its end, and before the window."""
    times_ns = [row.time_ns for row in rows if row.time_ns is not None]
    if config.order == "desc" and times_ns and max(times_ns) < window.start_ns:
        return None, None
    if config.pagination == "cursor":
        walk, fault = walk_on(Walk.resumed(cursor), *answer.next_cursor())
        return walk.state if walk else None, fault
    if not rows:
        return None, None
    following = _by_number(config, cursor, rows)
    return following, None if following else "its pages repeat themselves or do not end"


def _by_number(config: ListConfig, cursor: Json | None, rows: Sequence[Listed]) -> Json | None:
    """A cursor [page or offset, digest of the page's ids, how often that page came in a row].

    A server that takes no heed of the number answers the same page for ever. One repeat may be chance: as many new runs
    as a page holds move every row one page on.
    """
    first = 1 if config.pagination == "page" else 0
    number, last_page, repeats = cursor or (first, "", 0)
    this_page = hashlib.sha256(canonical(sorted(row.run_id for row in rows)).encode()).hexdigest()[:16]
    repeats = repeats + 1 if this_page == last_page else 0
    pages = number if config.pagination == "page" else number // config.page_size
    if repeats > REPEATS_BELIEVED or pages >= answers.MAX_PAGES:
        return None
    # Rows that could not be read still take a place; an offset that falls back only reads some rows twice.
    return [number + (1 if config.pagination == "page" else len(rows)), this_page, repeats]
