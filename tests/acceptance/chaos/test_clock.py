"""The machine's clock jumps while the daemon runs: a day ahead, and back. Needs libfaketime (Debian: faketime)."""

from pathlib import Path

import pytest

from tests import figures
from tests.acceptance.chaos.rig import Rig

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed (Debian: apt-get install faketime)")
def test_a_clock_that_jumps(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    environ = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        # As with a real jump, the monotonic clock goes on.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with Rig(tmp_path / "rig", ["casedev", "elizaos"], environ=environ) as rig:
        with rig.start("run") as daemon:
            # What is set up under one of these clocks has to go on under the next.
            for jump in ("+0", "+1d", "-1d", "+0", "-3h", "+0") if figures.SOAK else ("+0", "+1d", "+0"):
                figures.note(faults=1)
                offset.write_text(jump + "\n")
                rig.settle(daemon)
        rig.check_ledger()
        rig.judge().check()
