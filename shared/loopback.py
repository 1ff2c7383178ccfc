"""Names of this machine itself, as settings, URLs and Host headers spell them."""

from __future__ import annotations

_NAMES = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})


def is_loopback(host: str | None) -> bool:
    """For a host without its port."""
    return host in _NAMES


def host_of(header: str) -> str:
    """A Host header without its port."""
    host, _, port = header.rpartition(":")
    return host if port.isdigit() else header
