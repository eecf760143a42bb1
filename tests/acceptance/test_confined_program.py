"""As `deploy/` runs it: a user without rights, name or home; a file system read-only but for the ledger's folder.

Needs root, to give all of that up; elsewhere these tests skip.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runspan
from runspan.demo.samples.builders import casedev_run
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World
from runspan.ledger import Ledger, NewRow, RowState
from runspan.model import RunRef
from tests.acceptance.program import Program, closing_table, exactly_once
from tests.otlp_store import OtlpStore

USER = 10001
"""The Dockerfile's; no machine knows it, so it has no name and no home."""
NEEDED = (Path(sys.base_prefix), Path(sys.prefix), Path(runspan.__file__).parent)
"""Where the interpreter and the program are."""
TOOLS = ("unshare", "mount", "setpriv")
READ_ONLY = """
while read -r _ place _; do
    case "$place" in "$state" | /proc*) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; esac
done </proc/self/mounts
"""
DROP = f"setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all"


def is_closed(folder: Path) -> bool:
    """Whether nobody but its owner may pass."""
    return not folder.stat().st_mode & 0o001


def opened(needed: tuple[Path, ...], held: Path) -> Iterator[str]:
    """Shell lines that let anyone reach what is needed, where a folder above it (/root) is closed."""
    places = {place: next((above for above in reversed(place.parents) if is_closed(above)), None) for place in needed}
    for number, (place, closed) in enumerate(places.items()):
        if closed:
            yield f"mkdir {held}/{number}; mount --bind {shlex.quote(str(place))} {held}/{number}"
    for closed in sorted({closed for closed in places.values() if closed}):
        yield f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(closed))}"
    for number, (place, closed) in enumerate(places.items()):
        if closed:
            yield f"mkdir -p {shlex.quote(str(place))}; mount --bind {held}/{number} {shlex.quote(str(place))}"


class Confined(Program):
    """A program that may write to its state folder and nowhere else, as a user that is nobody."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        keys = {name: value for name, value in self.environ.items() if name.endswith("_KEY")}
        self.environ = keys | {"PATH": os.environ["PATH"], "NO_PROXY": "*"}
        self.environ |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        os.chown(self.state, USER, USER)

    def arguments(self, command: str, *arguments: str) -> list[str]:
        """The command line, behind the walls."""
        return self.behind_walls(*super().arguments(command, *arguments))

    def behind_walls(self, *command: str) -> list[str]:
        """Any command line."""
        held = tempfile.mkdtemp(dir=self.folder)
        walls = "\n".join(
            [
                f"set -e; state={self.state}",
                *opened(NEEDED, Path(held)),
                'mount --bind "$state" "$state"',
                READ_ONLY,
                f"exec {DROP} -- {shlex.join(command)}",
            ]
        )
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", walls]


def obstacle() -> str | None:
    """Why this machine cannot do it; None where it can."""
    if os.geteuid() != 0:
        return "only root can give up what root has"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"{' and '.join(missing)} is not installed"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "--bind", "/", "/"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() if tried.returncode else None


pytestmark = pytest.mark.skipif(bool(obstacle()), reason=f"cannot be confined: {obstacle()}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everyone may read: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="runspan-confined-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    world = World()
    for key in range(5):
        world.add(casedev_run(key, created_at_ns=time.time_ns() - 7200 * SECOND_NS))
    with Simulator(world, rate_limited=False).in_thread() as running:
        yield running


@pytest.fixture
def store() -> Iterator[OtlpStore]:
    with OtlpStore() as running:
        yield running


@pytest.fixture
def program(folder: Path, simulator: Simulator, store: OtlpStore) -> Confined:
    return Confined.between(simulator, store, folder)


def test_deploy_builds_the_same_walls() -> None:
    deploy = Path(__file__).parents[2] / "deploy"
    image, unit, compose = ((deploy / name).read_text() for name in ("Dockerfile", "runspan.service", "compose.yaml"))
    assert f"\nUSER {USER}:{USER}\n" in image
    assert f"install -d -o {USER} -g {USER} -m 0700 /var/lib/runspan" in image
    assert {"read_only: true", "no-new-privileges:true", "cap_drop:"} <= {
        line.strip(" -") for line in compose.splitlines()
    }
    walls = {
        "DynamicUser=yes",
        "StateDirectoryMode=0700",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
    }
    assert walls <= set(unit.splitlines())
    assert all("sqlite:////var/lib/runspan/ledger.db" in text for text in (image, unit))


def test_the_walls_hold(program: Confined) -> None:
    places = " ".join(["/", "/tmp", "/var/tmp", "/dev/shm", "/run", str(program.folder), str(program.state)])
    tried = f"id -u; for place in {places}; do touch $place/mine 2>/dev/null && echo $place; done; true"
    ended = subprocess.run(
        program.behind_walls("sh", "-c", tried), capture_output=True, text=True, check=True, env=program.environ
    )
    assert ended.stdout.split() == [str(USER), str(program.state)]


def test_it_runs_where_it_may_write_to_its_state_only(
    program: Confined, simulator: Simulator, store: OtlpStore
) -> None:
    wanted = {run.run_id for run in simulator.world.runs("casedev")}
    checked = program.run("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    with program.start("run") as daemon:
        store.wait(lambda: {run_id for request in store.requests for run_id in request.run_ids} >= wanted, 30)
        daemon.wait_logged("exported")
        joined = program.run("backfill", "--source", "casedev", "--since", "1d")
        assert daemon.signalled(signal.SIGTERM) == 0
    assert set(exactly_once(store)) == wanted
    assert (joined.returncode, closing_table(joined.stdout)["listed"]) == (0, len(wanted))
    assert [line for line in daemon.logs if line["level"] not in ("info", "debug")] == daemon.logged("ledger_created")
    listed = program.run("runs", "--json")
    assert (listed.returncode, len(listed.stdout.splitlines()), listed.stderr) == (0, len(wanted), "")
    for path in program.state.rglob("*"):
        owner = path.stat()
        assert (owner.st_uid, owner.st_gid, owner.st_mode & 0o077) == (USER, USER, 0), path


def test_a_large_ledger_is_listed_without_a_place_for_temporary_files(program: Confined) -> None:
    wanted = 20_000
    with Ledger.open(f"sqlite:///{program.ledger}") as ledger:
        ledger.note_rows(
            NewRow(
                RunRef("casedev", "t", f"run-{number}"),
                "casedev",
                RowState.SKIPPED,
                reason="r" * 200,
                created_ns=number,
            )
            for number in range(wanted)
        )
    for path in program.state.rglob("*"):
        os.chown(path, USER, USER)
    listed = program.run("runs", "--json", "--limit", str(2 * wanted))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == wanted


def test_a_state_folder_that_cannot_be_written_is_said_in_a_line(program: Confined) -> None:
    os.chown(program.state, 0, 0)
    program.state.chmod(0o755)
    ended = program.run("run")
    assert ended.returncode == 4
    assert ended.stderr.splitlines() == [
        f"the ledger at {program.ledger} cannot be reached (Permission denied); check the path and its permissions"
    ]


def test_who_only_looks_does_without_a_ledger_that_cannot_be_written(program: Confined, simulator: Simulator) -> None:
    with Ledger.open(f"sqlite:///{program.ledger}"):
        pass
    os.chown(program.state, 0, 0)
    program.state.chmod(0o755)
    program.ledger.chmod(0o644)
    before = program.ledger.read_bytes()
    shown = program.run("show", "--source", "casedev", simulator.world.runs("casedev")[0].run_id)
    tried = program.run("backfill", "--source", "casedev", "--since", "1d", "--dry-run")
    assert (shown.returncode, tried.returncode) == (0, 0)
    assert closing_table(tried.stdout)["would be exported"] == 5
    for ended in (shown, tried):
        said = [json.loads(line) for line in ended.stderr.splitlines()]
        [warning] = [line for line in said if line["level"] != "info"]
        assert warning["action"] == "ledger_left_out"
        assert f"{program.ledger} cannot be written by this user" in warning["event"]
    assert program.run("retry").returncode == 4
    assert program.ledger.read_bytes() == before


def test_a_user_without_a_home_is_told_to_name_the_ledger(program: Confined) -> None:
    program.config.write_text(program.config.read_text().replace(f'url = "sqlite:///{program.ledger}"', ""))
    ended = program.run("run")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "~/.local/state/runspan/ledger.db: this user has no home directory; write the whole path, from / on"
    ]
