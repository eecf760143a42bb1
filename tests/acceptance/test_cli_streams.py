"""What the program does where its standard streams are closed, full, or a pipe that nobody reads any more."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from runspan.ledger import Ledger, NewRow, RowState
from runspan.model import RunRef

PROGRAM = Path(sys.executable).with_name("runspan")
FILE_DESTINATION = '[destination]\nprotocol = "file"\nendpoint = "t.jsonl"\n'
COMMANDS = ["check -c config.toml", "id --platform casedev run-1", "schema", "init -"]


@pytest.fixture
def shell(tmp_path: Path):
    (tmp_path / "config.toml").write_text(f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n{FILE_DESTINATION}')

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RUNSPAN_", "OTEL_"))}
        return subprocess.run(
            ["/bin/bash", "-c", line.replace("runspan", str(PROGRAM))],
            cwd=tmp_path,
            env=clean,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
        )

    return shell


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", [*COMMANDS, "runs -c config.toml"])
def test_closed_streams_are_as_good_as_dev_null(command: str, closed: str, shell) -> None:
    expected = shell(f"runspan {command} >/dev/null 2>/dev/null").returncode
    ended = shell(f"runspan {command} {closed}")
    assert ended.returncode == expected
    assert "report this" not in ended.stdout + ended.stderr


def test_a_closed_standard_input_is_empty(shell) -> None:
    ended = shell("runspan show --platform casedev --file - <&-")
    assert (ended.returncode, ended.stderr) == (2, "- is not JSON: give a platform's answer for one run\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", [*COMMANDS, "--help", "--version"])
def test_a_full_disk_is_told_in_one_line(command: str, shell) -> None:
    ended = shell(f"runspan {command} >/dev/full")
    assert ended.returncode == 1
    assert ended.stderr == (
        "cannot write standard output: No space left on device; what was printed is not whole, "
        "give it a place with room\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_exit_code_does_not_depend_on_its_complaint(shell) -> None:
    assert shell("runspan check -c none.toml 2>/dev/full").returncode == 2
    assert shell("runspan id --platform casedev run-1 2>/dev/full").returncode == 0


def test_what_only_the_last_flush_shows_is_told() -> None:
    code = "import sys; from runspan import cli; cli.app = lambda: sys.stdout.write('x'); cli.main()"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("cannot write standard output: No space left on device")
    assert ended.stderr.count("\n") == 1


ENCODINGS = ["PYTHONIOENCODING=latin-1", "PYTHONIOENCODING=ascii", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"]


@pytest.mark.parametrize("environment", ENCODINGS)
def test_what_an_encoding_lacks_is_a_question_mark(environment: str, shell, tmp_path: Path) -> None:
    quarantined = NewRow(RunRef("casedev", "t", "run-1"), "case", RowState.QUARANTINED, reason="zu groß – 日本")
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.note_rows([quarantined])
    told = shell(f"{environment} runspan runs -c config.toml")
    assert (told.returncode, told.stderr) == (0, "")
    assert "? ??" in told.stdout


@pytest.mark.parametrize("environment", ENCODINGS)
@pytest.mark.parametrize("closed", ["", "2>&-"])
def test_a_complaint_can_be_printed_in_every_encoding(environment: str, closed: str, shell) -> None:
    told = shell(f"{environment} runspan check -c $'none-\\xff-\\u65e5.toml' {closed}")
    assert told.returncode == 2
    assert "none-" in told.stderr or closed
    assert "Traceback" not in told.stderr


def test_a_complaint_obeys_nobody(shell) -> None:
    for command in (
        "check -c $'none\\e[31m.toml'",
        "backfill -c config.toml --since 1d --source $'\\e[31m'",
        "id r --platform $'\\e[31m'",
        "show --platform $'\\e[31m' --file config.toml",
    ):
        told = shell(f"runspan {command}")
        assert (told.returncode, told.stdout) == (2, ""), command
        assert "\x1b" not in told.stderr, command


@pytest.mark.parametrize("command", ["schema", "id --platform casedev run-1"])
def test_a_reader_that_has_gone_is_no_complaint(command: str, shell) -> None:
    ended = shell(f"(sleep 1; runspan {command}; echo $? >&2) | true")
    assert ended.stderr == "1\n"


@pytest.mark.parametrize(("soft", "hard", "raised"), [(64, 300, 300), (300, 300, 300)])
def test_the_limit_of_open_files_is_raised(soft: int, hard: int, raised: int) -> None:
    code = (
        "import resource; from runspan import cli; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        "cli.app = lambda: print(*resource.getrlimit(resource.RLIMIT_NOFILE)); cli.main()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(raised), str(hard)]


def test_the_limit_of_open_files_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from runspan import cli

    for hard in (resource.RLIM_INFINITY, 1_000_000):
        asked: dict[int, tuple[int, int]] = {}
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (1024, hard))
        monkeypatch.setattr(resource, "setrlimit", asked.__setitem__)
        cli._set_limits()
        assert asked[resource.RLIMIT_NOFILE] == (65_536, hard)
