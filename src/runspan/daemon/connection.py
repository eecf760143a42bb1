"""A connection to the daemon's window: few at a time, one request on each, and none for long.

Whoever reaches the port could otherwise take every file descriptor of the process, and the exports would have none; or
ask, read nothing, and so keep all others out.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
IDLE_SECONDS = 10.0
"""In which a whole request must have come; and then, again and again, some of its answer have been taken."""
LONGEST_SECONDS = 60.0
"""After which a connection ends, however steadily its peer sips."""
STOP_SECONDS = 1.0
"""How long a peer may hold up the end of the program."""


class Connection(H11Protocol):
    """uvicorn's, which by itself waits for ever: for a request, for its answer to be read, for more connections.

    Requests that are sent behind the first one are never read: the window's answers say `Connection: close`.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Turned away where there are too many."""
        super().connection_made(transport)
        self._end_seconds = self.loop.time() + LONGEST_SECONDS
        self._watch()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()

    def _watch(self) -> None:
        self._waiting_bytes = self.transport.get_write_buffer_size()
        self._look = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        is_answering = bool(self.cycle) and not self.cycle.response_complete
        is_taking = self.transport.get_write_buffer_size() != self._waiting_bytes
        if (is_answering or is_taking) and self.loop.time() < self._end_seconds:
            self._watch()
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """From now on it is to be taken."""
        super().on_response_complete()
        self._look.cancel()
        self._watch()

    def shutdown(self) -> None:
        """The program ends: an answer that is under way may still be taken, but not for long."""
        super().shutdown()
        self._look.cancel()
        self._look = self.loop.call_later(STOP_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """No more to be watched."""
        super().connection_lost(exc)
        self._look.cancel()
