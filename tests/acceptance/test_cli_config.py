"""The program as a person meets it first: init, check, schema, id, and what it says of a wrong configuration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("runspan")
SOURCE = '[[source]]\nname = "case-prod"\nplatform = "casedev"\n'


def runspan(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RUNSPAN_", "OTEL_"))}
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env={**clean, "XDG_STATE_HOME": str(folder / "state"), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('setle = "3s"\n', "config.toml line 4: unknown key `setle` in [[source]] case-prod; did you mean `settle`?"),
        ('api_key = "hunter2"\n', "config.toml line 4: `api_key` in [[source]] case-prod: a secret does not stand"),
        ('settle = "3"\n', "config.toml line 4: `settle` in [[source]] case-prod: not a duration: write"),
        ("[destination]\nheaders = { authorization = 'hunter2' }\n", "config.toml line 5: `headers.authorization`"),
        ("= 3\n", "config.toml line 4, column 1: not TOML"),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SOURCE + text)
    ended = runspan("check", "-c", "config.toml", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(complaint)
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert "hunter2" not in ended.stderr


PROXIES = [
    "foo://u:hunter2@h:1", "http://u:hunter2@h:99999", "hunter2:x:y:z", "http://u:hunter2@[::bad", "http://",
    " http://u:hunter2@h:1\n", "socks5://u:hunter2@h:1", "http://u:hunter2@a..ü",
]  # fmt: skip


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_wrong_proxy_is_told_by_its_variable(proxy: str, tmp_path: Path) -> None:
    told = "the environment variable https_proxy is no proxy's URL: write http://host:port"
    destination = '[destination]\nendpoint = "https://collector.example"\n'
    (tmp_path / "config.toml").write_text(SOURCE + destination)
    for command in ("check", "run"):
        ended = runspan(command, "-c", "config.toml", folder=tmp_path, https_proxy=proxy, NO_PROXY="", no_proxy="")
        output = ended.stdout + ended.stderr
        assert (ended.returncode, told in output, "hunter2" in output) == (2, True, False), output
        assert "Traceback" not in output


@pytest.mark.parametrize(
    "url", ["postgresql://h:xx/n", "sqlite:////tmp/a\\u0000b", "sqlite://[x/n", "postgresql://u:hunter2@h:xx/n"]
)
def test_a_wrong_ledger_ends_with_2(url: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SOURCE + f'[ledger]\nurl = "{url}"\n')
    ended = runspan("run", "-c", "config.toml", folder=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n"), "hunter2" in ended.stderr) == (2, 1, False), ended.stderr


@pytest.mark.parametrize("command", [("run",), ("backfill", "--source", "case-prod", "--since", "1d"), ("runs",)])
def test_every_command_minds_the_configuration(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SOURCE + "setle = 1\n")
    ended = runspan(*command, "-c", "config.toml", folder=tmp_path)
    assert ended.returncode == 2
    assert "did you mean `settle`?" in ended.stderr


def test_a_missing_configuration_says_how_to_get_one(tmp_path: Path) -> None:
    ended = runspan("check", "-c", "config.toml", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "config.toml does not exist: `runspan init` writes one\n")


@pytest.mark.parametrize("arguments", [(), ("chek",), ("check",), ("check", "--colour"), ("id", "run-1")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = runspan(*arguments, folder=tmp_path)
    assert ended.returncode == 2
    assert "Usage:" in ended.stderr


def test_what_init_writes_passes_as_soon_as_its_secret_is_there(tmp_path: Path) -> None:
    assert runspan("init", folder=tmp_path).returncode == 0
    # A file as destination and a port that nobody listens on as source: all but the source can be well.
    environ = {
        "RUNSPAN_DESTINATION__PROTOCOL": "file",
        "RUNSPAN_DESTINATION__ENDPOINT": "traces.jsonl",
    }
    path = tmp_path / "config.toml"
    path.write_text(
        path.read_text().replace('#base_url = "https://api.case.dev"', 'base_url = "http://127.0.0.1:1"', 1)
    )
    without = runspan("check", "-c", "config.toml", folder=tmp_path, **environ)
    assert without.returncode == 2
    assert "failed  source casedev-prod  the environment variable CASEDEV_API_KEY is not set" in without.stdout
    ended = runspan("check", "-c", "config.toml", folder=tmp_path, CASEDEV_API_KEY="hunter2-x", **environ)
    marks = [line.split()[0:2] for line in ended.stdout.splitlines()]
    assert marks == [["ok", "config"], ["ok", "ledger"], ["ok", "destination"], ["failed", "source"]]
    assert ended.returncode == 3
    assert "hunter2" not in ended.stdout + ended.stderr
    assert not (tmp_path / "state").exists(), "check changes nothing"
    assert not (tmp_path / "traces.jsonl").exists(), "check changes nothing"


def test_init_replaces_nothing_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("# mine\n")
    refused = runspan("init", "my.toml", folder=tmp_path)
    assert (refused.returncode, path.read_text()) == (2, "# mine\n")
    assert "--force" in refused.stderr
    assert runspan("init", "my.toml", "--force", folder=tmp_path).returncode == 0
    assert path.read_text() == runspan("init", "-", folder=tmp_path).stdout


def test_an_unknown_variable_only_warns(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[destination]\nprotocol = "file"\nendpoint = "t.jsonl"\n')
    ended = runspan("check", "-c", "config.toml", folder=tmp_path, RUNSPAN_PORT="tcp://10.0.0.1:80")
    assert ended.returncode == 0
    event = json.loads(ended.stderr)
    assert (event["level"], event["action"], event["variable"]) == ("warning", "unknown_variable", "RUNSPAN_PORT")


def test_a_damaged_ledger_ends_with_4(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    (tmp_path / "config.toml").write_text(
        f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n[destination]\nprotocol = "file"\nendpoint = "t.jsonl"\n'
    )
    ended = runspan("check", "-c", "config.toml", folder=tmp_path)
    assert ended.returncode == 4
    assert [line for line in ended.stdout.splitlines() if line.startswith("failed  ledger")]


# A name too long cannot be looked for, nor can any in a folder that is closed; root may look into those.
@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("show", "--source", "case-prod", "run_1"),
        ("backfill", "--source", "case-prod", "--since", "1d", "--dry-run"),
        ("backfill", "--source", "case-prod", "--since", "1d"),
        ("runs",),
    ],
    ids=" ".join,
)
def test_a_ledger_that_cannot_be_looked_for_ends_with_4(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / ("a" * 300)
    (tmp_path / "config.toml").write_text(
        f'[ledger]\nurl = "sqlite:///{path}"\n{SOURCE}base_url = "http://127.0.0.1:1"\n'
    )
    ended = runspan(command[0], "-c", "config.toml", *command[1:], folder=tmp_path)
    told = f"the ledger at {path} cannot be reached (File name too long); check the path and its permissions"
    assert ended.returncode == 4, ended.stderr
    assert told in (ended.stdout if command == ("check",) else ended.stderr)
    assert ended.stderr.count("\n") == (0 if command == ("check",) else 1)


def test_schema_tells_every_platforms_keys(tmp_path: Path) -> None:
    schema = json.loads(runspan("schema", folder=tmp_path).stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == {
        "ledger", "destination", "content", "prices", "web", "resource", "limits", "log", "source",
    }  # fmt: skip
    platforms = schema["properties"]["source"]["items"]["discriminator"]["mapping"]
    assert {"flowyble", "runtype", "elizaos", "casedev"} <= set(platforms)
    own = {name: schema["$defs"][name]["properties"] for name in ("flowyble", "runtype", "elizaos", "casedev")}
    assert own["casedev"]["settle"]["default"] == "5s"
    assert own["casedev"]["rate"]["default"] == "30/min"
    assert "list" in own["flowyble"]
    assert "include_ignored" in own["elizaos"]
    references = [text.split('"')[0] for text in json.dumps(schema).split('"$ref": "#/$defs/')[1:]]
    assert references
    assert set(references) <= set(schema["$defs"])


def test_id_is_computed(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        SOURCE + 'tenant = "old"\n[destination]\ntrace_url = "http://j/trace/{trace_id}"\n'
    )
    default = runspan("id", "--platform", "casedev", "run-1", folder=tmp_path).stdout.splitlines()
    spelled = runspan("id", "--platform", "casedev", "--tenant", "https://api.case.dev", "run-1", folder=tmp_path)
    assert default == spelled.stdout.splitlines()
    configured = runspan("id", "--platform", "casedev", "-c", "config.toml", "run-1", folder=tmp_path)
    ids = dict(line.split(" ", 1) for line in configured.stdout.splitlines())
    assert ids["trace_id"] != default[0].split()[1]
    assert ids["url"] == f"http://j/trace/{ids['trace_id']}"
    assert (len(ids["trace_id"]), len(ids["root_span_id"])) == (32, 16)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--platform", "casdev"), "unknown platform casdev"),
        (("--platform", "casdev", "--tenant", "t"), "unknown platform casdev"),
        (("--platform", "casedev", "--tenant", ""), "an empty id or tenant is none"),
        (("--platform", "runtype", "-c", "config.toml"), None),
        (("--platform", "casedev", "-c", "config.toml"), "several casedev tenants are configured"),
    ],
)
def test_id_needs_one_tenant(arguments: tuple[str, ...], reason: str | None, tmp_path: Path) -> None:
    second = SOURCE.replace("case-prod", "case-b") + 'tenant = "b"\n'
    (tmp_path / "config.toml").write_text(SOURCE + second)
    ended = runspan("id", *arguments, "run-1", folder=tmp_path)
    assert ended.returncode == (2 if reason else 0)
    assert (reason or "") in ended.stderr


def test_id_needs_a_run(tmp_path: Path) -> None:
    ended = runspan("id", "--platform", "casedev", "", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "an empty id or tenant is none" in ended.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "1000000001", "9" * 30, "9" * 5000])
@pytest.mark.parametrize("command", [("runs",), ("backfill", "--source", "case-prod", "--since", "1d")])
def test_a_limit_is_a_sane_number(command: tuple[str, ...], limit: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SOURCE)
    ended = runspan(*command, "-c", "config.toml", "--limit", limit, folder=tmp_path)
    assert ended.returncode == 2
    assert "Invalid value for '--limit'" in ended.stderr


def test_help_lists_every_command(tmp_path: Path) -> None:
    told = runspan("--help", folder=tmp_path).stdout
    commands = {path.stem for path in (Path(__file__).parents[2] / "src/runspan/cli").glob("[a-z]*.py")}
    listed = {line.split()[0] for line in told.split("Commands:")[1].splitlines() if line.strip()}
    assert listed
    assert listed <= commands


def test_help_imports_nothing_that_takes_long() -> None:
    """Help and a finished command line come in a third of a second, which any of these would double."""
    asked = """
import sys
from runspan.__main__ import main

sys.argv = ["runspan", "--help"]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    imported = {name.partition(".")[0] for name in ended.stderr.split()}
    assert imported > {"runspan"}
    assert imported.isdisjoint({"apscheduler", "grpc", "httpx", "opentelemetry", "rich", "sqlalchemy"})


def test_each_command_has_help(tmp_path: Path) -> None:
    told = runspan("--help", folder=tmp_path).stdout
    for line in told.split("Commands:")[1].splitlines():
        if line.strip():
            ended = runspan(line.split()[0], "--help", folder=tmp_path)
            assert ended.returncode == 0, line
            assert "Usage: runspan" in ended.stdout


def test_version(tmp_path: Path) -> None:
    assert runspan("--version", folder=tmp_path).stdout.startswith("runspan 0.")
