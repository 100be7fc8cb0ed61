"""Where a service is, and whether the way there may lead through a proxy."""

from __future__ import annotations

import ipaddress
from urllib.parse import quote, urlsplit


def base_url(url: str) -> str:
    """`url` without its last slash. Raises ValueError if it is none of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"a service's URL is http://host:port or https://host, got {url!r}")
    return url.rstrip("/")


def predictions_path(model: str) -> str:
    """The path that takes voices."""
    return f"/predictions/{quote(model, safe='')}"


def is_loopback(host: str | None) -> bool:
    """Whether `host` is this machine, where no proxy of the environment belongs in between."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def url_host(url: str) -> str | None:
    """The host of a URL."""
    return urlsplit(url).hostname


def target_host(target: str) -> str | None:
    """The host of a gRPC target such as `127.0.0.1:7070`."""
    return urlsplit(f"//{target}").hostname
