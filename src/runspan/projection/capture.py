"""What of a run's content may be shown: by kind, by JSON key and by pattern. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runspan.model import Content, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRules:
    """Which JSON keys of arguments and results may be shown, at any depth; keys are compared without regard to case."""

    allowed: frozenset[str] = frozenset()
    """Only what stands under these, all the way from the top; empty: all."""
    denied: frozenset[str] = frozenset()
    """The values of these are masked, whatever they are."""

    def allows(self, key: str) -> bool:
        """Whether the key may be there at all."""
        return not self.allowed or key.casefold() in self.allowed

    def denies(self, key: str) -> bool:
        """Whether its value is masked."""
        return key.casefold() in self.denied


ALL_KEYS = KeyRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRules:
    """What is left of content that is captured, before it is redacted and cut."""

    prompts: bool = True
    """System instructions, and what the run and its model calls were given."""
    messages: bool = True
    """What the run and its model calls answered."""
    reasoning: bool = True
    """What a model thought on the way."""
    arguments: bool = True
    results: bool = True
    logs: bool = True
    """The texts of notes: outputs on the way, issues."""
    keys: KeyRules = ALL_KEYS
    masks: tuple[re.Pattern[str], ...] = ()
    """Masked beside secrets and e-mail addresses, in everything that is text."""
    max_bytes: int | None = None
    """No attribute with content is longer, in UTF-8."""

    def of(self, content: Content) -> Content:
        """The content without the kinds that are switched off."""
        return replace(
            content,
            system=content.system if self.prompts else None,
            input=content.input if self.prompts else (),
            output=self._answers(content.output),
            arguments=content.arguments if self.arguments else None,
            result=content.result if self.results else None,
            text=content.text if self.logs else None,
            thought=content.thought if self.reasoning else None,
        )

    def limit(self, limit_bytes: int) -> int:
        """The smaller of that limit and our own."""
        return limit_bytes if self.max_bytes is None else min(self.max_bytes, limit_bytes)

    def _answers(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        if self.messages and self.reasoning:
            return tuple(messages)
        answers = (
            replace(
                message,
                text=message.text if self.messages else None,
                reasoning=message.reasoning if self.reasoning else None,
            )
            for message in messages
        )
        return tuple(message for message in answers if message.text is not None or message.reasoning is not None)


EVERYTHING = ContentRules()
