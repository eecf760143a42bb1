"""A list of runs that no vendor documents: where it is and how it is paged is all configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from runspan.config import Table, refusal, refuse
from runspan.model import Json
from runspan.sources.answers import refuse_failure
from runspan.sources.base import Listed
from runspan.sources.fields import Fields
from runspan.sources.walk import Walk, shown

AGENT_ID = "{agentId}"
TIMES = 2
"""So often an end is asked for again where pages have but numbers: no cursor tells that they still count."""


class ListConfig(Table):
    """A list of runs, where the account has one: the vendor documents none."""

    path: str = "/agents/{agentId}/runs"
    """Below base_url. {agentId} is filled in for each of `agents`."""
    items_path: str = "items"
    """Where the rows stand in the answer, such as items or data.runs; empty where the answer is the list itself."""
    pagination: Literal["page", "offset", "cursor"] = "page"
    """page (page and pageSize), offset (offset and limit) or cursor (cursor and limit, continued by nextCursor)."""
    first_page: int = Field(default=1, ge=0, le=1)
    """Whether pages are counted from 1 or from 0, where they are."""
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
    def of(document: Json, items_path: str, where: str) -> "Answer":
        """The answer whose rows stand at `items_path`. Raises SourceUnavailable where it says that it failed."""
        *outer, key = (items_path or "items").split(".")
        refuse_failure(document, where)
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
        tokens = (fields.identifier("nextCursor") for fields in places)
        words = (fields.boolean("hasMore") for fields in places)
        return next(filter(None, tokens), None), next((more for more in words if more is not None), None)


def scope_keys(config: ListConfig, agents: Sequence[str]) -> tuple[str, ...]:
    """What the list is read by: each agent where its path has a place for one, else all at once (an empty key)."""
    return tuple(dict.fromkeys(config.agents or agents)) if AGENT_ID in config.path else ("",)


def segments(config: ListConfig, agent_id: str) -> tuple[str, ...]:
    """The path of one agent's list, for `Client.get_json`."""
    return tuple(segment.replace(AGENT_ID, agent_id) for segment in config.path.split("/") if segment)


def params(config: ListConfig, walk: Walk) -> dict[str, str | int | None]:
    """What to ask with for the page that a walk has come to."""
    match config.pagination:
        case "page":
            return {"page": _number(config, walk), "pageSize": config.page_size}
        case "offset":
            return {"offset": _number(config, walk), "limit": config.page_size}
        case "cursor":
            return {"cursor": walk.cursor, "limit": walk.rows(config.page_size)}


def onward(
    config: ListConfig, walk: Walk, answer: Answer, rows: Sequence[Listed], count: int, known_end: str | None
) -> tuple[Walk | None, str | None]:
    """Where the list goes on behind a page of `count` rows, of which `rows` could be read; as `Walk.behind`."""
    token, more = answer.next_cursor()
    if config.pagination == "cursor":
        return walk.behind(shown(rows), token, more, known_end=known_end)
    # An offset that falls back only reads some rows twice.
    following = _number(config, walk) + (1 if config.pagination == "page" else count)
    token, more = (str(following), more) if count else (None, None)
    return walk.behind(shown(rows), token, more, known_end=known_end, times=TIMES)


def beyond(walk: Walk, known_end: str | None) -> tuple[Walk | None, str | None]:
    """As `onward`, where there is no such page: so some say that the one before was the last."""
    return walk.at_the_end((), known_end, times=TIMES)


def _number(config: ListConfig, walk: Walk) -> int:
    """The page or the offset that a walk has come to."""
    first = config.first_page if config.pagination == "page" else 0
    return first if walk.cursor is None else int(walk.cursor)
