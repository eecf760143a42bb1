"""What platforms and destinations do on a bad day, drawn by lot."""

from collections.abc import Callable
from email.utils import formatdate
from time import time

from runspan.demo.faults import Close, CutOff, Delay, Effect, Fault, Reply, Reset, html, redirect
from tests import figures
from tests.acceptance.chaos.rig import Rig
from tests.otlp_store import Reply as Answer
from tests.otlp_store import lost_ack, page, partial, refuse, reset, slow

SOURCE_FAULTS: tuple[Callable[[], Effect], ...] = (
    lambda: Reply(429, headers={"retry-after": "1"}),
    lambda: Reply(429, headers={"retry-after": formatdate(time() + 2, usegmt=True)}),
    lambda: Reply(500, "{}"),
    lambda: Reply(503, "{}", {"retry-after": "1"}),
    lambda: html(502),
    lambda: html(200),
    lambda: Reply(200, "null"),
    lambda: redirect("http://127.0.0.1:9/elsewhere"),
    lambda: CutOff(honest_length=True),
    lambda: CutOff(honest_length=False),
    lambda: Delay(0.3),
    Reset,
    Close,
)
STORE_FAULTS: tuple[Callable[[], Answer], ...] = (
    lambda: refuse(429, retry_after="1"),
    lambda: refuse(429, retry_after=formatdate(time() + 2, usegmt=True)),
    lambda: refuse(429),
    lambda: refuse(503, retry_after="1"),
    lambda: refuse(502),
    lambda: refuse(500),
    lambda: refuse(400, "no"),
    lambda: refuse(401),
    lambda: refuse(404),
    lambda: refuse(413),
    lambda: page(200),
    lambda: partial(1, "one span was odd"),
    lambda: slow(0.3),
    lost_ack,
    reset,
)
QUIRKS = ("unsorted", "shuffled_pages", "empty_pages")
COUNTED_QUIRKS = ("duplicated_rows", "repeated_cursors", "expired_cursors", "dead_cursors")


class Weather:
    """What goes wrong at the rig's platforms and its store."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._faults: list[tuple[Fault, int]] = []
        self._answers = 0

    def storm(self) -> None:
        """Some of everything goes wrong from here on, each a few times, until it `clears`."""
        rig, chance = self._rig, self._rig.random
        for platform in rig.sources:
            for _ in range(chance.randrange(3)):
                # One path in two: a fault on all of them would often be used up by the lists.
                path = chance.choice([".", "details|runs/.|executions/."])
                times = chance.randrange(1, 4)
                fault = rig.simulator.fault(platform, path, chance.choice(SOURCE_FAULTS)(), times)
                self._faults.append((fault, times))
            quirks = rig.simulator.platforms[platform].quirks
            for quirk in QUIRKS:
                setattr(quirks, quirk, chance.random() < 0.3)
            for quirk in COUNTED_QUIRKS:
                setattr(quirks, quirk, chance.randrange(3))
        answers = [chance.choice(STORE_FAULTS)() for _ in range(chance.randrange(4))]
        rig.store.answer(*answers)
        self._answers += len(answers)

    def clear(self) -> None:
        """All is well again. What nobody met in time is not counted."""
        rig = self._rig
        rig.simulator.faults.clear()
        met = sum(fault.times < times for fault, times in self._faults)
        figures.note(faults=met + self._answers - rig.store.forget_answers())
        for platform in rig.sources:
            kind = type(rig.simulator.platforms[platform].quirks)
            rig.simulator.platforms[platform].quirks = kind()
