"""Names of attributes by convention: each is one module of pure functions from a run or a step to attributes."""

from collections.abc import Mapping
from typing import Protocol

from runspan.model import AttributeValue, Run, Step
from runspan.projection.accounting import Account
from runspan.projection.conventions import gen_ai


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
        """Attributes of a step's span or event."""
        ...


CONVENTIONS: Mapping[str, Convention] = {"gen_ai": gen_ai}
"""Every convention by the name that presets and settings use."""
