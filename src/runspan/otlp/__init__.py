"""From a Trace to a destination that has acknowledged it."""

from typing import TYPE_CHECKING

from runspan.otlp.base import Exporter
from runspan.otlp.tls import TlsFiles
from runspan.paths import expanded

if TYPE_CHECKING:
    from runspan.config import DestinationConfig


def exporter(destination: "DestinationConfig") -> Exporter:
    """The destination that a configuration names. Nothing is connected or opened before the first request.

    Raises ConfigError where no such SDK exporter is installed, a path begins with the home of a user without one, or
    the environment names a proxy that is none.
    """
    if destination.is_receiver:
        from runspan.http import environment_proxy

        environment_proxy(destination.endpoint)
    tls = TlsFiles(destination.ca_file, destination.client_cert, destination.client_key)
    # Each protocol is imported only where it is spoken: gRPC alone takes a quarter of a second.
    match destination.protocol:
        case "http/protobuf":
            from runspan.otlp.http import HttpExporter

            return HttpExporter(
                destination.traces_url,
                headers=destination.revealed_headers,
                compression=destination.compression,
                timeout_seconds=destination.timeout.total_seconds(),
                tls=tls,
            )
        case "grpc":
            from runspan.otlp.grpc import GrpcExporter

            return GrpcExporter(
                destination.endpoint,
                headers=destination.revealed_headers,
                compression=destination.compression,
                timeout_seconds=destination.timeout.total_seconds(),
                tls=tls,
            )
        case "file":
            from runspan.otlp.file import FileExporter

            return FileExporter(expanded(destination.endpoint))
        case "sdk":
            from runspan.otlp.sdk import SdkExporter

            return SdkExporter.named(destination.endpoint)
