"""A day at an outdoor outfitter that has put agents to work: some forty runs on the four platforms.

Most have ended in the last hours, some end while one watches, some never do. Every status and oddity that the
platforms are known for is among them.
"""

from functools import partial

from runspan.demo.samples.builders import (
    CONTRACT_REVIEWER,
    FREJA,
    REPORT_WRITER,
    STOCK_BOT,
    Call,
    casedev_run,
    elizaos_run,
    flowyble_run,
    runtype_execution,
)
from runspan.demo.world import MS_NS, SECOND_NS, World, WorldAgent, WorldRun

REFUND_DESK = WorldAgent(
    agent_id="c2d8f7b1-0f4e-4a3a-8a57-9b1e6d5c4f20", name="refund-desk", description="Decides on refunds up to 500 EUR."
)
FIGURES = WorldAgent(agent_id="agent_0be4d6a81f33", name="figures", description="Answers questions to the warehouse.")
TRIAGE = WorldAgent(agent_id="agent_5f90a7c2d418", name="support-triage", description="Sorts incoming tickets.")
IDLE = WorldAgent(agent_id="agent_e1b2c3d4a5f6", name="newsletter", description="Not in use yet.")
NIGHT_DESK = WorldAgent(
    agent_id="1f6a3c58-92d4-4e7b-b0c9-6d2e8f4a7b15", name="Night desk", description="Answers at night.", active=False
)
CLAIMS = WorldAgent(agent_id="agent_7e03b58d", name="claims-summariser", description="Sums up insurance claims.")
ONE_OFF = WorldAgent(agent_id="agent_tmp_93ab", name="one-off")

AGENTS = {
    "flowyble": (STOCK_BOT, REFUND_DESK),
    "runtype": (REPORT_WRITER, FIGURES, TRIAGE, IDLE),
    "elizaos": (FREJA, NIGHT_DESK),
    "casedev": (CONTRACT_REVIEWER, CLAIMS),
}

REFUND_CALLS = (
    Call("GetOrder", {"order": "SE-204417"}, {"total": 189.0, "delivered": "2026-04-28"}, "Is it within the 30 days?"),
    Call("CheckReturnScan", {"order": "SE-204417"}, {"scanned": True}, "Has the parcel come back?"),
    Call("IssueRefund", {"order": "SE-204417", "amount": 189.0}, {"refund": "rf_8812"}, "All is in order."),
)
FAILED_SEARCH = (
    Call("search_docs", {"query": "carrier contracts 2026"}, None, "Look for the contract.", 812, "HTTP 502"),
    Call("search_docs", {"query": "carrier contract"}, {"hits": 2}, "Once more, with other words.", 640),
)
LONG_CALLS = tuple(
    Call("stock_of_week", {"filter": f"week = {week}"}, {"rows": 40 + week}, f"Week {week} is next.")
    for week in range(1, 27)
)
CLAIM_CALLS = (
    Call("vault_search", {"q": "water damage, store Lund"}, {"objects": ["obj_71"]}, "Find the claim."),
    Call("bash", {"cmd": "python extract.py obj_71"}, "3 invoices, 41 200 SEK", "Add the invoices up."),
    Call("vault_search", {"q": "policy terms water"}, None, "Is it covered?", None, "HTTP 504 from vault"),
)
PARCEL_CALLS = (
    Call("TRACK_PARCEL", {"parcel": "RR118420SE"}, None, "I have to ask the carrier.", 420),
    Call("REPLY", {"text": "It is in Kiruna and comes tomorrow."}, None, "Now I can answer."),
)
BROKEN_ACTION = (Call("TRACK_PARCEL", {"parcel": "?"}, None, "I have to ask the carrier.", None, "no such parcel"),)


def populate(world: World) -> None:
    """Fill an empty world; all times lie around its present instant."""
    for platform, agents in AGENTS.items():
        for agent in agents:
            world.add_agent(platform, agent)
    now_ns = world.now()
    for run in (*_flowyble(now_ns), *_runtype(now_ns), *_elizaos(now_ns), *_casedev(now_ns)):
        world.add(run)


def _flowyble(now_ns: int) -> list[WorldRun]:
    ago = _Clock(now_ns)
    prompt = "Customer asks for a refund of SE-204417."
    refund = partial(flowyble_run, agent=REFUND_DESK, prompt=prompt, calls=REFUND_CALLS)
    return [
        flowyble_run("reorder tent", created_at_ns=ago.minutes(118)),
        refund("refund 1", created_at_ns=ago.minutes(95), seconds=16.0, answer="Refunded 189.00 EUR."),
        flowyble_run(
            "reorder stove", created_at_ns=ago.minutes(71), status="Failed", seconds=31.0, error="Model timeout"
        ),
        refund("refund 2", created_at_ns=ago.minutes(52), status="Cancelled", seconds=6.0),
        flowyble_run("stock count", created_at_ns=ago.minutes(40), seconds=95.0, calls=LONG_CALLS),
        flowyble_run(
            "greeting", created_at_ns=ago.minutes(21), seconds=2.0, prompt="Hello?", answer="Hello!", calls=()
        ),
        refund("refund 3", created_at_ns=ago.minutes(9), seconds=14.0, late_rows=1, late_seconds=3.0),
        flowyble_run("live 1", created_at_ns=ago.seconds(3), seconds=6.0),
        refund("live 2", created_at_ns=ago.seconds(1), seconds=9.0),
        flowyble_run(
            "cancelled in the queue", created_at_ns=ago.minutes(6), status="Cancelled", queue_seconds=None, calls=()
        ),
    ]


def _runtype(now_ns: int) -> list[WorldRun]:
    ago = _Clock(now_ns)
    report = runtype_execution(
        "quarterly report",
        created_at_ns=ago.minutes(110),
        queue_seconds=30.0,
        seconds=135.0,
        calls=FAILED_SEARCH,
        stop_reason="max_iterations_reached",
        surface="web",
    )
    live = runtype_execution("live report", created_at_ns=ago.seconds(4), seconds=12.0)
    ticket = "Ticket 88120: zip of the jacket broke after a week."
    triage = partial(runtype_execution, agent=TRIAGE, prompt=ticket, surface="webhook")
    return [
        report,
        runtype_execution(
            "figures of the report", created_at_ns=ago.minutes(109), agent=FIGURES, seconds=20.0, parent=report
        ),
        triage("triage 1", created_at_ns=ago.minutes(84), seconds=3.5, calls=(), answer="warranty"),
        triage("triage 2", created_at_ns=ago.minutes(66), seconds=60.0, status="error", stop_reason="timeout"),
        runtype_execution(
            "weekly stock", created_at_ns=ago.minutes(58), agent=FIGURES, seconds=240.0, calls=LONG_CALLS
        ),
        triage("triage 3", created_at_ns=ago.minutes(33), seconds=1.2, status="error", stop_reason="error"),
        runtype_execution(
            "report called off", created_at_ns=ago.minutes(25), seconds=8.0, status="cancelled", stop_reason=None
        ),
        runtype_execution("waits for approval", created_at_ns=ago.minutes(19), seconds=None, status="paused"),
        runtype_execution("came in by OTLP", created_at_ns=ago.minutes(15), external=True),
        runtype_execution("late calls", created_at_ns=ago.minutes(4), agent=FIGURES, late_rows=1, late_seconds=3.0),
        live,
        runtype_execution("live figures", created_at_ns=ago.seconds(2), agent=FIGURES, seconds=5.0, parent=live),
    ]


def _elizaos(now_ns: int) -> list[WorldRun]:
    ago = _Clock(now_ns)
    return [
        elizaos_run(
            "parcel", created_at_ns=ago.minutes(104), room="discord-help", calls=PARCEL_CALLS, evaluators=["REFLECTION"]
        ),
        elizaos_run("thanks", created_at_ns=ago.minutes(103), room="discord-help", prompt="Thanks!", seconds=0.8),
        elizaos_run(
            "no answer", created_at_ns=ago.minutes(77), seconds=1.9, error="Provider openai answered 500", calls=()
        ),
        elizaos_run("broken action", created_at_ns=ago.minutes(62), calls=BROKEN_ACTION),
        elizaos_run(
            "timed out", created_at_ns=ago.minutes(48), status="timeout", seconds=30.0, ends_again_after_seconds=2.1
        ),
        elizaos_run("her own words", created_at_ns=ago.minutes(44), status="self", seconds=0.01, calls=()),
        elizaos_run("muted room", created_at_ns=ago.minutes(43), status="muted", seconds=0.02, calls=()),
        elizaos_run("replaced", created_at_ns=ago.minutes(36), status="replaced", seconds=0.4, calls=()),
        elizaos_run("documented shape", created_at_ns=ago.minutes(27), documented=True, tokens=True),
        elizaos_run("server was killed", created_at_ns=ago.minutes(17), seconds=None),
        elizaos_run("live 1", created_at_ns=ago.seconds(1), seconds=5.0, calls=PARCEL_CALLS, late_ms=2100),
        elizaos_run("live 2", created_at_ns=ago.seconds(-2), seconds=4.0),
    ]


def _casedev(now_ns: int) -> list[WorldRun]:
    ago = _Clock(now_ns)
    prompt = "Sum up the claim for the water damage in the Lund store."
    claim = partial(casedev_run, agent=CLAIMS, prompt=prompt, calls=CLAIM_CALLS)
    return [
        casedev_run("umea lease", created_at_ns=ago.minutes(115)),
        claim("lund claim", created_at_ns=ago.minutes(90), status="failed", seconds=59.0, issues=["tool failed"]),
        casedev_run("with issues", created_at_ns=ago.minutes(68), issues=["page 14 could not be read"]),
        casedev_run("called off", created_at_ns=ago.minutes(55), status="cancelled", seconds=12.0),
        casedev_run("translation", created_at_ns=ago.minutes(41), agent=ONE_OFF, ephemeral=True, calls=(), seconds=9.0),
        casedev_run("all leases", created_at_ns=ago.minutes(30), seconds=420.0, calls=CLAIM_CALLS * 8),
        casedev_run(
            "cancelled in the queue", created_at_ns=ago.minutes(13), status="cancelled", queue_seconds=None, calls=()
        ),
        claim("late steps", created_at_ns=ago.minutes(3), late_rows=2, late_seconds=3.0),
        casedev_run("old and slow", created_at_ns=ago.minutes(45), seconds=45 * 60 + 6.0),
        claim("live 1", created_at_ns=ago.seconds(2), seconds=7.0),
    ]


class _Clock:
    """Instants before now; negative ones lie ahead."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns // MS_NS * MS_NS

    def seconds(self, number: float) -> int:
        return self._now_ns - int(number * SECOND_NS)

    def minutes(self, number: float) -> int:
        return self.seconds(60 * number)
