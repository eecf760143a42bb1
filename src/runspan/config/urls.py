"""URLs as they may stand in the configuration: whole, and without credentials."""

import ipaddress
import urllib.parse
from typing import Annotated, TypeAlias

from pydantic import AfterValidator


def web_url(url: str) -> str:
    """The URL. Raises ValueError for what is no whole http(s) URL, or holds a user or a password."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL: write it whole, such as https://host:4318")
    _ = parts.port  # raises ValueError for what is no port
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold a user or a password: put them into a header or key, by reference")
    return url


def base_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError as `web_url` does, and for a query or a fragment."""
    if set("?#") & set(url):
        raise ValueError("a base URL has no query and no fragment: leave out what follows ? or #")
    return web_url(url).rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


WebUrl: TypeAlias = Annotated[str, AfterValidator(web_url)]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(base_url)]
