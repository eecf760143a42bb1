"""Builders of runs in the vendors' body shapes, each with good defaults.

A `key` (a number, a word) stands for the run: the same key gives the same id and the same numbers, in any process.
What the agent did is told as `Call`s, the same way for every platform. `changes` overwrites fields of the finished
body, so that a test can make it as bad as it likes. A run starts `queue_seconds` after its creation and takes
`seconds`; None: it never ends.
"""

from runspan.demo.samples.builders.call import Call
from runspan.demo.samples.builders.casedev import CONTRACT_REVIEWER, casedev_run
from runspan.demo.samples.builders.elizaos import FREJA, elizaos_run
from runspan.demo.samples.builders.flowyble import STOCK_BOT, flowyble_run
from runspan.demo.samples.builders.runtype import REPORT_WRITER, runtype_execution

__all__ = [
    "CONTRACT_REVIEWER",
    "FREJA",
    "REPORT_WRITER",
    "STOCK_BOT",
    "Call",
    "casedev_run",
    "elizaos_run",
    "flowyble_run",
    "runtype_execution",
]
