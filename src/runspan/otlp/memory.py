"""A destination in memory: takes what it is sent, or answers as it is told. For tests and for trying things out."""

from collections.abc import Callable, Sequence

from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter


def accept(traces: Sequence[EncodedTrace]) -> Answer:
    """The answer to everything, unless told otherwise."""
    return Answer(AnswerKind.ACCEPTED)


class MemoryExporter(Exporter):
    """`respond` decides each answer. `requests` holds every request, `taken` every trace that was acknowledged."""

    def __init__(
        self,
        respond: Callable[[Sequence[EncodedTrace]], Answer] = accept,
        *,
        max_request_bytes: int = 4_000_000,
    ) -> None:
        self.respond = respond
        self.max_request_bytes = max_request_bytes
        self.requests: list[tuple[EncodedTrace, ...]] = []
        self.taken: list[EncodedTrace] = []
        self.closed = False

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        """Note the request and answer it."""
        self.requests.append(tuple(traces))
        answer = self.respond(traces)
        if answer.kind in (AnswerKind.ACCEPTED, AnswerKind.PARTIAL):
            self.taken.extend(traces)
        return answer

    async def close(self) -> None:
        """Note that the destination was closed."""
        self.closed = True
