"""Errors named by their consequence.

    RunspanError                  one line for a person: what, where, what to do
    +- ConfigError                nothing starts until the configuration is mended (exit 2)
    +- SourceUnavailable          the source is asked again later; other sources go on (exit 3)
    |  +- SourceRefused           the key or its rights are wrong: the source pauses, someone must act
    |  +- SourceBusy              the platform wants fewer requests: nothing is wrong with what was asked for
    |  +- SourceSilent            no answer came in time: asked again, but not at once
    |  '- SourceGarbled           the answer is no JSON: asked again, then the run is quarantined
    +- RunUnreadable              this run is quarantined; others go on
    |  '- AnswerTooLarge          of a list, fewer rows are asked for
    +- RunGone                    the platform no longer has this run
    +- DeliveryRefused            the destination will not take what we send (exit 3)
    '- LedgerUnusable             the program stops: without its ledger it would lose or double runs (exit 4)
       +- LedgerOlder            it must be migrated first: who only looks leaves it as it is, and does without
       '- LedgerReadOnly         it cannot be written here: who only looks does without

No message carries a response body, a header or a secret.
"""

import traceback
from typing import ClassVar

from runspan import exits


class RunspanError(Exception):
    """Base of all errors that a user may see; its text is one line."""

    exit_code: ClassVar[int] = exits.INCOMPLETE
    """What the program ends with where nothing catches it."""


def said(error: BaseException) -> str:
    """One line for the log: an error of ours in its own words, a hole in the program by its place in the code."""
    if isinstance(error, RunspanError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return f"{type(error).__name__}; please report this"
    file = frames[-1].filename.rpartition("/")[2]
    return f"{type(error).__name__} at {frames[-1].name}:{frames[-1].lineno} ({file}); please report this"


class ConfigError(RunspanError):
    """The configuration or the command line is wrong."""

    exit_code = exits.BAD_CONFIG


class SourceUnavailable(RunspanError):
    """A source did not give an answer that can be used; asking later may help.

    `retry_after_seconds` is what the platform asked for, if it did.
    """

    exit_code = exits.UNREACHABLE

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SourceRefused(SourceUnavailable):
    """A source refuses our key, or its rights (401, 403): only a person can mend it."""


class SourceBusy(SourceUnavailable):
    """A source wants fewer requests (429), or none of any kind until a pause is over that it has asked for."""


class SourceSilent(SourceUnavailable):
    """A source gave no answer in time. Each try takes as long, so others go first."""


class SourceGarbled(SourceUnavailable):
    """A source answered 200 with something that is not JSON: HTML, or a body cut off."""


class RunUnreadable(RunspanError):
    """A run's body cannot become a trace.

    `retryable` says whether asking the platform again may give a sound body.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class AnswerTooLarge(RunUnreadable):
    """An answer has more bytes than `max_body` allows, or more values than memory should hold."""


class RunGone(RunspanError):
    """The platform does not have the run (404, or faded out of its window)."""


class DeliveryRefused(RunspanError):
    """The destination refuses what we send, so nothing is sent until someone acts."""

    exit_code = exits.UNREACHABLE


class LedgerUnusable(RunspanError):
    """The ledger cannot be opened, read or written, or another daemon holds it."""

    exit_code = exits.NO_LEDGER


class LedgerOlder(LedgerUnusable):
    """The ledger is sound, but of an older release, and is not to be migrated by this command, or not now."""


class LedgerReadOnly(LedgerUnusable):
    """This user cannot write the ledger where it is: its permissions, its folder's, or the mount."""
