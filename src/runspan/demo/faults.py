"""What a test makes go wrong at a platform's door."""

import math
import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """This answer instead of the platform's."""

    status: int
    body: str | bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class CutOff:
    """The platform's own answer, of which only half arrives.

    With `honest_length` the content length tells of that half, so the answer is whole as HTTP and broken as JSON;
    without, it promises all of it and the connection closes in the middle.
    """

    honest_length: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """The platform's own answer, so many seconds late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST) instead of an answer."""


@dataclass(frozen=True, slots=True)
class Close:
    """The connection is closed (FIN) instead of an answer."""


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer ever; the connection stays open."""


Effect = Reply | CutOff | Delay | Reset | Close | Hang


@dataclass(slots=True)
class Fault:
    """A rule: requests to `platform` whose path and query match the regular expression `path` meet `effect`.

    It holds for the first `times` such requests, or for ever. Of several rules that match the first one counts.
    """

    platform: str
    path: str
    effect: Effect
    times: float = math.inf

    def takes(self, platform: str, target: str) -> bool:
        """Whether the rule is for this request; if so, one of its times is used up."""
        if self.times <= 0 or platform != self.platform or not re.search(self.path, target):
            return False
        self.times -= 1
        return True


def html(status: int = 502) -> Reply:
    """The page of a proxy where JSON was due."""
    page = "<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
    return Reply(status, page, {"content-type": "text/html; charset=utf-8"})


def redirect(location: str, status: int = 302) -> Reply:
    """Off to somewhere else."""
    return Reply(status, headers={"location": location})
