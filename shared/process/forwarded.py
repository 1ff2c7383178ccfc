"""The client as a proxy reports it: X-Forwarded-For and X-Forwarded-Proto, from trusted proxies alone.

The rule is that of uvicorn's ProxyHeadersMiddleware, and a test compares the two, with one exception: an IPv4
address that a proxy on a dual-stack socket writes as `::ffff:10.0.0.5` is 10.0.0.5, in the header and in the
setting. So a chain of proxies is not cut off at one that is trusted. `Forwarded` applies the rule to requests
that the app serves; a request that a transport takes from the edge does not pass it.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

_SCHEMES = frozenset({b"http", b"https", b"ws", b"wss"})
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # IPv4 addresses, RFC 4291 2.5.5.2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peer(NamedTuple):
    """Where a request comes from; `port` is 0 if a proxy does not report one."""

    host: str
    port: int
    scheme: str  # http or https


class Proxies:
    def __init__(self, trusted: Iterable[str]) -> None:
        """`trusted` are addresses and networks; anything else raises `ValueError`."""
        self._addresses: set[Address] = set()
        self._networks: set[Network] = set()
        for text in trusted:
            if "/" in text:
                self._networks.add(_unmapped_network(ipaddress.ip_network(text)))
            else:
                self._addresses.add(_unmapped(ipaddress.ip_address(text)))
        self._trusts = lru_cache(maxsize=4096)(self._check)

    def trust(self, host: str) -> bool:
        return self._trusts(host) if 0 < len(host) <= 253 else False

    def peer(self, host: str, port: int, headers: Sequence[tuple[bytes, bytes]]) -> Peer:
        """The client of a request that came from that address. Header names are in lower case."""
        scheme = "http"
        if self.trust(host):
            said = [value for name, value in headers if name == b"x-forwarded-proto"]
            if said and said[-1].strip() in _SCHEMES:
                scheme = "https" if said[-1].strip() in (b"https", b"wss") else "http"
            chain = [value for name, value in headers if name == b"x-forwarded-for"]
            if chain:
                client, client_port = self._client(b", ".join(chain).decode("latin-1"))
                host, port = (client, client_port) if client else (host, port)
        return Peer(host, port, scheme)

    def _client(self, chain: str) -> tuple[str, int]:
        """The last address that is not a trusted proxy's: each proxy appends its own client."""
        hops = [_split(hop.strip()) for hop in chain.split(",")]
        return next((hop for hop in reversed(hops) if not self.trust(hop[0])), hops[0])

    def _check(self, host: str) -> bool:
        try:
            address = _unmapped(ipaddress.ip_address(host))
        except ValueError:
            return False
        return address in self._addresses or any(address in network for network in self._networks)


class Forwarded:
    """ASGI: the app sees the client that the proxies report."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["client"] is not None:
            host, port = scope["client"]
            peer = self._proxies.peer(host, port, scope["headers"])
            scope["client"], scope["scheme"] = (peer.host, peer.port), peer.scheme
        await self._app(scope, receive, send)


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _unmapped_network(network: Network) -> Network:
    if not isinstance(network, ipaddress.IPv6Network) or not network.subnet_of(_MAPPED):
        return network
    first = int(network.network_address) & 0xFFFFFFFF
    return ipaddress.IPv4Network((first, network.prefixlen - _MAPPED.prefixlen))


def _split(hop: str) -> tuple[str, int]:
    """Host and port of `1.2.3.4`, `1.2.3.4:80`, `[::1]`, `[::1]:80`; anything else is a host as it stands."""
    if hop.startswith("["):
        host, bracket, rest = hop[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return hop, 0
        return host, _port(rest[1:])
    host, _, port = hop.rpartition(":")
    if hop.count(":") == 1:
        try:
            return host, int(port)
        except ValueError:
            return hop, 0
    return hop, 0


def _port(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
