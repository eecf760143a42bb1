"""Facts about the ledger itself, kept from one start to the next."""

from sqlalchemy import Connection, and_, delete, select
from sqlalchemy.dialects import sqlite

from runspan.ledger.schema import meta, sources
from runspan.model import Json


def pinned_tenant(connection: Connection, source: str, platform: str, tenant: str) -> str:
    """The tenant this source had at its first start, which may be now."""
    mine = and_(sources.c.name == source, sources.c.platform == platform)
    pinned = connection.scalar(select(sources.c.tenant).where(mine))
    if pinned is None:
        new = {"name": source, "platform": platform, "tenant": tenant}
        connection.execute(sqlite.insert(sources).values(new))
        return tenant
    return pinned


def recall(connection: Connection, key: str) -> Json | None:
    """What `remember` last stored under this key."""
    return connection.scalar(select(meta.c.value).where(meta.c.key == key))


def remember(connection: Connection, key: str, value: Json) -> None:
    """Store a fact about the ledger itself."""
    fact = sqlite.insert(meta).values(key=key, value=value)
    connection.execute(fact.on_conflict_do_update(index_elements=["key"], set_={"value": value}))


def forget(connection: Connection, key: str) -> None:
    """Drop a fact about the ledger itself."""
    connection.execute(delete(meta).where(meta.c.key == key))
