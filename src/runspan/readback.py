"""Reading a trace back through its backend's query API: the only proof that it is there."""

import asyncio
import json
import time
from typing import cast

from runspan.config import DestinationConfig
from runspan.errors import ConfigError, DeliveryRefused
from runspan.http import BodyTooLarge, Connection, ConnectionFailed, Reply
from runspan.model import Json
from runspan.origin import origin_of

PATHS = {
    "jaeger": "/api/v3/traces/{trace_id}",
    "tempo": "/api/traces/{trace_id}",
    "phoenix": "/v1/projects/default/spans?trace_id={trace_id}&limit=1",
    "langfuse": "/api/public/traces/{trace_id}",
}
"""By preset; below `query_url`."""
MAX_BODY_BYTES = 64_000_000
PAUSE_SECONDS = 0.5


async def wait_for_trace(destination: DestinationConfig, trace_id: bytes, *, patience_seconds: float) -> bool:
    """Whether the backend shows the trace within `patience_seconds`: backends take a while to show what they took.

    Raises ConfigError where `query_url` is not set or the preset's query API is not known, DeliveryRefused where the
    query API gives no answer that can be used.
    """
    path = PATHS.get(destination.preset)
    if destination.query_url is None or path is None:
        raise ConfigError(f"reading back needs [destination] query_url, and as preset one of {', '.join(PATHS)}")
    # Credentials of the receiver are nobody else's business.
    ours = origin_of(destination.query_url) == origin_of(destination.endpoint)
    headers = destination.revealed_headers() if ours else {}
    connection: Connection | None = None
    deadline = time.monotonic() + patience_seconds
    try:
        connection = Connection(
            destination.query_url,
            timeout_seconds=destination.timeout.total_seconds(),
            max_body_bytes=MAX_BODY_BYTES,
            ca_file=destination.ca_file,
            client_cert=destination.client_cert,
            client_key=destination.client_key,
        )
        while not _shows(await connection.request("GET", path.format(trace_id=trace_id.hex()), headers=headers)):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(PAUSE_SECONDS)
        return True
    except ConnectionFailed as failed:
        raise DeliveryRefused(f"query_url {destination.query_url}: {failed.reason}") from None
    except (BodyTooLarge, ValueError):
        raise DeliveryRefused(f"query_url {destination.query_url} answers with something else than a trace") from None
    except _Refused as refused:
        raise DeliveryRefused(f"query_url {destination.query_url} answered {refused}: check it and preset") from None
    finally:
        if connection:
            await connection.close()


class _Refused(Exception):
    """The query API answered with a status that says nothing of the trace."""


def _shows(reply: Reply) -> bool:
    if reply.status == 404:
        return False
    if reply.status != 200:
        raise _Refused(reply.status)
    document: Json = json.loads(reply.body)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    # Phoenix answers a search, which may find nothing.
    return document != {} and cast("dict[str, Json]", document).get("data") != []
