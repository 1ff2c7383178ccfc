"""Which of our outgoing requests go through a proxy, the same for gateway, sender and tools.

Orderbell's own parts (Redis, the database, sender and gateways) are reached directly, whatever the
environment says: a proxy leads out of a company. Only the customers' issuer and the receiver of webhooks may
be outside; they are reached through the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, unless
NO_PROXY lists their host.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined] # typeshed leaves the second out
    getproxies_environment,
    proxy_bypass_environment,
)

from shared.errors import OperatorError
from shared.loopback import is_loopback


class UnusableProxy(OperatorError, ValueError):
    """A proxy that cannot be used; the message names its variable and quotes no password."""


def proxy_for(url: str) -> str | None:
    """The proxy's URL, if there is one. Raises `UnusableProxy`."""
    parts = urlsplit(url)
    if is_loopback(parts.hostname):
        return None
    proxies = getproxies_environment()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], proxies):
        return None
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(kind)
    if not proxy:
        return None
    name = f"{kind.upper()}_PROXY"
    scheme, has_scheme, _ = proxy.partition("://")
    if not has_scheme:
        proxy, scheme = f"http://{proxy}", "http"
    if scheme.lower() not in ("http", "https"):
        raise UnusableProxy(
            f"{name}: {scheme}:// proxies are not supported; write http://host:port, or unset it"
        )
    try:
        usable = bool(urlsplit(proxy).hostname) and urlsplit(proxy).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UnusableProxy(f"{name}: not the address of a proxy; write http://host:port, or unset it")
    return proxy
