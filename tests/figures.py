"""What a soak adds up: tests note figures, `scripts/soak.py` sums them.

Without RUNSPAN_SOAK=1 in the environment the tests are as short as a build wants them, and nothing is noted.
"""

import json
import os
from collections import Counter
from pathlib import Path

SOAK = os.environ.get("RUNSPAN_SOAK") == "1"
FOLDER = Path(__file__).parents[1] / "build/soak"


def rounds(quick: int, soak: int) -> range:
    """How often a test is to be repeated, each time with another seed."""
    return range(soak if SOAK else quick)


def note(**figures: int) -> None:
    """Add to the soak's figures; each process has a file of its own."""
    if SOAK:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(figures) + "\n")


def total() -> Counter[str]:
    """All that was noted since the folder was cleared."""
    sums: Counter[str] = Counter()
    for file in FOLDER.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            sums.update(json.loads(line))
    return sums
