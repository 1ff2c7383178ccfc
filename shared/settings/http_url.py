"""Addresses of HTTP servers in settings."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AnyUrl, UrlConstraints

HttpUrl = Annotated[AnyUrl, UrlConstraints(allowed_schemes=["http", "https"], host_required=True)]


def check_http_url(text: str, *, query: bool) -> None:
    """Stricter than browsers, which take `http:8090` and `http://80/` for addresses. Raises `ValueError`."""
    expected = "expected http://host:port or https://host:port"
    if not re.fullmatch(r"https?://[^\s\\]+", text, re.IGNORECASE) or not text.isprintable():
        raise ValueError(expected)
    parts = urlsplit(text)  # raises ValueError
    if "@" in parts.netloc:
        raise ValueError(f"{expected}, without a name and password")
    if "#" in text or ("?" in text and not query):
        raise ValueError(f"{expected}, without what follows a ? or #")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{expected}; a port is a number from 1 to 65535")
    if not _is_host(parts.hostname or ""):
        raise ValueError(f"{expected}; this is not the name of a host or an address")


def _is_host(host: str) -> bool:
    if ":" in host:  # in brackets
        return bool(IPv6Address(host.partition("%")[0]))
    if re.fullmatch(r"[0-9.]*|0[xX].*", host):
        return bool(IPv4Address(host))
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(re.fullmatch(r"[\w]([\w-]{0,61}\w)?", label) for label in labels)
