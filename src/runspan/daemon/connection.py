"""A connection to the daemon's window: few at a time, and none for long without a request.

Whoever reaches the port could otherwise take every file descriptor of the process, and the exports would have none.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
IDLE_SECONDS = 10.0
"""In which a whole request must have come."""


class Connection(H11Protocol):
    """uvicorn's, which by itself waits for ever for a first request, and for as many connections as come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Turned away where there are too many."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()

    def _watch(self) -> None:
        self._look = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        is_answering = self.cycle and not self.cycle.response_complete
        if is_answering:
            self._watch()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """No more to be watched."""
        super().connection_lost(exc)
        self._look.cancel()
