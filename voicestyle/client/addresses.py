"""Checks of the addresses of a service."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def base_url(url: str) -> str:
    """`url` without its last slash. Raises ValueError unless it is an http or https URL without a query."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"the URL of a service must be http://host:port or https://host, got {url!r}")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine, which must not be reached through a proxy."""
    host = urlsplit(url).hostname
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
