"""What a backend's query API may answer when a trace is read back."""

import asyncio
from typing import Any

import pytest

from runspan.config import DestinationConfig
from runspan.errors import DeliveryRefused
from runspan.http import Reply
from runspan.readback import QueryApi


class Connection:
    def __init__(self, body: bytes) -> None:
        self.body = body

    async def request(self, *args: object, **settings: object) -> Reply:
        return Reply(200, {}, self.body)


async def shown(body: bytes) -> bool:
    api = QueryApi(DestinationConfig(query_url="http://jaeger:16686"))
    await api.close()
    connection: Any = Connection(body)
    api._connection = connection  # type: ignore[attr-defined]
    return await api.wait_for(bytes(16), patience_seconds=0)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"\xff", b'{"a":' * 100_000, b"[" * 1_000_000], ids=range(6))
def test_an_answer_that_is_no_trace_is_refused_in_a_line(body: bytes) -> None:
    with pytest.raises(
        DeliveryRefused, match=r"^query_url http://jaeger:16686 answers with something else than a trace$"
    ):
        asyncio.run(shown(body))


def test_a_trace_is_shown_or_not() -> None:
    assert asyncio.run(shown(b'{"data": [{}]}'))
    assert not asyncio.run(shown(b'{"data": []}'))
