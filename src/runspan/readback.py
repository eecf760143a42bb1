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


class QueryApi:
    """The query API of a destination's backend.

    Raises ConfigError where `query_url` is not set or the preset's query API is not known, DeliveryRefused where its
    certificates cannot be loaded.
    """

    def __init__(self, destination: DestinationConfig) -> None:
        path = PATHS.get(destination.preset)
        if destination.query_url is None or path is None:
            raise ConfigError(f"reading back needs [destination] query_url, and as preset one of {', '.join(PATHS)}")
        self._path = path
        self._url = destination.query_url
        # Credentials of the receiver are nobody else's business.
        ours = origin_of(self._url) == origin_of(destination.endpoint)
        self._headers = destination.revealed_headers() if ours else {}
        try:
            self._connection = Connection(
                self._url,
                timeout_seconds=destination.timeout.total_seconds(),
                max_body_bytes=MAX_BODY_BYTES,
                ca_file=destination.ca_file,
                client_cert=destination.client_cert,
                client_key=destination.client_key,
            )
        except ConnectionFailed as failed:
            raise DeliveryRefused(f"query_url {self._url}: {failed.reason}") from None

    async def wait_for(self, trace_id: bytes, *, patience_seconds: float) -> bool:
        """Whether the backend shows the trace within `patience_seconds`: it may take a while to show what it took.

        Raises DeliveryRefused where the query API gives no answer that can be used.
        """
        deadline = time.monotonic() + patience_seconds
        path = self._path.format(trace_id=trace_id.hex())
        try:
            while not _shows(await self._connection.request("GET", path, headers=self._headers)):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(PAUSE_SECONDS)
        except ConnectionFailed as failed:
            raise DeliveryRefused(f"query_url {self._url}: {failed.reason}") from None
        except (BodyTooLarge, ValueError, RecursionError):
            raise DeliveryRefused(f"query_url {self._url} answers with something else than a trace") from None
        except _Refused as refused:
            raise DeliveryRefused(f"query_url {self._url} answered {refused}: check it and preset") from None
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()


async def wait_for_trace(destination: DestinationConfig, trace_id: bytes, *, patience_seconds: float) -> bool:
    """`QueryApi.wait_for` for one trace alone; raises what `QueryApi` and it raise."""
    api = QueryApi(destination)
    try:
        return await api.wait_for(trace_id, patience_seconds=patience_seconds)
    finally:
        await api.close()


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
