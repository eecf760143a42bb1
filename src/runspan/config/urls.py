"""URLs as they may stand in the configuration: whole, and without credentials."""

import contextlib
import ipaddress
import re
import urllib.parse
from typing import Annotated, TypeAlias

import idna
from pydantic import AfterValidator


def web_url(url: str) -> str:
    """The URL. Raises ValueError for what is no whole http(s) URL, or holds a user or a password."""
    # urlsplit would leave line breaks out by itself.
    if not url.isprintable() or " " in url:
        raise ValueError("a URL has no spaces, line breaks or control characters: write %20 for a space in its path")
    try:
        parts = urllib.parse.urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises ValueError for what is no port
    except ValueError:
        raise ValueError("not a URL: it has no sound host and port, such as https://host:4318") from None
    if not is_whole:
        raise ValueError("not a URL: write it whole, such as https://host:4318")
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold a user or a password: put them into a header or key, by reference")
    if not is_host(parts.hostname or ""):
        raise ValueError("the URL's host is no host: write a name of letters, digits, dots and dashes, or an address")
    return url


def base_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError as `web_url` does, and for a query or a fragment."""
    if set("?#") & set(url):
        raise ValueError("a base URL has no query and no fragment: leave out what follows ? or #")
    return web_url(url).rstrip("/")


def is_host(text: str) -> bool:
    """Whether the text can be asked for as a host: an IP address, or a name that DNS can carry (RFC 1035, IDNA)."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    try:
        # Underscores are no letters of host names, but container networks use them all the same.
        name = text if text.isascii() else idna.encode(text.lower()).decode()
    except idna.IDNAError:
        return False
    return len(name) <= 253 and bool(re.fullmatch(r"([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?", name))


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


WebUrl: TypeAlias = Annotated[str, AfterValidator(web_url)]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(base_url)]
