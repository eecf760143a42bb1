"""Sample runs: builders that make one run of a platform, and a company's day of them."""

from runspan.demo.samples.builders import Call, casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.samples.company import populate

__all__ = ["Call", "casedev_run", "elizaos_run", "flowyble_run", "populate", "runtype_execution"]
