from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runspan.config import (
    Config,
    DestinationConfig,
    LedgerConfig,
    LimitsConfig,
    PlatformInfo,
    ResourceConfig,
    SourceConfig,
    WebConfig,
    bind,
)
from runspan.quantities import Rate
from runspan.secrets import Secret


class OwnKeys(SourceConfig):
    """An account with a key of its own."""

    step_time: str = "start"


PLATFORMS = {
    "casedev": PlatformInfo(OwnKeys, "https://api.case.dev", "30/min"),
    "elizaos": PlatformInfo(SourceConfig, None, "60/min"),
}


def source(**keys: Any) -> dict[str, Any]:
    return {"name": "case-prod", "platform": "casedev", **keys}


def refusals(model: type[Any], values: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(values)
    return {".".join(map(str, error["loc"])): error["msg"] for error in refused.value.errors()}


def test_the_defaults_are_those_of_the_design() -> None:
    config = bind(PLATFORMS).model_validate({"source": [source()]})
    assert config.ledger.retention == timedelta(days=90)
    destination = config.destination
    assert (destination.protocol, destination.endpoint) == ("http/protobuf", "http://localhost:4318")
    assert (destination.preset, destination.compression, destination.timeout) == (
        "jaeger",
        "gzip",
        timedelta(seconds=10),
    )
    assert config.content.capture is False
    assert config.web.listen == "127.0.0.1:9464"
    assert config.resource.service_name == "{source}"
    assert (config.limits.max_in_flight, config.limits.max_body) == (128_000_000, 64_000_000)
    one = config.source[0]
    assert (one.poll_every, one.settle, one.overlap) == (
        timedelta(seconds=30), timedelta(seconds=5), timedelta(minutes=10),
    )  # fmt: skip
    assert (one.lookback, one.sweep_every, one.open_for) == (
        timedelta(hours=24), timedelta(hours=1), timedelta(days=7),
    )  # fmt: skip
    assert one.start.ago == timedelta(hours=24)
    assert (one.concurrency, one.currency, one.cancelled_is_error, one.export_expired) == (8, "usd", True, False)


def test_a_source_is_read_by_its_platform() -> None:
    config = bind(PLATFORMS).model_validate(
        {"source": [source(step_time="end"), source(name="e", platform="elizaos", base_url="https://e.example/")]}
    )
    case, eliza = config.source
    assert isinstance(case, OwnKeys)
    assert (case.step_time, case.base_url, case.rate) == ("end", "https://api.case.dev", Rate(30, 60))
    assert not isinstance(eliza, OwnKeys)
    assert (eliza.base_url, eliza.rate) == ("https://e.example", Rate(60, 60))


def test_another_platforms_key_is_refused() -> None:
    values = {"source": [source(name="e", platform="elizaos", base_url="https://e.example", step_time="end")]}
    assert list(refusals(bind(PLATFORMS), values)) == ["source.0.elizaos.step_time"]


def test_a_platform_without_an_address_needs_base_url() -> None:
    assert list(refusals(bind(PLATFORMS), {"source": [source(platform="elizaos")]})) == ["source.0.elizaos.base_url"]


def test_one_platform_alone_can_be_bound() -> None:
    config = bind({"casedev": PLATFORMS["casedev"]}).model_validate({"source": [source()]})
    assert config.source[0].platform == "casedev"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "sim.localhost"])
def test_plain_http_is_for_this_machine(host: str) -> None:
    assert SourceConfig(name="s", platform="p", base_url=f"http://{host}:1/").base_url == f"http://{host}:1"


@pytest.mark.parametrize("host", ["10.0.0.1", "eliza", "localhost.example.com", "[2001:db8::1]", "0.0.0.0"])
def test_plain_http_to_elsewhere_must_be_allowed(host: str) -> None:
    values = {"name": "s", "platform": "p", "base_url": f"http://{host}"}
    assert "allow_http = true" in refusals(SourceConfig, values)["base_url"]
    assert SourceConfig.model_validate({**values, "allow_http": True}).base_url == f"http://{host}"


@pytest.mark.parametrize(
    "url", ["api.case.dev", "ftp://x", "https://", "https://u:p@x", "https://x?key=1", "https://x#y", "https://x:port"]
)
def test_what_is_no_base_url(url: str) -> None:
    assert list(refusals(SourceConfig, {"name": "s", "platform": "p", "base_url": url})) == ["base_url"]


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Auth", "my-token", "SECRET", "Cookie"])
def test_a_header_that_is_a_credential_must_be_a_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = refusals(DestinationConfig, {"headers": {name: "hunter2"}})
    assert "env:NAME" in refused[f"headers.{name}"]
    assert "hunter2" not in refused[f"headers.{name}"]
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "hunter2")
    destination = DestinationConfig.model_validate({"headers": {name: "env:RUNSPAN_TEST_KEY"}})
    assert destination.revealed_headers() == {name.lower(): "hunter2"}


def test_a_plain_header_may_stand_as_it_is() -> None:
    destination = DestinationConfig.model_validate({"headers": {"X-Scope-OrgID": "team-a"}})
    assert destination.revealed_headers() == {"x-scope-orgid": "team-a"}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("host", ["192.0.2.2", "collector", "localhost.example.com", "[2001:db8::1]"])
def test_a_header_by_reference_goes_by_plain_http_only_where_that_is_allowed(host: str, protocol: str) -> None:
    values = {"protocol": protocol, "endpoint": f"http://{host}:4318", "headers": {"x-team": "env:RUNSPAN_TEST_KEY"}}
    told = refusals(DestinationConfig, values)
    assert list(told) == ["endpoint"]
    assert "plain http shows the header x-team" in told["endpoint"]
    assert DestinationConfig.model_validate({**values, "allow_http": True}).headers
    assert DestinationConfig.model_validate({**values, "endpoint": f"https://{host}:4318"}).headers
    # As collectors in a cluster are reached.
    assert DestinationConfig.model_validate({**values, "headers": {"x-scope-orgid": "team-a"}}).headers
    assert DestinationConfig.model_validate({**values, "endpoint": "http://127.0.0.1:4318"}).headers


@pytest.mark.parametrize(
    ("endpoint", "traces_url"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("https://c.example/api/public/otel", "https://c.example/api/public/otel/v1/traces"),
        ("https://c.example/otlp/v1/traces", "https://c.example/otlp/v1/traces"),
        ("https://c.example/api/v0.2/traces", "https://c.example/api/v0.2/traces"),
    ],
)
def test_where_traces_are_posted_to(endpoint: str, traces_url: str) -> None:
    assert DestinationConfig(endpoint=endpoint).traces_url == traces_url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:/// ", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite+pysqlite:///:memory:", "names no file"),
        ("sqlite:////var/ledger.db?mode=memory&uri=true", "no options"),
        ("sqlite:///file:x?mode=memory&uri=true", "no options"),
        ("sqlite://var/ledger.db", "four slashes"),
    ],
)
def test_a_ledger_that_would_be_forgotten_is_refused(url: str, told: str) -> None:
    refused = refusals(LedgerConfig, {"url": url})["url"]
    assert told in refused
    assert "write sqlite:////path/to/ledger.db" in refused


@pytest.mark.parametrize("url", ["sqlite:///ledger.db", "sqlite:////var/ledger.db", "sqlite:///~/ledger.db"])
def test_a_ledger_is_a_file(url: str) -> None:
    assert LedgerConfig(url=url).url == url


NO_HOSTS = [
    "exämple..de", "😀😀", "a..b", "a" * 64, f"{'a' * 64}.com", ".a", "exa mple", "a\0b", "a\nb", "%00", "*", "a;b",
    f"{'a.' * 127}de",
]  # fmt: skip
HOSTS = ["a", "a.example.", "my_service", "münchen.de", "xn--mnchen-3ya.de", "10.0.0.1", "[::1]", "a" * 63]


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_no_urls_and_none_to_listen_on(host: str) -> None:
    url = f"https://{host}"
    assert list(refusals(bind(PLATFORMS), {"source": [source(base_url=url)]})) == ["source.0.casedev.base_url"]
    for key in ("endpoint", "query_url"):
        assert list(refusals(DestinationConfig, {key: url})) == [key]
    assert list(refusals(DestinationConfig, {"protocol": "grpc", "endpoint": url})) == ["endpoint"]
    assert list(refusals(DestinationConfig, {"trace_url": f"{url}/{{trace_id}}"})) == ["trace_url"]
    assert list(refusals(WebConfig, {"listen": f"{host}:9464"})) == ["listen"]


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_a_host(host: str) -> None:
    assert DestinationConfig(endpoint=f"https://{host}:1/ü").endpoint == f"https://{host}:1/ü"
    assert WebConfig(listen=f"{host}:9464").listen == f"{host}:9464"


@pytest.mark.parametrize("path", ["a b", "a\0b", "a\nb", "\u001b"])
def test_a_url_has_no_spaces_and_no_control_characters(path: str) -> None:
    assert list(refusals(DestinationConfig, {"endpoint": f"https://a/{path}"})) == ["endpoint"]


@pytest.mark.parametrize(
    "url", ["https://u:hunter2", "https://u:hunter2℀@h", "https://u:hunter2@h:x", "https://[hunter2"]
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    assert "hunter2" not in refusals(DestinationConfig, {"endpoint": url})["endpoint"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "ü", "a(b)", "a\0"])
def test_what_is_no_headers_name(name: str, protocol: str) -> None:
    values = {"protocol": protocol, "headers": {name: "x", "x-sound": "y"}}
    assert list(refusals(DestinationConfig, values)) == [f"headers.{name}"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Content-Type", "content-encoding", "transfer-encoding", "Connection"]
)
def test_a_header_that_http_owns_is_refused(name: str, protocol: str) -> None:
    for value in ("5", "env:RUNSPAN_TEST_KEY"):
        told = refusals(DestinationConfig, {"protocol": protocol, "headers": {name: value, "x-sound": "y"}})
        assert told == {f"headers.{name}": "belongs to HTTP itself: leave it out"}


@pytest.mark.parametrize(
    ("key", "least"), [("poll_every", "50ms"), ("sweep_every", "50ms"), ("open_for", "1ms"), ("timeout", "1ms")]
)
def test_a_duration_that_makes_no_sense_is_refused(key: str, least: str) -> None:
    model, values = (
        (DestinationConfig, {}) if key == "timeout" else (SourceConfig, {**source(), "base_url": "https://x"})
    )
    for short in {"0s", "1ms"} - {least}:
        told = refusals(model, {**values, key: short})
        assert told == {key: f"Value error, too short a duration: {least} is the least"}
    assert model.model_validate({**values, key: least})


def test_none_at_all_is_a_duration_too() -> None:
    values = source(base_url="https://x", settle="0s", overlap="0s", lookback="0s")
    assert SourceConfig.model_validate(values).settle == timedelta()
    assert DestinationConfig.model_validate({"max_span_age": "0s"}).max_span_age == timedelta()


@pytest.mark.parametrize("value", ["a\nb", "a\r\nx-evil: 1", "ü", "€", "a\0b", "a\tb"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_what_is_no_headers_value(value: str, protocol: str) -> None:
    told = refusals(DestinationConfig, {"protocol": protocol, "headers": {"x-a": value}})
    assert told == {"headers.x-a": "a header's value is one line of plain ASCII"}


def test_grpc_takes_fewer_names_than_http() -> None:
    for name in ("x!", "x-BIN"):
        assert DestinationConfig.model_validate({"headers": {name: "a"}}).headers == {name: "a"}
        assert list(refusals(DestinationConfig, {"protocol": "grpc", "headers": {name: "a"}})) == [f"headers.{name}"]
    assert DestinationConfig.model_validate({"protocol": "grpc", "headers": {"X-Scope.Org_ID": "a"}})


@pytest.mark.parametrize(
    ("model", "values", "key"),
    [
        (DestinationConfig, {"protocol": "file", "endpoint": "a\0b"}, "endpoint"),
        (DestinationConfig, {"protocol": "sdk", "endpoint": "a\0b"}, "endpoint"),
        (DestinationConfig, {"ca_file": "a\0b"}, "ca_file"),
        (DestinationConfig, {"client_cert": "a\0b"}, "client_cert"),
        (DestinationConfig, {"client_cert": "a", "client_key": "a\0b"}, "client_key"),
        (LedgerConfig, {"url": "sqlite:////tmp/a\0b"}, "url"),
        (WebConfig, {"token": "file:/a\0b"}, "token"),
    ],
)
def test_no_path_has_a_nul_character(model: type[Any], values: dict[str, Any], key: str) -> None:
    assert list(refusals(model, values)) == [key]


def test_the_endpoint_follows_the_protocol() -> None:
    assert DestinationConfig(protocol="grpc").endpoint == "http://localhost:4317"
    assert DestinationConfig(protocol="file", endpoint="/var/traces.jsonl").endpoint == "/var/traces.jsonl"
    assert list(refusals(DestinationConfig, {"protocol": "file"})) == ["endpoint"]
    assert list(refusals(DestinationConfig, {"protocol": "grpc", "endpoint": "localhost:4317"})) == ["endpoint"]


def test_a_trace_url_has_a_place_for_the_id() -> None:
    assert list(refusals(DestinationConfig, {"trace_url": "http://localhost:16686/trace"})) == ["trace_url"]


def test_a_client_key_needs_its_certificate() -> None:
    assert list(refusals(DestinationConfig, {"client_key": "/k.pem"})) == ["client_key"]


@pytest.mark.parametrize(
    "url",
    [
        "/var/ledger.db",
        "mysql://x/y",
        "postgresql+psycopg://u:hunter2@db/runspan",
        "postgresql://u:hunter2℀@h/n",
        "postgresql://[hunter2/n",
    ],
)
def test_what_is_no_ledger_url(url: str) -> None:
    # No other ledger exists, so none is offered; nor is what may be a password repeated.
    told = refusals(LedgerConfig, {"url": url})["url"]
    assert told.removeprefix("Value error, ") == "write sqlite:////path/to/ledger.db: a ledger is a file of SQLite"


def test_the_ledger_stands_in_the_users_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert LedgerConfig().url == f"sqlite:///{tmp_path}/runspan/ledger.db"
    monkeypatch.delenv("XDG_STATE_HOME")
    # Not yet expanded: who gives the ledger another place needs no home.
    assert LedgerConfig().url == "sqlite:///~/.local/state/runspan/ledger.db"


@pytest.mark.parametrize(
    ("listen", "host", "port"), [("127.0.0.1:9464", "127.0.0.1", 9464), ("[::1]:0", "::1", 0), ("h:1", "h", 1)]
)
def test_listen(listen: str, host: str, port: int) -> None:
    web = WebConfig(listen=listen)
    assert (web.host, web.port) == (host, port)


@pytest.mark.parametrize(
    "listen",
    [
        "9464",
        ":9464",
        "127.0.0.1",
        "127.0.0.1:x",
        "127.0.0.1:70000",
        "::1:80",
        "[::1:9",
        "[zz:z]:9",
        "[a]:9",
        "127.0.0.1:٣",
        "*:9",
        "a:" + "9" * 5000,
    ],
)
def test_what_is_no_listen(listen: str) -> None:
    assert list(refusals(WebConfig, {"listen": listen})) == ["listen"]


@pytest.mark.parametrize("template", ["", "{host}", "{", "{}", "{source"])
def test_a_service_name_has_only_known_places(template: str) -> None:
    assert list(refusals(ResourceConfig, {"service_name": template})) == ["service_name"]


def test_a_body_fits_into_what_may_be_in_flight() -> None:
    assert list(refusals(LimitsConfig, {"max_body": "1GB"})) == ["max_body"]


def test_source_names_are_unique() -> None:
    assert list(refusals(bind(PLATFORMS), {"source": [source(), source()]})) == ["source.1.name"]


def test_two_sources_of_one_account_need_tenants_of_their_own() -> None:
    twins = [source(), source(name="case-test")]
    assert list(refusals(bind(PLATFORMS), {"source": twins})) == ["source.1.tenant"]
    twins[1]["tenant"] = "test"
    assert len(bind(PLATFORMS).model_validate({"source": twins}).source) == 2


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a\n", "x" * 65])
def test_a_source_name_is_fit_for_a_label(name: str) -> None:
    assert list(refusals(bind(PLATFORMS), {"source": [source(name=name)]})) == ["source.0.casedev.name"]


def test_nothing_is_forgotten_that_may_still_be_found() -> None:
    values = {"ledger": {"retention": "8d"}, "source": [source()]}
    assert refusals(bind(PLATFORMS), values) == {
        "ledger.retention": "must be longer than lookback + open_for of source case-prod, 8d"
    }
    values["ledger"] = {"retention": "8d1s"}
    assert bind(PLATFORMS).model_validate(values).ledger.retention == timedelta(days=8, seconds=1)


def test_a_configuration_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASE_KEY", "hunter2")
    config = bind(PLATFORMS).model_validate({"source": [source(api_key="env:CASE_KEY")]})
    assert config.source[0].api_key == Secret("env:CASE_KEY")
    assert config.source[0].api_key.reveal() == "hunter2"
    assert "hunter2" not in f"{config!r}{config.model_dump()}{config.model_dump_json()}"


def test_values_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().content.capture = True  # pyright: ignore[reportAttributeAccessIssue]
