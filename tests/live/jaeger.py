"""A real Jaeger v2, all-in-one in memory, for the live tests and for trying the bridge by hand.

`make jaeger` finds or builds it and runs it on the usual ports until Ctrl-C.
The build comes from Go modules and holds no web page; its query API is complete.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.live.process import Unavailable, cache_dir, free_ports, server

MODULE = "github.com/jaegertracing/jaeger"
VERSION = "v1.76.0"  # released together with v2.13.0: cmd/jaeger in it is Jaeger v2
GO_MOD = f"""\
module runspan.invalid/jaeger

go 1.24.6

require {MODULE} {VERSION}

// Jaeger's own go.mod has this line, for which `go install {MODULE}/...` refuses it.
replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
"""
GO_SUM = f"""\
{MODULE} {VERSION} h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g=
{MODULE} {VERSION}/go.mod h1:hqcuJlLDTv7G2x5eFd/BhwcPdLxj3N+90aKhIzdOcKo=
"""


@dataclass(frozen=True, slots=True)
class Jaeger:
    """Where a running Jaeger listens on loopback."""

    otlp_grpc_port: int
    otlp_http_port: int
    query_port: int

    @property
    def otlp_grpc(self) -> str:
        return f"http://127.0.0.1:{self.otlp_grpc_port}"

    @property
    def otlp_http(self) -> str:
        return f"http://127.0.0.1:{self.otlp_http_port}"

    @property
    def query(self) -> str:
        return f"http://127.0.0.1:{self.query_port}"


USUAL_PORTS = Jaeger(otlp_grpc_port=4317, otlp_http_port=4318, query_port=16686)


def find() -> Path | None:
    """The jaeger binary on PATH, else the one in the cache folder, else None."""
    if found := shutil.which("jaeger"):
        return Path(found)
    return _built() if _built().exists() else None


def find_or_build() -> Path:
    """The jaeger binary, built in the cache folder with Go when there is none (about 4 minutes).

    Raises Unavailable.
    """
    _built().parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_built().with_suffix(".lock")):
        if found := find():
            return found
        go = shutil.which("go")
        if go is None:
            raise Unavailable(
                f"no jaeger on PATH or at {_built()}, and no Go to build it with: "
                "put a Jaeger v2 binary named `jaeger` on PATH, or install Go 1.25 or newer"
            )
        _build(go, _built())
        return _built()


def _built() -> Path:
    return cache_dir() / f"jaeger-{VERSION}" / "jaeger"


def _build(go: str, binary: Path) -> None:
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        work = Path(folder)
        (work / "go.mod").write_text(GO_MOD)
        (work / "go.sum").write_text(GO_SUM)
        module = json.loads(_go(go, work, "mod", "download", "-json", f"{MODULE}@{VERSION}"))
        # Jaeger's own sums pin all that it is built from; ours above pin Jaeger.
        (work / "go.sum").write_text((Path(module["Dir"]) / "go.sum").read_text() + GO_SUM)
        _go(go, work, "build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", "jaeger", f"{MODULE}/cmd/jaeger")
        (work / "jaeger").replace(binary)


def _go(go: str, work: Path, *arguments: str) -> str:
    result = subprocess.run([go, *arguments], cwd=work, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Unavailable(
            f"`go {' '.join(arguments)}` failed: {result.stderr.strip()[-1000:]}\n"
            "Put a Jaeger v2 binary named `jaeger` on PATH instead."
        )
    return result.stdout


def config(at: Jaeger, *, health_port: int, query_grpc_port: int) -> str:
    """An all-in-one configuration, as JSON, which is YAML too.

    Without a batch processor: a span can be queried as soon as its export is acknowledged.
    """

    def listen(port: int) -> dict[str, str]:
        return {"endpoint": f"127.0.0.1:{port}"}

    document = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": listen(at.query_port),
                "grpc": listen(query_grpc_port),
                "enable_tracing": False,
            },
            "healthcheckv2": {"use_v2": True, "http": listen(health_port)},
        },
        "receivers": {
            "otlp": {
                "protocols": {"grpc": listen(at.otlp_grpc_port), "http": listen(at.otlp_http_port)},
            }
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
    return json.dumps(document, indent=1)


@contextlib.contextmanager
def running(binary: Path, folder: Path, at: Jaeger | None = None) -> Iterator[Jaeger]:
    """A healthy Jaeger until the block ends, on free ports unless told; config and log go to `folder`."""
    otlp_grpc, otlp_http, query, health, query_grpc = free_ports(5)
    at = at or Jaeger(otlp_grpc, otlp_http, query)
    config_file = folder / "jaeger.yaml"
    config_file.write_text(config(at, health_port=health, query_grpc_port=query_grpc))
    with server(
        [str(binary), "--config", str(config_file)],
        health_url=f"http://127.0.0.1:{health}/status",
        log=folder / "jaeger.log",
        env={**os.environ, "NO_PROXY": "*"},
    ):
        yield at


def main() -> int:
    """Run Jaeger on its usual ports until Ctrl-C."""
    try:
        binary = find_or_build()
    except Unavailable as problem:
        print(problem, file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory() as folder,
        running(binary, Path(folder), USUAL_PORTS) as jaeger,
    ):
        print(f"OTLP at {jaeger.otlp_http} and {jaeger.otlp_grpc}, query API at {jaeger.query}; Ctrl-C ends it")
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
