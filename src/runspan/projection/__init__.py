"""From a run to its trace, as a pure function: no I/O, no clock, no randomness."""

from runspan.projection.ids import MAPPING_VERSION, root_span_id, span_id, trace_id
from runspan.projection.settings import ProjectionSettings
from runspan.projection.tree import project

__all__ = ["MAPPING_VERSION", "ProjectionSettings", "project", "root_span_id", "span_id", "trace_id"]
