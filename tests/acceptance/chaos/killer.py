"""Who kills the program, from outside, and at which instant.

killer.aim(process, At("export", Point.ANSWERED, nth=2))      # the store has it, the program will never know
killer.aim(process, Write(nth=40))                            # amid what it writes to its ledger
killer.aim(process, After(seconds=0.7))
killer.wait(5.0)
"""

import ctypes
import os
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.chaos.gate import Point

IN_MODIFY = 0x2
EVENT_HEADER = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class At:
    """The nth time that a request of this kind crosses this point."""

    kind: str
    point: Point
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.point} {self.nth}"


@dataclass(frozen=True, slots=True)
class Write:
    """The nth write to a file of the ledger: mostly between two pages of one transaction."""

    nth: int

    def __str__(self) -> str:
        return f"ledger write {self.nth}"


@dataclass(frozen=True, slots=True)
class After:
    """So many seconds from now."""

    seconds: float

    def __str__(self) -> str:
        return f"after {self.seconds:.3f} s"


Instant = At | Write | After


class Killer:
    """Kills one process at one instant at a time. Gates tell it of their crossings; the ledger's folder is watched."""

    def __init__(self, ledger_folder: Path) -> None:
        ledger_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._instant: Instant | None = None
        self._left = 0
        self._struck = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._folder = ledger_folder
        self.kills: list[Instant] = []
        """Every instant at which a living process was killed."""

    def aim(self, process: "subprocess.Popen[bytes]", instant: Instant) -> None:
        """Kill this process at this instant, and nobody before."""
        with self._lock:
            self._process, self._instant = process, instant
            self._left = 0 if isinstance(instant, After) else instant.nth
            self._struck.clear()
        match instant:
            case After(seconds):
                timer = threading.Timer(seconds, self._strike, (instant,))
                timer.daemon = True
                timer.start()
            case Write():
                # The watch is set before this returns, so that no write goes uncounted.
                watch = self._libc.inotify_init1(0)
                assert self._libc.inotify_add_watch(watch, os.fsencode(self._folder), IN_MODIFY) >= 0
                threading.Thread(target=self._count_writes, args=(watch, instant), daemon=True).start()
            case At():
                pass

    def wait(self, process: "subprocess.Popen[bytes]", patience_seconds: float) -> bool:
        """Whether it has struck, as soon as it has, or the process has ended by itself, or the patience is over."""
        deadline = time.monotonic() + patience_seconds
        while not self._struck.wait(0.02) and process.poll() is None and time.monotonic() < deadline:
            pass
        with self._lock:
            self._instant = None
        return self._struck.is_set()

    def crossing(self, kind: str, point: Point) -> None:
        """For a gate: kills, and returns when the process is dead."""
        instant = self._instant
        if isinstance(instant, At) and (instant.kind, instant.point) == (kind, point):
            self._count(instant)

    def _count_writes(self, watch: int, instant: Write) -> None:
        with open(watch, "rb", buffering=0, closefd=True) as events:
            while self._instant is instant and not self._struck.is_set():
                for _ in range(_events_in(events.read(4096))):
                    self._count(instant)

    def _count(self, instant: Instant) -> None:
        with self._lock:
            self._left -= 1
            due = self._left == 0
        if due:
            self._strike(instant)

    def _strike(self, instant: Instant) -> None:
        with self._lock:
            process = self._process
            if self._instant is not instant or process is None or process.poll() is not None:
                return
            process.kill()
            process.wait()
            self.kills.append(instant)
            self._struck.set()


def _events_in(data: bytes) -> int:
    number = 0
    while data:
        *_, name_bytes = EVENT_HEADER.unpack_from(data)
        data = data[EVENT_HEADER.size + name_bytes :]
        number += 1
    return number
