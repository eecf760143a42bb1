"""Names of attributes by convention: each is one module of pure functions from a run or a step to attributes."""

from collections.abc import Mapping
from typing import Protocol

from runspan.model import AttributeValue, Run, Step, StepKind
from runspan.projection.accounting import Account
from runspan.projection.conventions import gen_ai, langfuse, openinference


class Convention(Protocol):
    """What a convention's module gives; an attribute that is None is left out."""

    @staticmethod
    def on_every_span(run: Run) -> Mapping[str, AttributeValue | None]:
        """Attributes that each span of the run carries."""
        ...

    @staticmethod
    def on_root(run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
        """Attributes of the run's own span."""
        ...

    @staticmethod
    def on_step(step: Step, run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
        """Attributes of a step's span."""
        ...

    @staticmethod
    def on_error(error_type: str, description: str) -> Mapping[str, AttributeValue | None]:
        """Attributes of a span that failed, with the description of its status, which may be empty."""
        ...

    @staticmethod
    def on_content(kind: StepKind | None, said: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue | None]:
        """Attributes of a span whose content is captured; `kind` is None for the run's own.

        `said` is the content as `gen_ai` tells it, redacted and cut to its limit. There is no other way to content, so
        no convention shows more of it than another.
        """
        ...


CONVENTIONS: Mapping[str, Convention] = {"gen_ai": gen_ai, "openinference": openinference, "langfuse": langfuse}
"""Every convention by the name that presets and settings use."""
