"""Proxies, certificate authorities and client certificates, from the environment and the configuration, for real."""

import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from runspan.http import Connection, ConnectionFailed, environment_proxy
from runspan.otlp.base import AnswerKind, Exporter
from runspan.otlp.grpc import GrpcExporter
from runspan.otlp.http import HttpExporter
from runspan.otlp.tls import TlsFiles
from tests.otlp_store import OtlpStore
from tests.traces import encoded_trace

# httpx-aiohttp hands a proxy's credentials to aiohttp in a form that aiohttp would like to see replaced.
pytestmark = [
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'proxy_auth' parameter is deprecated:DeprecationWarning"),
]

CREDENTIALS = "user:pass-word-canary"


class Proxy:
    """A real forward proxy in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._log, port_file = folder / "log", folder / "port"
        where = ["--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port_file), "--log-file", str(self._log)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proxy", *where, "--num-workers", "1", "--num-acceptors", "1", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: port_file.exists() and port_file.read_text().strip().isdigit())
        self.port = int(port_file.read_text())

    def saw(self, text: str) -> bool:
        """Whether the proxy served such a request; it says so when the connection is over."""
        return f"- {text}" in self._log.read_text()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def eventually(condition: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("proxy"), "--basic-auth", CREDENTIALS)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("http", "https", "all", "no", "grpc", "no_grpc"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


def store_with_tls(authority: trustme.CA, *, name: str = "localhost", client_ca: trustme.CA | None = None) -> OtlpStore:
    """A store that speaks TLS over both protocols; `client_ca`: it wants a client certificate of this authority."""
    certificate = authority.issue_cert(name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    if client_ca:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    key = certificate.private_key_pem.bytes()
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(key, chain)],
        root_certificates=client_ca.cert_pem.bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )
    return OtlpStore(tls=context, grpc_credentials=credentials)


def exporter_to(store: OtlpStore, protocol: str, **files: Path) -> Exporter:
    tls = TlsFiles(**files)
    if protocol == "grpc":
        return GrpcExporter(store.grpc_endpoint, timeout_seconds=5, tls=tls)
    return HttpExporter(f"{store.http_endpoint}/v1/traces", timeout_seconds=5, tls=tls)


def port_of(store: OtlpStore, protocol: str) -> int:
    return store.grpc_port if protocol == "grpc" else store.http_port


async def answer_of(exporter: Exporter):
    try:
        return await exporter.send([encoded_trace()])
    finally:
        await exporter.close()


both = pytest.mark.parametrize("protocol", ["http", "grpc"])


class TestProxy:
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    @both
    async def test_plain(self, proxy, monkeypatch, protocol, variable):
        monkeypatch.setenv(variable, f"http://{CREDENTIALS}@127.0.0.1:{proxy.port}")
        with OtlpStore(with_grpc=True) as store:
            assert (await answer_of(exporter_to(store, protocol))).kind is AnswerKind.ACCEPTED
            assert len(store.spans) == 2
            verb = "CONNECT" if protocol == "grpc" else "POST"
            eventually(lambda: proxy.saw(f"{verb} localhost:{port_of(store, protocol)}"))

    @both
    async def test_tls(self, proxy, authority, monkeypatch, protocol, tmp_path):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("HTTPS_PROXY", f"http://{CREDENTIALS}@127.0.0.1:{proxy.port}")
        with store_with_tls(authority) as store:
            assert (await answer_of(exporter_to(store, protocol))).kind is AnswerKind.ACCEPTED
            eventually(lambda: proxy.saw(f"CONNECT localhost:{port_of(store, protocol)}"))

    # The proxy named here does not exist: whoever asks it fails.
    @pytest.mark.parametrize("exempt", ["localhost", "*", "example.test,localhost", "localhost:{port}"])
    @both
    async def test_no_proxy(self, monkeypatch, protocol, exempt):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        with OtlpStore(with_grpc=True) as store:
            monkeypatch.setenv("NO_PROXY", exempt.format(port=port_of(store, protocol)))
            assert (await answer_of(exporter_to(store, protocol))).kind is AnswerKind.ACCEPTED

    @pytest.mark.parametrize(
        ("exempt", "host", "is_exempt"),
        [
            ("127.0.0.0/8", "127.0.0.1", True),
            ("x/y,,/, 10.1.2.3/8", "10.9.9.9", True),
            ("10.0.0.0/8,fd00::/8", "[fd00::1]", True),
            ("10.0.0.0/8", "11.0.0.1", False),
            ("10.0.0.0/8", "[fd00::1]", False),
            ("0.0.0.0/0", "localhost", False),
        ],
    )
    def test_no_proxy_may_name_networks(self, monkeypatch, exempt, host, is_exempt):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", exempt)
        assert (environment_proxy(f"http://{host}:4318") is None) is is_exempt

    @both
    async def test_proxy_of_the_other_scheme_is_not_used(self, monkeypatch, protocol):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        with OtlpStore(with_grpc=True) as store:
            assert (await answer_of(exporter_to(store, protocol))).kind is AnswerKind.ACCEPTED

    @both
    async def test_proxy_that_is_down(self, monkeypatch, protocol):
        monkeypatch.setenv("HTTP_PROXY", f"http://{CREDENTIALS}@127.0.0.1:1")
        with OtlpStore(with_grpc=True) as store:
            answer = await answer_of(exporter_to(store, protocol))
            assert answer.kind is AnswerKind.RETRY
            # Who was not there is the proxy, and not the destination.
            assert ("127.0.0.1:1: Failed" if protocol == "grpc" else "through the proxy 127.0.0.1:1: ") in answer.reason
            assert "canary" not in answer.reason
            assert store.requests == []

    @both
    async def test_proxy_that_does_not_let_us_pass(self, proxy, monkeypatch, protocol):
        monkeypatch.setenv("HTTP_PROXY", f"http://user:wrong-canary@127.0.0.1:{proxy.port}")
        with OtlpStore(with_grpc=True) as store:
            answer = await answer_of(exporter_to(store, protocol))
            assert answer.kind is AnswerKind.WRONG
            assert "407" in answer.reason
            assert "canary" not in answer.reason
            assert store.requests == []


class TestTls:
    @pytest.mark.parametrize("by", ["ca_file", "SSL_CERT_FILE"])
    @both
    async def test_own_authority(self, authority, monkeypatch, protocol, by, tmp_path):
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        settings = {"ca_file": ca_file} if by == "ca_file" else {}
        if by == "SSL_CERT_FILE":
            monkeypatch.setenv(by, str(ca_file))
        with store_with_tls(authority) as store:
            assert (await answer_of(exporter_to(store, protocol, **settings))).kind is AnswerKind.ACCEPTED
            assert len(store.spans) == 2

    @both
    async def test_unknown_authority_is_wrong(self, authority, protocol):
        with store_with_tls(authority) as store:
            answer = await answer_of(exporter_to(store, protocol))
            assert answer.kind is AnswerKind.WRONG
            assert store.requests == []

    @both
    async def test_certificate_for_another_host_is_wrong(self, authority, protocol, tmp_path):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        with store_with_tls(authority, name="elsewhere.example.test") as store:
            answer = await answer_of(exporter_to(store, protocol, ca_file=tmp_path / "ca.pem"))
            assert answer.kind is AnswerKind.WRONG
            assert store.requests == []

    @both
    async def test_client_certificate(self, authority, protocol, tmp_path):
        clients = trustme.CA()
        ca_file, cert_file, key_file = (tmp_path / name for name in ("ca.pem", "client.pem", "client.key"))
        authority.cert_pem.write_to_path(ca_file)
        certificate = clients.issue_cert("runspan.example.test")
        certificate.cert_chain_pems[0].write_to_path(cert_file)
        certificate.private_key_pem.write_to_path(key_file)
        with store_with_tls(authority, client_ca=clients) as store:
            files = {"ca_file": ca_file, "client_cert": cert_file, "client_key": key_file}
            assert (await answer_of(exporter_to(store, protocol, **files))).kind is AnswerKind.ACCEPTED
            assert len(store.spans) == 2

    @both
    async def test_a_client_certificate_can_be_replaced_while_we_run(self, authority, protocol, tmp_path):
        clients = trustme.CA()
        files = {name: tmp_path / f"{name}.pem" for name in ("ca_file", "client_cert", "client_key")}
        authority.cert_pem.write_to_path(files["ca_file"])
        with store_with_tls(authority, client_ca=clients) as store:
            exporter = exporter_to(store, protocol, **files)
            try:
                for issuer in (trustme.CA(), clients):
                    certificate = issuer.issue_cert("runspan.example.test")
                    certificate.cert_chain_pems[0].write_to_path(files["client_cert"])
                    certificate.private_key_pem.write_to_path(files["client_key"])
                    answer = await exporter.send([encoded_trace()])
                    assert (answer.kind is AnswerKind.ACCEPTED) == (issuer is clients)
            finally:
                await exporter.close()

    @pytest.mark.parametrize("content", ["", "no certificate"])
    async def test_a_file_that_holds_no_certificate_is_said_to(self, content, tmp_path):
        (tmp_path / "client.pem").write_text(content)
        answer = await answer_of(HttpExporter("https://localhost:1", tls=TlsFiles(client_cert=tmp_path / "client.pem")))
        assert answer.kind is AnswerKind.WRONG
        assert answer.reason.endswith(f"cannot load {tmp_path}/client.pem: no certificate with its key in PEM form")

    @both
    async def test_missing_client_certificate_is_no_success(self, authority, protocol, tmp_path):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        with store_with_tls(authority, client_ca=trustme.CA()) as store:
            answer = await answer_of(exporter_to(store, protocol, ca_file=tmp_path / "ca.pem"))
            # TLS 1.3 refuses after the handshake: whether the alert or only a closed connection is seen is a race,
            # and all that gRPC ever tells is that the server went away.
            assert answer.kind in (AnswerKind.WRONG, AnswerKind.RETRY)
            assert store.requests == []


class TestConnection:
    """What sources ask through."""

    async def post(self, url: str) -> int:
        connection = Connection(url, timeout_seconds=5, max_body_bytes=1000)
        try:
            headers = {"content-type": "application/x-protobuf"}
            return (await connection.request("POST", "/v1/traces", headers=headers, content=b"")).status
        finally:
            await connection.close()

    async def test_proxy(self, proxy, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", f"http://{CREDENTIALS}@127.0.0.1:{proxy.port}")
        with OtlpStore() as store:
            assert await self.post(store.http_endpoint) == 200
            eventually(lambda: proxy.saw(f"POST localhost:{store.http_port}"))

    async def test_proxy_and_own_authority(self, proxy, authority, monkeypatch, tmp_path):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("HTTPS_PROXY", f"http://{CREDENTIALS}@127.0.0.1:{proxy.port}")
        with store_with_tls(authority) as store:
            assert await self.post(store.http_endpoint) == 200
            eventually(lambda: proxy.saw(f"CONNECT localhost:{store.http_port}"))

    async def test_no_proxy(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "localhost")
        with OtlpStore() as store:
            assert await self.post(store.http_endpoint) == 200

    async def test_unknown_authority(self, authority):
        with store_with_tls(authority) as store:
            with pytest.raises(ConnectionFailed) as failed:
                await self.post(store.http_endpoint)
            assert failed.value.tls
            assert failed.value.reason == "TLS: unable to get local issuer certificate"
