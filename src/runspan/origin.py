"""The origin of a URL: what a tenant is by default, and what a connection is pinned to."""

import urllib.parse


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL in one normal form: lower case, default ports left out."""
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default_port) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
