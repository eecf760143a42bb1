"""`runspan id`."""

from typing import Annotated

import typer

from runspan.cli.options import OptionalConfigFile, load_config
from runspan.config import Config, PlatformInfo
from runspan.errors import ConfigError
from runspan.origin import origin_of
from runspan.projection import ids
from runspan.sources import platforms


def id(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id on its platform.")],
    platform: Annotated[str, typer.Option(help="flowyble, runtype, elizaos, casedev, or a plug-in's.")],
    tenant: Annotated[
        str | None, typer.Option(help="Default: that of the configured source, else the platform's origin.")
    ] = None,
    config: OptionalConfigFile = None,
) -> None:
    """Print the trace id that a run has, and its root span's id; nothing is asked, all is computed."""
    if not run or tenant == "":
        raise ConfigError("an empty id or tenant is none, as where a shell's variable is not set: name it")
    known = platforms()
    if platform not in known:
        raise ConfigError(f"unknown platform {platform}; known are {', '.join(known)}")
    configured = load_config(config) if config else None
    trace = ids.trace_id(platform, tenant or _tenant(platform, known[platform], configured), run)
    typer.echo(f"trace_id {trace.hex()}\nroot_span_id {ids.root_span_id(trace).hex()}")
    if configured and (url := configured.destination.url_of_trace(trace)):
        typer.echo(f"url {url}")


def _tenant(platform: str, info: PlatformInfo, config: Config | None) -> str:
    if config:
        tenants = {source.tenant_or_origin for source in config.source if source.platform == platform}
        if len(tenants) == 1:
            return tenants.pop()
        if tenants:
            raise ConfigError(f"several {platform} tenants are configured: say which with --tenant")
    if info.default_base_url is None:
        raise ConfigError(f"{platform} has no address of its own: say which with --tenant")
    return origin_of(info.default_base_url)
