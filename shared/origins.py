"""Origins, RFC 6454: scheme, host and port, and nothing else of a URL.

A setting is written by people (`https://Shop.Example:443`, `https://büro.example`), a header by browsers
(`https://shop.example`, `https://xn--bro-hoa.example`). Both become the same here, or the setting is refused,
because it could match nothing.

Patterns are for subdomains alone: `https://*.shop.example` is any name below shop.example, however deep, and
not shop.example itself. The decision: shops with a subdomain for each tenant could not name their pages
otherwise. The star stands for whole labels at the front, above at least two, so that no suffix trick and no
`*.com` passes.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

import idna

from shared.errors import OperatorError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ANY = "*."


class InvalidOrigin(OperatorError, ValueError):
    """Not an origin, or one that no browser would send."""


class Origin(NamedTuple):
    scheme: str
    host: str  # as browsers send it: lower case, punycode, brackets around IPv6
    port: int

    def __str__(self) -> str:
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse_origin(text: str) -> Origin:
    """Raises `InvalidOrigin`."""
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        raise InvalidOrigin(f"{text!r} is not an origin") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        raise InvalidOrigin(f"{text!r} is not an origin; expected https://shop.example")
    if parts.path or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise InvalidOrigin(f"{text!r} is not an origin; expected https://shop.example, without a path")
    if port == 0:
        raise InvalidOrigin(f"{text!r}: no browser uses port 0")
    return Origin(parts.scheme, _host(host, text), port or _DEFAULT_PORTS[parts.scheme])


def parse_pattern(text: str) -> Origin:
    """As `parse_origin`; the host may begin with `*.`. Raises `InvalidOrigin`."""
    scheme, separator, rest = text.partition("://")
    if not rest.startswith(_ANY):
        return parse_origin(text)
    below = parse_origin(f"{scheme}{separator}{rest.removeprefix(_ANY)}")
    if "." not in below.host or below.host.startswith("[") or below.host.replace(".", "").isdigit():
        raise InvalidOrigin(f"{text!r} matches too much; expected https://*.shop.example")
    return below._replace(host=_ANY + below.host)


def matches(origin: Origin, pattern: Origin) -> bool:
    if not pattern.host.startswith(_ANY):
        return origin == pattern
    same = (origin.scheme, origin.port) == (pattern.scheme, pattern.port)
    return same and origin.host.endswith(pattern.host[1:])


def is_pattern(origin: Origin) -> bool:
    return origin.host.startswith(_ANY)


def _host(host: str, text: str) -> str:
    if ":" in host:
        return f"[{host}]"
    if "*" in host:
        raise InvalidOrigin(
            f"{text!r}: a star stands for whole labels at the front, as in https://*.shop.example"
        )
    try:
        return host if host.isascii() else idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise InvalidOrigin(f"{text!r}: not a host name that a browser could send") from None
