"""How many connections there may be: in all, by address, and of strangers, clients not yet authenticated.

Strangers never keep customers out. Their limit is far below that of all connections, so the rest is a reserve
for authenticated ones. At the limit a new stranger is accepted and the oldest one ended: a real client
authenticates within moments, so the oldest is the likeliest to be only holding a place. A flood shortens the
time that strangers have, and does nothing else.

Handshakes a second are bounded, in all and by address, before they are accepted: a page that is refused
comes back later. In all, the bound holds for every second: more at once would keep the loop from the
connections that are already there. Of one address, ten seconds' worth may come at once: an office of hundreds
comes back together.

An address is an IPv4 address or an IPv6 network of 64 bits, which is what one household gets; trusted proxies
report it. A proxy's own address is exempt, as are Unix sockets: if a proxy reports no client, a limit by
address would be one limit for all customers. uvicorn and the edge follow the same rule.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from receiver import metrics
from receiver.connections.connection import End
from shared.problems import Problem
from shared.quota import Pace, Quota

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.connections.connection import Connection
    from shared.process.forwarded import Proxies
    from shared.settings import ReceiverSettings

_IPV6_PREFIX = 64
_RESERVED = 4  # at most one in four connections may be a stranger
_BURST_SECONDS = 10  # of one address's handshakes that may come at once
EXEMPT = ""


@dataclass(frozen=True)
class Limits:
    """Of one gateway; of each worker if there are several."""

    connections: int = 10_000
    per_address: int = 1_000
    strangers: int = 1_000
    strangers_per_address: int = 100
    handshakes_per_second: int = 5_000
    handshakes_per_second_per_address: int = 50

    @staticmethod
    def of(settings: ReceiverSettings) -> Limits:
        return Limits(
            settings.max_connections,
            settings.max_connections_per_address,
            settings.max_unauthenticated,
            settings.max_unauthenticated_per_address,
            settings.handshakes_per_second,
            settings.handshakes_per_second_per_address,
        )


class Capacity:
    """`count` returns how many connections are open."""

    def __init__(self, limits: Limits, proxies: Proxies, count: Callable[[], int]) -> None:
        self._limits = limits
        self._proxies = proxies
        self._count = count
        self._of_address: Counter[str] = Counter()
        self._strangers: dict[Connection, None] = {}  # the oldest first
        self._strangers_of: dict[str, dict[Connection, None]] = {}
        self._max_strangers = max(1, min(limits.strangers, limits.connections // _RESERVED))
        self._handshakes = Pace(limits.handshakes_per_second)
        self._handshakes_of = Quota(
            limits.handshakes_per_second_per_address * _BURST_SECONDS, window_seconds=_BURST_SECONDS
        )

    @property
    def handshakes_per_second(self) -> int:
        return self._limits.handshakes_per_second

    @property
    def strangers(self) -> int:
        return len(self._strangers)

    @property
    def full(self) -> bool:
        return self._count() >= self._limits.connections

    def address(self, host: str) -> str:
        """The key of a client's limits; `EXEMPT` for a proxy that reports no client."""
        return EXEMPT if not host or self._proxies.trust(host) else _address(host)

    def refusal(self, address: str) -> Problem | None:
        """Why one more connection is refused now; None if it is admitted. Each call counts as a handshake."""
        if self.full:
            return _overloaded()
        if seconds := self._handshakes.spend():
            return _later(503, "too-many-handshakes", "Try again in a moment.", seconds)
        if address == EXEMPT:
            return None
        if self._of_address[address] >= self._limits.per_address:
            return _too_many()
        if seconds := self._handshakes_of.spend(address):
            return _later(429, "too-many-handshakes", "Too many handshakes from this address.", seconds)
        return None

    def lack(self, address: str) -> Problem | None:
        """As `refusal`, for a handshake that has waited since then: others may have taken the room."""
        if self.full:
            return _overloaded()
        if address != EXEMPT and self._of_address[address] >= self._limits.per_address:
            return _too_many()
        return None

    # A connection enters, perhaps proves itself, and leaves.

    def enter(self, connection: Connection) -> None:
        address = connection.address
        if address != EXEMPT:
            self._of_address[address] += 1
        if connection.identity is not None:
            return
        self._strangers[connection] = None
        if len(self._strangers) > self._max_strangers:
            self._make_room(self._strangers)
        if address != EXEMPT:
            of_address = self._strangers_of.setdefault(address, {})
            of_address[connection] = None
            if len(of_address) > self._limits.strangers_per_address:
                self._make_room(of_address)

    def prove(self, connection: Connection) -> None:
        """The connection is authenticated. Repeating is harmless."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._forget_stranger(connection)

    def leave(self, connection: Connection) -> None:
        """Must be called once for each connection that has entered."""
        self.prove(connection)
        address = connection.address
        if address != EXEMPT:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def _forget_stranger(self, connection: Connection) -> None:
        of_address = self._strangers_of.get(connection.address)
        if of_address is not None:
            of_address.pop(connection, None)
            if not of_address:
                del self._strangers_of[connection.address]

    def _make_room(self, strangers: dict[Connection, None]) -> None:
        oldest = next(iter(strangers))
        self.prove(oldest)
        metrics.strangers_ended.inc()
        oldest.end(End.TRY_AGAIN_LATER, "others wait; authenticate sooner")
        oldest.drop()


def _later(status: int, kind: str, detail: str, seconds: float) -> Problem:
    return Problem(status, kind, detail, {"retry-after": str(max(1, math.ceil(seconds)))})


def _overloaded() -> Problem:
    return _later(503, "overloaded", "Try again in a moment.", 2)


def _too_many() -> Problem:
    return _later(429, "too-many-connections", "Too many connections from this address.", 10)


@lru_cache(maxsize=4096)
def _address(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]  # a name that a trusted proxy gave it
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)
