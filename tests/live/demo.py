"""All runs of the demo, sent to a destination by the daemon itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runspan.config import ContentConfig
from runspan.demo import bridge
from runspan.ledger import RowState
from runspan.pipeline.outbox import Parcel
from runspan.trace import Trace

RUNS = 38


class Exported(bridge.Shown):
    """Keeps every trace."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Trace] = []

    def add(self, parcel: Parcel, state: RowState) -> None:
        super().add(parcel, state)
        if state is RowState.EXPORTED:
            self.all.append(parcel.encoded.trace)


async def demo_into(destination: Mapping[str, Any], folder: Path, *, with_content: bool = False) -> list[Trace]:
    """The traces that the destination has acknowledged; the ledger goes to `folder`."""
    exported = Exported()
    async with bridge.simulated() as simulator:
        config = bridge.configure(simulator, destination, folder, "127.0.0.1:0")
        config = config.model_copy(update={"content": ContentConfig(capture=with_content)})
        await bridge.run(config, simulator, exported, once=True)
    assert exported.missing == []
    assert len(exported.all) == RUNS
    return exported.all
