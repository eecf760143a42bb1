import json
import os
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.config import Config, PlatformInfo, SourceConfig, Table, loader
from runspan.config.environment import known_variables, unknown_variables
from runspan.errors import ConfigError


class Inner(Table):
    """A table of the platform's own."""

    path: str = "/runs"
    """Where the list is."""


class OwnTable(SourceConfig):
    """An account with a table of its own."""

    list: Inner | None = None
    """How runs are listed."""


PLATFORMS = {
    "casedev": PlatformInfo(SourceConfig, "https://api.case.dev", "30/min"),
    "flowyble": PlatformInfo(OwnTable, "https://api.flowyble.com", "90/min"),
}
SOURCE = """
[[source]]
name = "case-prod"
platform = "casedev"
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> Config:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return loader.load(path, platforms=PLATFORMS, environ=environ or {}, overrides=overrides)

    return load


@pytest.fixture
def complaint(load: Any, tmp_path: Path) -> Any:
    def complaint(text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> str:
        with pytest.raises(ConfigError) as refused:
            load(text, environ, **overrides)
        return str(refused.value).replace(f"{tmp_path}/", "")

    return complaint


# Each row: what stands in the file, and the whole complaint.
COMPLAINTS = {
    "unknown key": (
        SOURCE + 'setle = "3s"\n',
        "config.toml line 5: unknown key `setle` in [[source]] case-prod; did you mean `settle`?",
    ),
    "unknown key in another case": (
        '[ledger]\nURL = "sqlite://"\n',
        "config.toml line 2: unknown key `URL` in [ledger]; did you mean `url`?",
    ),
    "unknown key like no other": (
        "[ledger]\nxyzzy = 1\n",
        "config.toml line 2: unknown key `xyzzy` in [ledger]; known are url, retention",
    ),
    "unknown table": ("\n[lader]\n", "config.toml line 2: unknown key `lader`; did you mean `ledger`?"),
    "unknown key in a platform's table": (
        '[[source]]\nname = "f"\nplatform = "flowyble"\n[source.list]\npaht = "/x"\n',
        "config.toml line 5: unknown key `list.paht` in [[source]] f; did you mean `path`?",
    ),
    "unknown platform": (
        '[[source]]\nname = "a"\nplatform = "casdev"\n',
        "config.toml line 3: unknown platform `casdev` in [[source]] a; did you mean `casedev`?",
    ),
    "missing platform": (
        '[[source]]\nname = "a"\n', "config.toml line 1: `platform` is missing in [[source]] a",
    ),
    "missing name": (
        SOURCE + '[[source]]\nplatform = "casedev"\n',
        "config.toml line 5: `name` is missing in [[source]] number 2",
    ),
    "bare secret": (
        SOURCE + 'api_key = "hunter2"\n',
        "config.toml line 5: `api_key` in [[source]] case-prod: a secret does not stand in the configuration itself: "
        "write env:NAME or file:/path",
    ),
    "bare header": (
        '[destination.headers]\nx-a = "1"\nauthorization = "Bearer hunter2"\n',
        "config.toml line 3: `headers.authorization` in [destination]: a header with this name is a secret: "
        "write env:NAME or file:/path, never the value itself",
    ),
    "bad duration": (
        SOURCE + 'poll_every = "30"\n',
        "config.toml line 5: `poll_every` in [[source]] case-prod: not a duration: write a number and a unit, "
        "such as 500ms, 30s, 5m, 24h or 90d",
    ),
    "too short a duration": (
        '[destination]\ntimeout = "0s"\n',
        "config.toml line 2: `timeout` in [destination]: too short a duration: 1ms is the least",
    ),
    "header of HTTP's own": (
        '[destination.headers]\ncontent-length = "5"\n',
        "config.toml line 2: `headers.content-length` in [destination]: belongs to HTTP itself: leave it out",
    ),
    "bad start": (
        SOURCE + 'start = "last tuesday"\n',
        "config.toml line 5: `start` in [[source]] case-prod: not a start: write now, a duration back such as 24h, "
        "or a timestamp with its zone, such as 2026-01-31T08:00:00Z",
    ),
    "duration without quotes": (
        "[ledger]\nretention = 90\n",
        "config.toml line 2: `retention` in [ledger]: write it as text with its unit, in quotes",
    ),
    "bad rate": (
        SOURCE + 'rate = "fast"\n',
        "config.toml line 5: `rate` in [[source]] case-prod: not a rate: write requests per unit of time, "
        "such as 2/s, 90/min or 1000/15min",
    ),
    "no such choice": (
        '[destination]\npreset = "jager"\n',
        "config.toml line 2: `preset` in [destination]: write jaeger, tempo, phoenix, langfuse or generic",
    ),
    "wrong type": (
        SOURCE + 'agents = "all"\n', "config.toml line 5: `agents` in [[source]] case-prod: write an array",
    ),
    "value where a table belongs": ("ledger = 3\n", "config.toml line 1: `ledger`: write a table"),
    "value of every wrong type": (
        "[resource.attributes]\na = []\n",
        "config.toml line 2: `attributes.a` in [resource]: input should be a valid string",
    ),
    "number that nothing can carry": (
        "[resource.attributes]\na = 9223372036854775808\n",
        "config.toml line 1: `attributes` in [resource]: no number of more than 64 bits, as a is: write it as a text",
    ),
    "plain http": (
        SOURCE + 'base_url = "http://10.0.0.1"\n',
        "config.toml line 5: `base_url` in [[source]] case-prod: plain http shows the key to everyone on the way: "
        "use https, or set allow_http = true",
    ),
    "retention by default too short": (
        SOURCE + 'open_for = "90d"\n',
        "config.toml: `retention` in [ledger]: must be longer than lookback + open_for of source case-prod, 91d",
    ),
    "repeated name": (
        SOURCE + SOURCE,
        "config.toml line 7: `name` in [[source]] case-prod: another source is named case-prod too: rename one",
    ),
    "not TOML": (
        "[ledger]\nurl =\n", "config.toml line 2, column 6: not TOML: Invalid value",
    ),
    "number without end": (
        f"a = {'9' * 5000}\n", "config.toml holds a number of thousands of digits: write one that can be meant",
    ),
    "arrays without end": (
        f"a = {'[' * 3000}{']' * 3000}\n",
        "config.toml holds arrays or tables too deep within each other: write them flat",
    ),
    "deep arrays": (
        f"\nlader = {'[' * 200}{']' * 200}\n", "config.toml line 2: unknown key `lader`; did you mean `ledger`?",
    ),
    "deep keys": (
        f"\n[lader]\n{'.'.join('a' * 3000)} = 1\n", "config.toml line 2: unknown key `lader`; did you mean `ledger`?",
    ),
    "line breaks and escapes in what is quoted": (
        '[log]\n"a\\nb\\u001b[2J" = 1\n',
        "config.toml line 2: unknown key `a\ufffdb\ufffd[2J` in [log]; known are level, format",
    ),
    "not TOML to its end": ('[ledger]\nurl = "', "config.toml: not TOML: Unterminated string"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMPLAINTS)
def test_a_complaint_names_line_key_and_remedy(case: str, complaint: Any) -> None:
    text, expected = COMPLAINTS[case]
    assert complaint(text) == expected


def test_everything_that_is_wrong_is_told_at_once(complaint: Any) -> None:
    text = '[ledger]\nretention = "x"\n[log]\nlevel = "loud"\n' + SOURCE + "setle = 1\nconcurrency = 0\n"
    told = complaint(text, {"RUNSPAN_WEB__LISTEN": "9464"}, limits={"max_body": "1"}).splitlines()
    assert [line.split(": ")[0] for line in told] == [
        "config.toml line 2", "RUNSPAN_WEB__LISTEN", "command line", "config.toml line 4", "config.toml line 10",
        "config.toml line 9",
    ]  # fmt: skip


def test_no_complaint_quotes_a_value(load: Any) -> None:
    text = '[web]\ntoken = "hunter2"\n[destination]\nheaders = { cookie = "hunter2" }\nca_file = { a = "hunter2" }\n'
    with pytest.raises(ConfigError) as refused:
        load(text, {"OTEL_EXPORTER_OTLP_COMPRESSION": "hunter2"})
    chain: BaseException | None = refused.value
    while chain:
        assert "hunter2" not in str(chain)
        chain = chain.__cause__ or chain.__context__


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    for name, reason in (("none.toml", "runspan init"), ("latin.toml", "not UTF-8"), ("", "Is a directory")):
        with pytest.raises(ConfigError, match=reason):
            loader.load(tmp_path / name, platforms=PLATFORMS, environ={})


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'\xef\xbb\xbf[log]\r\nlevel = "debug"\r\n')
    assert loader.load(tmp_path / "config.toml", platforms=PLATFORMS, environ={}).log.level == "debug"


def test_a_file_without_end_is_refused_and_a_pipe_is_read(load: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read /dev/zero: it has more than 16,777,216 bytes"):
        loader.load(Path("/dev/zero"), platforms=PLATFORMS, environ={})
    # As a shell makes one of <(...).
    reader, writer = os.pipe()
    os.write(writer, b'[log]\nlevel = "debug"\n')
    os.close(writer)
    try:
        assert loader.load(Path(f"/dev/fd/{reader}"), platforms=PLATFORMS, environ={}).log.level == "debug"
    finally:
        os.close(reader)


def test_layers_go_over_each_other(load: Any) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "2500"}
    text = '[destination]\nendpoint = "http://file:1"\n'
    ours = {"RUNSPAN_DESTINATION__ENDPOINT": "http://ours:1"}
    flag = {"destination": {"endpoint": "http://flag:1"}}
    assert load("").destination.endpoint == "http://localhost:4318"
    assert load("", environ).destination.endpoint == "http://otel:1"
    assert load(text, environ).destination.endpoint == "http://file:1"
    assert load(text, environ | ours).destination.endpoint == "http://ours:1"
    assert load(text, environ | ours, **flag).destination.endpoint == "http://flag:1"
    assert load(text, environ | ours, **flag).destination.timeout.total_seconds() == 2.5


def test_every_key_outside_source_has_a_variable(load: Any) -> None:
    tables = {name: getattr(Config(), name) for name in Config.model_fields if name != "source"}
    keys = {(name, key) for name, table in tables.items() for key in type(table).model_fields}
    assert set(known_variables().values()) == keys
    config = load(
        "",
        {
            "RUNSPAN_CONTENT__CAPTURE": "true",
            "RUNSPAN_LIMITS__MAX_BODY": "1MB",
            "RUNSPAN_DESTINATION__HEADERS": '{"x-a": "b"}',
            "RUNSPAN_LEDGER__URL": "",
        },
    )
    assert config.content.capture is True
    assert config.limits.max_body == 1_000_000
    assert config.destination.headers == {"x-a": "b"}
    assert config.ledger.url.endswith("/runspan/ledger.db")


def test_a_variable_is_named_in_its_complaint(complaint: Any) -> None:
    for text in ("{x", '{"a":' * 50_000):
        assert complaint("", {"RUNSPAN_DESTINATION__HEADERS": text}) == (
            "RUNSPAN_DESTINATION__HEADERS: `headers` in [destination]: write a table"
        )
    assert complaint("", {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}) == (
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: `protocol` in [destination]: write http/protobuf, grpc, file or sdk"
    )


def test_unknown_variables_are_only_listed(load: Any) -> None:
    environ = {"RUNSPAN_PORT": "tcp://10.0.0.1:80", "RUNSPAN_LEDGER__ULR": "x", "RUNSPAN_LOG__LEVEL": "debug"}
    assert load("", environ).log.level == "debug"
    assert unknown_variables(environ) == ["RUNSPAN_LEDGER__ULR", "RUNSPAN_PORT"]


def test_the_otlp_variables_are_honoured(load: Any) -> None:
    destination = load(
        "",
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://general:4317",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces:4317",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hunter2, x-a = b",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/cert.pem",
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/key.pem",
        },
    ).destination
    assert (destination.protocol, destination.endpoint) == ("grpc", "https://traces:4317")
    assert destination.revealed_headers() == {"authorization": "Bearer hunter2", "x-a": "b"}
    assert "hunter2" not in repr(destination)
    assert destination.compression == "none"
    assert [destination.ca_file, destination.client_cert, destination.client_key] == [
        Path("/ca.pem"), Path("/cert.pem"), Path("/key.pem"),
    ]  # fmt: skip


def test_headers_of_the_otlp_variables_go_by_plain_http_only_where_that_is_allowed(load: Any, complaint: Any) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1", "OTEL_EXPORTER_OTLP_HEADERS": "x-team=hunter2"}
    assert complaint("", environ) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT: `endpoint` in [destination]: plain http shows the header x-team to everyone "
        "on the way: use https, or set allow_http = true in [destination]"
    )
    assert load("", environ | {"RUNSPAN_DESTINATION__ALLOW_HTTP": "true"}).destination.allow_http


@pytest.mark.parametrize(
    "text", ["hunter2", "a=b,hunter2", "=hunter2", "a=", "a=hunter2%0Ax-evil: 1", "a=hunter2%C3%A9"]
)
def test_otlp_headers_that_are_none_are_told_at_once(text: str, load: Any, complaint: Any) -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": text}
    assert complaint("", environ) == (
        "OTEL_EXPORTER_OTLP_HEADERS: write name=value, with commas between headers; a value is plain ASCII, with %xx"
    )
    assert load('[destination]\nprotocol = "file"\nendpoint = "traces.jsonl"\n', environ).destination.headers == {}


def test_the_otlp_variables_do_not_speak_of_a_file(load: Any) -> None:
    text = '[destination]\nprotocol = "file"\nendpoint = "traces.jsonl"\n'
    destination = load(text, {"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}).destination
    assert (destination.endpoint, destination.headers) == ("traces.jsonl", {})


def test_lines_are_found_however_values_run() -> None:
    text = '''# a comment
top = 1
[a]

"quoted key" = """
[not.a.table]
x = 1
"""
list = [
  1, # one
  { deep = [2] },
]
b.c = 2
[[t]]
x = 1
[t.u]
y = 2
[[t.v]]
z = 3
[[t.v]]
z = 4
[[t]]
x = { y = 5 }
'''
    lines = loader.key_lines(text)
    wanted = {
        ("top",): 2, ("a",): 3, ("a", "quoted key"): 5, ("a", "list"): 9, ("a", "list", 1, "deep"): 9,
        ("a", "b", "c"): 13, ("t", 0): 14, ("t", 0, "x"): 15, ("t", 0, "u"): 16, ("t", 0, "u", "y"): 17,
        ("t", 0, "v", 0): 18, ("t", 0, "v", 0, "z"): 19, ("t", 0, "v", 1, "z"): 21, ("t", 1): 22,
        ("t", 1, "x", "y"): 23,
    }  # fmt: skip
    assert {path: lines[path] for path in wanted} == wanted


def test_brackets_and_quotes_in_strings_and_comments_end_nothing() -> None:
    text = """
a = "[{\\"#" # ["{
b = '[\\' # '
"c#[" = ""
d = '''
[''x'''''
e = \"\"\"\\\"\"\"]
[\"\"\"\"\"
f = [ # ]
  "]", ']', { g = "}" }, # [
]
h = { i = "\\\\" }
["t]".'#']
j = 1
"""
    lines = loader.key_lines(text)
    wanted = {
        ("a",): 2, ("b",): 3, ("c#[",): 4, ("d",): 5, ("e",): 7, ("f",): 9, ("h",): 12, ("t]", "#"): 13,
        ("t]", "#", "j"): 14,
    }  # fmt: skip
    assert {path: lines[path] for path in wanted} == wanted


def test_long_lists_hold_nothing_up(complaint: Any) -> None:
    agents = "".join(f'  "ag_{number}",\n' for number in range(20_000))
    begun = time.monotonic()
    told = complaint(SOURCE + f"agents = [\n{agents}]\nsetle = 1\npol_every = 1\n")
    assert [line.split(":")[0] for line in told.splitlines()] == ["config.toml line 20007", "config.toml line 20008"]
    assert time.monotonic() - begun < 5


def test_a_list_of_mistakes_holds_nothing_up(complaint: Any) -> None:
    agents = "".join(f"  {number},\n" for number in range(2_000))
    begun = time.monotonic()
    assert complaint(SOURCE + f"agents = [\n{agents}]\n").count("\n") == 1_999
    assert time.monotonic() - begun < 5


@given(
    st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=5)), unique_by=lambda kv: kv[0])
)
def test_each_key_is_found_on_its_line(pairs: list[tuple[str, str]]) -> None:
    # json.dumps in ASCII writes what TOML reads, but for what lies beyond the first plane
    statements = [f"{key} = {json.dumps(value)}" for key, value in pairs if value.isprintable() and value.isascii()]
    text = "\n\n".join(["[t]", *statements])
    assert tomllib.loads(text)
    lines = loader.key_lines(text)
    assert [lines["t", statement.split()[0]] for statement in statements] == [
        3 + 2 * index for index in range(len(statements))
    ]
