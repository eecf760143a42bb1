"""The four simulated platforms."""

from runspan.demo.platforms.base import Platform, Quirks, RateLimit
from runspan.demo.platforms.casedev import Casedev
from runspan.demo.platforms.elizaos import Elizaos
from runspan.demo.platforms.flowyble import Flowyble, ListShape
from runspan.demo.platforms.runtype import Runtype

PLATFORMS: tuple[type[Platform], ...] = (Flowyble, Runtype, Elizaos, Casedev)

__all__ = ["PLATFORMS", "Casedev", "Elizaos", "Flowyble", "ListShape", "Platform", "Quirks", "RateLimit", "Runtype"]
