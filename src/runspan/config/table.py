"""What every table of the configuration is, and how one refuses what is wrong in it."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def refusal(path: tuple[str | int, ...], text: str) -> InitErrorDetails:
    """One thing that is wrong, `path` below the model that a validator belongs to; for `refuse`."""
    return InitErrorDetails(type=PydanticCustomError("refused", "{text}", {"text": text}), loc=path, input=None)


def refuse(refusals: Iterable[InitErrorDetails]) -> None:
    """Raise all refusals as one error, each at its own place; nothing if there are none."""
    if errors := list(refusals):
        raise ValidationError.from_exception_data("refused", errors)


class Table(BaseModel):
    """A table of the file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
