"""A source's door whose answers are told by the test."""

from collections.abc import Callable, Sequence
from typing import Any

from runspan.sources.client import Client

Answer = Callable[[str, dict[str, Any]], Any]


class ScriptedClient(Client):
    """Answers from `answer(path, params)`; an exception given instead of a document is raised. Keeps what was asked."""

    def __init__(self, answer: Answer) -> None:
        self.origin = "https://platform.example.test"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answer = answer

    async def get_json(self, segments: Sequence[str], params: Any = None) -> Any:
        path = "/" + "/".join(segments)
        sent = {key: value for key, value in (params or {}).items() if value is not None}
        self.asked.append((path, sent))
        document = self._answer(path, sent)
        if isinstance(document, Exception):
            raise document
        return document
