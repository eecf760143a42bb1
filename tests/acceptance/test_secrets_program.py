"""What the program may write where: canaries in everything secret or said by strangers, and a look at every byte.

| kind | planted in | may stand in |
| --- | --- | --- |
| key | keys, headers, tokens, by environment or file; sent back to us in errors | nothing |
| answer | platforms' and destinations' bodies, headers and reason phrases that are no runs | nothing |
| masked | what looks like a secret, within a destination's words or a declared error | nothing |
| line | the lines of an ids file that are no ids | nothing |
| content | prompts, messages, thoughts, arguments, results, logs | the traces, with capture on |
| declared | fields that a vendor declares as errors | the traces |
| word | the first 256 characters of what a destination says of a refusal | logs, ledger, web, `runs` |
"""

import json
import re
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runspan.demo.faults import CutOff, Reply, html, redirect
from runspan.demo.platforms.flowyble import Flowyble, ListShape
from runspan.demo.samples.builders import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldRun
from tests import otlp_store
from tests.acceptance.canaries import Canaries, RawServer, files_below, process, with_canaries
from tests.acceptance.program import Program, Settings, Started, source, wait_until
from tests.otlp_store import OtlpStore, Request, partial, refuse

PLATFORMS = ("flowyble", "runtype", "elizaos", "casedev")
CONTENT_FIELDS = (
    "userMessage", "finalOutput", "inputData", "outputData", "reasoning",
    "inputMessages", "iterationDetails", "inputParameters", "outputResult",
    "prompt", "params", "response", "prompts",
    "guidance", "content", "toolInput", "toolOutput", "output", "summary", "logs",
)  # fmt: skip
DECLARED_FIELDS = ("errorMessage", "error", "issues")
NOWHERE = ("key", "answer", "masked", "line")
LOOKS_SECRET = "sk-live-{}_51HxGyz90"
WORDS_LENGTH = 256


def spoken(canaries: Canaries, simulator: Simulator) -> dict[str, list[WorldRun]]:
    """Two ended runs of each platform, one of them failed, with canaries for everything that was said."""
    created_ns = time.time_ns() - 7200 * SECOND_NS
    before = {"created_at_ns": created_ns - SECOND_NS}
    made = {
        "flowyble": [
            flowyble_run("fine", created_at_ns=created_ns),
            flowyble_run("failed", **before, status="Failed", error="declared"),
        ],
        "runtype": [
            runtype_execution("fine", created_at_ns=created_ns),
            runtype_execution("failed", **before, status="failed"),
        ],
        "elizaos": [
            elizaos_run("fine", created_at_ns=created_ns, tokens=True),
            elizaos_run("failed", **before, error="declared"),
        ],
        "casedev": [
            casedev_run("fine", created_at_ns=created_ns),
            casedev_run("failed", **before, status="failed", issues=["declared"]),
        ],
    }
    for platform, runs in made.items():
        for run in runs:
            planted = {name: canaries.plant("content", f"{platform}_{name.lower()}") for name in CONTENT_FIELDS}
            for name in DECLARED_FIELDS:
                secret = LOOKS_SECRET.format(canaries.plant("masked", f"{platform}_{name.lower()}"))
                planted[name] = f"{canaries.plant('declared', f'{platform}_{name.lower()}')} {secret}"
            run.body.update(with_canaries(run.body, planted))
            run.tool_calls[:] = with_canaries(run.tool_calls, planted)
            simulator.world.add(run)
    return made


# --- a platform that tells everything it knows ---


def hostile_answers(canaries: Canaries) -> dict[str, tuple[str, str]]:
    """By the first segment of the path: the status line's rest with further headers, and the body; KEY is the key."""
    told = canaries.plant("answer", "body")
    header = canaries.plant("answer", "header")
    rows = [{"id": {"not": told}}, {"id": "r1", "createdAt": told, "status": "strange", "agentId": {"a": told}}, told]
    listed = json.dumps({"runs": rows, "nextCursor": None, "hasMore": False, "error": told})
    return {
        "refused": (f"401 {told}\r\nwww-authenticate: Bearer realm={header} KEY", f'{{"error": "{told} KEY"}}'),
        "busy": (f"429 {told}\r\nretry-after: 1\r\nx-ratelimit-reset: {header}", f"{told} KEY"),
        "broken": (f"500 {told}\r\nset-cookie: id={header}; KEY\r\nretry-after: {header}", f"Traceback: {told} KEY"),
        "moved": (f"302 {told}\r\nlocation: http://127.0.0.1:9/?{header}=KEY", told),
        "page": (f"200 {told}\r\ncontent-type: text/html; x={header}", f"<html>{told} KEY</html>"),
        "half": (f"200 {told}\r\ncontent-length: 99999", f'{{"runs": [{{"id": "{told}'),
        "shapeless": (f"200 {told}", f'{{"{told}": "{told} KEY"}}'),
        "spoilt": (f"200 {told}", listed),
        "teapot": (f"418 {told}", f"{told} KEY"),
        "packed": (f"200 {told}\r\ncontent-encoding: gzip", f"{told} KEY"),
        "headless": ("", f"{told} KEY\r\n\r\n"),
        "crooked": (f"200 {told}\r\n{header} KEY\0: x", told),
    }


@contextmanager
def hostile_platform(canaries: Canaries) -> Iterator[RawServer]:
    answers = hostile_answers(canaries)

    def answer(path: str, head: str) -> bytes:
        found = re.search(r"(?im)^authorization: (.*?)\r?$", head)
        start, body = (text.replace("KEY", found[1] if found else "no key") for text in answers[path.split("/")[1]])
        length = "" if "content-length" in start else f"\r\ncontent-length: {len(body)}"
        return (f"HTTP/1.1 {start}\r\nconnection: close{length}\r\n\r\n{body}" if start else body).encode()

    with RawServer(answer) as server:
        yield server


# --- one bridge that meets all of it ---


@dataclass
class Leaky:
    """A program with canaries wherever it reads anything."""

    canaries: Canaries
    simulator: Simulator
    store: OtlpStore
    hostile: RawServer
    program: Program
    runs: dict[str, list[WorldRun]]
    hostile_names: set[str]
    written: dict[str, bytes] = field(default_factory=dict)

    def command(self, name: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command to its end; what it wrote is kept."""
        ended = self.program.run(name, *arguments, stdin=stdin)
        place = " ".join([name, *(argument[-40:] for argument in arguments)])
        self.written[f"{place} > stdout"] = ended.stdout.encode()
        self.written[f"{place} > stderr"] = ended.stderr.encode()
        assert "Traceback" not in ended.stdout + ended.stderr
        assert "please report" not in ended.stderr
        return ended

    def keep_files(self, when: str) -> None:
        """Keep what its folders hold now."""
        for folder in ("state", "home", "tmp", "cwd"):
            for place, data in files_below(self.program.folder / folder).items():
                self.written[f"{when}: {place}"] = data


@contextmanager
def leaky(folder: Path, log_format: str, *, capture: bool) -> Iterator[Leaky]:
    canaries = Canaries()
    world = World()
    simulator = Simulator(world, rate_limited=False)
    lists = simulator.platforms["flowyble"]
    assert isinstance(lists, Flowyble)
    lists.list_shape = ListShape("items")
    runs = spoken(canaries, simulator)
    for name, platform in simulator.platforms.items():
        platform.key = canaries.plant("key", name)
    with simulator.in_thread(), OtlpStore() as store, hostile_platform(canaries) as hostile:
        given = folder / "given"
        for inner in (given, folder / "home", folder / "tmp", folder / "cwd"):
            inner.mkdir()
        (given / "casedev.key").write_text(canaries.plant("key", "casedev") + "\n")
        (given / "scope.key").write_text(canaries.plant("key", "scope"))
        sources: list[Settings] = [
            source(simulator, platform, api_key=f"file:{given / 'casedev.key'}")
            if platform == "casedev"
            else source(simulator, platform)
            for platform in PLATFORMS
        ]
        hostile_names = {f"hostile-{case}" for case in hostile_answers(canaries)}
        sources += [
            source(
                simulator,
                "casedev",
                name=name,
                tenant=name,
                base_url=f"{hostile.url}/{name.removeprefix('hostile-')}",
                api_key="env:HOSTILE_KEY",
            )
            for name in sorted(hostile_names)
        ]
        program = Program(
            folder,
            destination=store.http_endpoint,
            sources=sources,
            keys={**simulator.keys, "hostile": canaries.plant("key", "hostile")},
            tables={
                "log": {"level": "debug", "format": log_format},
                "content": {"capture": capture},
                "destination.headers": {
                    "authorization": "env:OTLP_AUTH",
                    "x-scope-orgid": f"file:{given / 'scope.key'}",
                },
                "web": {"listen": "127.0.0.1:0", "token": "env:RUNSPAN_WEB_TOKEN"},
            },
        )
        program.working_folder = folder / "cwd"
        program.environ |= {
            "OTLP_AUTH": f"Bearer {canaries.plant('key', 'destination')}",
            "RUNSPAN_WEB_TOKEN": canaries.plant("key", "web"),
            "RUNSPAN_UNHEARD_OF": canaries.plant("key", "environment"),
            "RUNSPAN_CASEDEV_PORT_443_TCP": f"tcp://{canaries.plant('key', 'kubernetes')}",
            "PYTHONFAULTHANDLER": "1",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
        }
        yield Leaky(canaries, simulator, store, hostile, program, runs, hostile_names)


def refusals(canaries: Canaries) -> Iterator[otlp_store.Reply]:
    """What the destination answers first: it repeats our credentials, and tells secrets of its own."""
    key = canaries.plant("key", "destination")
    told = canaries.plant("answer", "destination")
    secret = LOOKS_SECRET.format(canaries.plant("masked", "destination"))
    url = f"https://user:{canaries.plant('masked', 'url')}@host"
    words = f"{canaries.plant('word', 'refused')} Bearer {key} is not known, nor is {key}; try {secret}, or {url} "
    words = words.ljust(WORDS_LENGTH + 200, "x")
    yield refuse(401, words + told)
    headers = {"x-told": told, "retry-after": "0", "content-type": "application/json"}
    yield otlp_store.Reply(503, headers=headers, body=b'{"message": 1, "told": "' + told.encode(), keep=False)
    yield otlp_store.page(502, f"<html>{told} {key}</html>")


def destination_rule(
    bridge: Leaky, *, refused: WorldRun, doubted: WorldRun
) -> Callable[[Request], otlp_store.Reply | None]:
    """The refusals one after the other; then two runs that never pass."""
    canaries = bridge.canaries
    first = list(refusals(canaries))
    secret = LOOKS_SECRET.format(canaries.plant("masked", "words"))

    def rule(request: Request) -> otlp_store.Reply | None:
        if first:
            return first.pop(0)
        if refused.run_id in request.run_ids:
            return refuse(400, f"{canaries.plant('word', 'bad_data')} {secret}")
        if doubted.run_id in request.run_ids:
            return partial(1, f"{canaries.plant('word', 'partial')} {secret}")
        return None

    return rule


def page(url: str, path: str) -> bytes:
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return str(answer.headers).encode() + answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers).encode() + error.read()


def window(daemon: Started) -> dict[str, bytes]:
    """Everything that the daemon shows."""
    wait_until(lambda: "status page at http" in daemon.stderr or daemon.process.poll() is not None, "the status page")
    found = re.search(r"status page at (http://[\d.:]+)", daemon.stderr)
    assert found, daemon.stderr
    return {path: page(found[1], path) for path in ("/", "/readyz", "/healthz", "/metrics", "/nowhere")}


def exported(store: OtlpStore) -> set[str]:
    return {span.attributes["runspan.run.id"] for span in list(store.spans)}


@contextmanager
def core_dumps_allowed() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def make_trouble(bridge: Leaky) -> None:
    """A source whose details go wrong in every way once, a run that cannot be had, two that the destination refuses."""
    canaries, simulator = bridge.canaries, bridge.simulator
    for effect in (
        Reply(500, canaries.plant("answer", "detail")),
        Reply(429, canaries.plant("answer", "detail"), {"retry-after": "0"}),
        html(200),
        CutOff(),
        CutOff(honest_length=True),
        redirect(f"http://127.0.0.1:9/{canaries.plant('answer', 'location')}"),
    ):
        simulator.fault("casedev", "/details", effect, times=1)
    unreadable = simulator.world.add(casedev_run("teapot", created_at_ns=time.time_ns() - 7200 * SECOND_NS))
    simulator.fault("casedev", unreadable.run_id, Reply(418, canaries.plant("answer", "teapot")))
    bridge.store.rule = destination_rule(bridge, refused=bridge.runs["runtype"][0], doubted=bridge.runs["flowyble"][0])


def states(program: Program) -> set[str]:
    return {row["state"] for row in program.rows().values() if row["source"] in PLATFORMS}


def traces(store: OtlpStore) -> dict[str, bytes]:
    return {"the store": b"".join(span.raw for span in store.spans)}


@pytest.mark.parametrize(("log_format", "capture"), [("json", False), ("console", True)])
def test_the_daemon_tells_no_canary(log_format: str, capture: bool, tmp_path: Path, subtests: pytest.Subtests) -> None:
    with leaky(tmp_path, log_format, capture=capture) as bridge, core_dumps_allowed():
        canaries, program, store = bridge.canaries, bridge.program, bridge.store
        make_trouble(bridge)
        with program.start("run") as daemon:
            wait_until(lambda: b"not read yet" not in window(daemon)["/readyz"], "a look at every source")
            wait_until(lambda: states(program) == {"exported", "quarantined"}, "every run to be settled")
            for path, data in window(daemon).items():
                bridge.written[f"daemon {path}"] = data
            bridge.written |= process(daemon.process.pid)
            bridge.keep_files("while it runs")
            assert daemon.signalled(signal.SIGQUIT) == -signal.SIGQUIT
        bridge.written |= {"daemon > stdout": daemon.stdout.encode(), "daemon > stderr": daemon.stderr.encode()}
        bridge.keep_files("after SIGQUIT")
        bridge.command("runs")
        bridge.command("runs", "--json")

        written = bridge.written
        sent = traces(store)
        with subtests.test("what may stand nowhere"):
            assert canaries.leaks(*NOWHERE, in_=written | sent) == set()
        with subtests.test("what is exported only"):
            assert canaries.leaks("content", "declared", in_=written) == set()
        with subtests.test("content is exported where it is captured"):
            captured = canaries.found("content", in_=sent["the store"])
            assert len(captured) > 10 if capture else captured == set()
        with subtests.test("declared errors are exported"):
            assert len(canaries.found("declared", in_=sent["the store"])) == len(PLATFORMS) - 1
        with subtests.test("a destination's words are told"):
            assert canaries.leaks("word", in_=sent) == set()
            assert canaries.found("word", in_=daemon.stderr) >= {"cnry_word_refused_q7", "cnry_word_bad_data_q7"}
            assert "cnry_word_bad_data_q7" in bridge.written["runs > stdout"].decode()
        with subtests.test("every answer was met"):
            assert {f"hostile-{path.split('/')[1]}" for path in bridge.hostile.paths} == bridge.hostile_names
            assert [fault.times for fault in bridge.simulator.faults[:6]] == [0] * 6
        with subtests.test("nothing is written but the ledger"):
            files = {place.partition(": ")[2] for place in written if place.startswith(("while it runs", "after"))}
            ledger = str(program.ledger)
            assert {file.removeprefix(ledger).partition("/")[0] for file in files} == {
                "", "-wal", "-shm", ".owners", ".daemon",
            }  # fmt: skip
        with subtests.test("it ends without a traceback"):
            assert "Traceback" not in daemon.stderr
            assert "please report" not in daemon.stderr


def test_no_command_tells_a_canary(tmp_path: Path, subtests: pytest.Subtests) -> None:
    with leaky(tmp_path, "json", capture=False) as bridge, ThreadPoolExecutor(2) as at_once:
        canaries, store = bridge.canaries, bridge.store
        make_trouble(bridge)
        fine, failed = bridge.runs["flowyble"]
        ids = tmp_path / "given" / "ids"
        ids.write_text(f"{fine.run_id}\n{failed.run_id}\n")
        no_ids = [
            line.format(canaries.plant("line", f"number_{number}"))
            for number, line in enumerate(('{{"id": "{}"', '{{"id": "x", "note": "{}"}}', "{}\x1b"))
        ]
        checked = bridge.command("check", "--send-test-trace")
        for platform in PLATFORMS:
            options = ["--ids-file", str(ids)] if platform == "flowyble" else ["--since", "1d"]
            bridge.command("backfill", "--source", platform, *options)
        refused = [
            at_once.submit(bridge.command, "backfill", "--source", "flowyble", "--ids-file", "-", stdin=line)
            for line in no_ids
        ]
        shown = [
            at_once.submit(bridge.command, "show", "--source", name, run_id, "--format", form)
            for name, run_id, form in [
                *((platform, bridge.runs[platform][1].run_id, "otlp-json") for platform in PLATFORMS),
                ("flowyble", failed.run_id, "waterfall"),
            ]
        ]
        unshown = [
            at_once.submit(bridge.command, "show", "--source", name, "r1")
            for name in ("hostile-refused", "hostile-page", "hostile-teapot", "hostile-moved")
        ]
        rest = [
            at_once.submit(bridge.command, *command)
            for command in (["id", "--platform", "casedev", "r1", "--tenant", "t"], ["runs"], ["runs", "--json"])
        ]
        assert [told.result().returncode for told in refused] == [2] * len(refused)
        assert [told.result().returncode for told in (*shown, *rest)] == [0] * len(shown + rest)
        assert {told.result().returncode for told in unshown} <= {1, 3}
        bridge.command("retry")
        bridge.keep_files("at the end")

        with subtests.test("what may stand nowhere"):
            assert canaries.leaks(*NOWHERE, "content", in_=bridge.written | traces(store)) == set()
        with subtests.test("a declared error is shown where a run is"):
            told = {place for place, _ in canaries.leaks("declared", in_=bridge.written)}
            assert {place.split(" ")[0] for place in told} == {"show"}
        with subtests.test("check says of each platform what is wrong, in our own words"):
            assert checked.returncode == 3
            for name in bridge.hostile_names - {"hostile-spoilt", "hostile-shapeless"}:
                assert re.search(rf"failed +source {name} +source {name}: GET http://\S+ ", checked.stdout), name
            assert re.search(r"failed +destination +\S+ answered 401: cnry_word_refused_q7 ", checked.stdout)
        with subtests.test("a line that is no id is told by its number"):
            for told in refused:
                assert re.fullmatch(r"--ids-file - line 1: .*", told.result().stderr.splitlines()[-1])
        with subtests.test("nothing is written but the ledger"):
            files = [place.partition(": ")[2] for place in bridge.written if place.startswith("at the end")]
            assert files
            assert [file for file in files if not file.startswith(str(bridge.program.ledger))] == []


# --- what is refused, and what breaks ---


def refused_configurations(key: str) -> dict[str, tuple[str, dict[str, str]]]:
    """By what is wrong: the configuration, and the environment."""
    case = '[[source]]\nname = "case"\nplatform = "casedev"\n'
    return {
        "bare key": (f'{case}api_key = "{key}"', {}),
        "key of no text": (f'{case}api_key = ["{key}"]', {}),
        "key in quotes that do not end": (f'{case}api_key = "{key}', {}),
        "key in an unknown place": (f'{case}password = "{key}"', {}),
        "key in the address": (f'{case}base_url = "https://user:{key}@host"', {}),
        "key in the query": (f'{case}base_url = "https://host/?key={key}"', {}),
        "key in the query's address": (f'[destination]\nquery_url = "http://host/?token={key}"', {}),
        "password in the endpoint": (f'[destination]\nendpoint = "http://user:{key}@host"', {}),
        "password of the ledger": (f'[ledger]\nurl = "postgresql://user:{key}@host/db"', {}),
        "bare header": (f'[destination]\nheaders = {{ x-api-key = "{key}" }}', {}),
        "headers in the environment": ("", {"RUNSPAN_DESTINATION__HEADERS": f'{{"authorization": "{key}"}}'}),
        "headers that are no JSON": ("", {"RUNSPAN_DESTINATION__HEADERS": f"authorization={key}"}),
        "token in the environment": ("", {"RUNSPAN_WEB__TOKEN": key}),
        "endpoint in the environment": ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{key}@host"}),
        "a key of two lines": (f'{case}api_key = "env:TWO_LINES"', {"TWO_LINES": f"{key}\n{key}"}),
        "headers that the SDK cannot read": (
            '[destination]\nprotocol = "sdk"\nendpoint = "otlp_proto_http"',
            {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization: Bearer {key},x-api-key {key}"},
        ),
    }


def test_no_refusal_repeats_what_it_refuses(tmp_path: Path, subtests: pytest.Subtests) -> None:
    canaries = Canaries()
    key = canaries.plant("key", "misplaced")

    def check(name: str, text: str, environ: dict[str, str]) -> tuple[str, subprocess.CompletedProcess[str]]:
        folder = tmp_path / name
        folder.mkdir()
        program = Program(folder, destination="http://127.0.0.1:9", sources=[], keys={})
        program.config.write_text(text)
        program.environ |= environ
        return name, program.run("check")

    with ThreadPoolExecutor(2) as at_once:
        tried = [at_once.submit(check, name, *given) for name, given in refused_configurations(key).items()]
    for name, ended in (one.result() for one in tried):
        with subtests.test(name):
            assert ended.returncode in (2, 3), ended
            assert canaries.found("key", in_=ended.stdout + ended.stderr) == set()
            assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_proxy_learns_its_password_and_nobody_else(protocol: str, tmp_path: Path) -> None:
    canaries = Canaries()
    told = canaries.plant("answer", "proxy")
    heads: list[str] = []

    def answer(path: str, head: str) -> bytes:
        heads.append(head)
        return f"HTTP/1.1 407 {told}\r\nx-told: {told}\r\ncontent-length: {len(told)}\r\n\r\n{told}".encode()

    with RawServer(answer) as proxy:
        program = Program(
            tmp_path,
            destination="http://collector.example:4318",
            sources=[
                {"name": "case", "platform": "casedev", "base_url": "https://api.example", "api_key": "env:CASE_KEY"}
            ],
            keys={"case": canaries.plant("key", "case")},
            tables={
                "destination": {"endpoint": "http://collector.example:4318", "protocol": protocol},
                "log": {"level": "debug"},
            },
        )
        del program.environ["NO_PROXY"]
        url = f"http://user:{canaries.plant('key', 'proxy')}@127.0.0.1:{proxy.port}"
        program.environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
        ended = program.run("check")
    assert ended.returncode == 3
    assert len([line for line in ended.stdout.splitlines() if line.startswith("failed")]) == 2
    assert canaries.found("key", in_="\n".join(heads)) == {canaries.plant("key", "proxy")}
    assert canaries.found("key", "answer", in_=ended.stdout + ended.stderr) == set()


PLUGIN = '''
from runspan.sources.base import Page, Source

TOLD = "{told}"

class Leaky(Source):
    """A platform whose module tells in its errors whatever it was given."""

    platform = "leaky"
    default_base_url = "http://127.0.0.1:9"
    default_rate = "1000/s"

    @staticmethod
    def auth_headers(api_key):
        return {}

    async def page(self, scope, window, cursor):
        raise ValueError(TOLD)

    async def fetch(self, ref, *, known_open=False, with_content=False):
        raise KeyError(TOLD)

    def read(self, body):
        raise TypeError(TOLD, body.documents)
'''


def test_an_error_of_a_stranger_is_told_by_its_place(tmp_path: Path) -> None:
    canaries = Canaries()
    packages = tmp_path / "packages"
    (packages / "leaky-1.dist-info").mkdir(parents=True)
    (packages / "leaky-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1\n")
    (packages / "leaky-1.dist-info" / "entry_points.txt").write_text("[runspan.sources]\nleaky = leaky:Leaky\n")
    (packages / "leaky.py").write_text(PLUGIN.replace("{told}", canaries.plant("answer", "plugin")))
    program = Program(
        tmp_path,
        destination="http://127.0.0.1:9",
        sources=[{"name": "leaky", "platform": "leaky", "poll_every": "300ms"}],
        keys={},
        tables={"log": {"level": "debug"}},
    )
    program.environ["PYTHONPATH"] = f"{packages}:{program.environ.get('PYTHONPATH', '')}"
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"id": "r1", "said": canaries.plant("content", "body")}))
    told = [
        program.run("check"),
        program.run("show", "--source", "leaky", "r1"),
        program.run("show", "--platform", "leaky", "--file", str(body)),
        program.run("backfill", "--source", "leaky", "--ids-file", "-", stdin="r1\n"),
    ]
    with program.start("run") as daemon:
        daemon.wait_logged("source_unavailable")
        assert daemon.signalled(signal.SIGTERM) == 0
    output = daemon.stderr + "".join(ended.stdout + ended.stderr for ended in told) + json.dumps(program.rows())
    assert canaries.found("answer", "content", in_=output) == set()
    assert "Traceback" not in output
    assert [ended.returncode for ended in told] == [1, 1, 1, 3]
    assert [ended.stderr.splitlines()[-1] for ended in told[:3]] == [
        "ValueError at page:18 (leaky.py); please report this",
        "KeyError at fetch:21 (leaky.py); please report this",
        "TypeError at read:24 (leaky.py); please report this",
    ]
