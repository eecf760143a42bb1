"""What of the configuration a trace depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from runspan.model import AttributeValue
from runspan.otlp.presets import GENERIC, Preset
from runspan.projection.capture import EVERYTHING, ContentRules
from runspan.projection.prices import NO_PRICES, Prices


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
    content: ContentRules = EVERYTHING
    """What is left of it where it is captured."""
    prices: Prices = NO_PRICES
    credit_rate: Decimal | None = None
    """What one credit is worth in `currency`."""
    agent_names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Agent id to name, where the platform tells no name."""
    preset: Preset = GENERIC

    @property
    def tool_content(self) -> bool:
        """Whether what tools were given or gave back is shown, so that it has to be fetched."""
        return self.capture_content and (self.content.arguments or self.content.results)
