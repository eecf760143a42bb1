"""What of the configuration a trace depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runspan.model import AttributeValue
from runspan.otlp.presets import GENERIC, Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSettings:
    """Everything besides the run itself that a trace depends on."""

    source: str
    """The source's name, a label on every span."""
    service_name: str = "{source}"
    """A template in which {source}, {platform} and {agent} stand for their names."""
    service_namespace: str | None = None
    resource: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    """Further resource attributes; they win over ours."""
    currency: str | None = "usd"
    """The currency of amounts that the platform gives without one; None leaves them without."""
    cancelled_is_error: bool = True
    capture_content: bool = False
    agent_names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Agent id to name, where the platform tells no name."""
    preset: Preset = GENERIC
