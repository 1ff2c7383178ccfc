"""Limits on a request and its connection, at the edge of both services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.settings import Settings


@dataclass(frozen=True)
class Limits:
    """Of one connection to the edge; a connection that was taken over has its transport's limits."""

    head_bytes: int = 32 * 1024  # room for a large cookie and a token
    head_lines: int = 256
    head_seconds: float = 5.0
    heads_a_turn: int = 4  # requests that begin in one turn of the loop, of all connections
    long_turn_seconds: float = 0.003  # after which the next turn begins one request
    turn_seconds: float = 10.0  # that a request may wait to begin, while others begin before it
    body_bytes: int = 256 * 1024
    body_seconds: float = 120.0
    body_grace_seconds: float = 10.0  # after which the rate applies
    body_bytes_per_second: float = 500.0
    idle_seconds: float = 130.0  # above what proxies keep: nginx and ALB 60, Traefik 90, Caddy 120
    linger_seconds: float = 2.0  # for a client to stop sending and read its answer
    leave_seconds: float = 1.0  # for a client to send the rest of its request when the server leaves
    stall_seconds: float = 30.0  # for a client to read anything of an answer
    connections: int = 10_000  # at a time; those that were taken over don't count
    tick_seconds: float = 1.0  # how late any of these may be

    @staticmethod
    def of(settings: Settings, *, body_bytes: int, connections: int) -> Limits:
        return Limits(
            head_bytes=settings.max_head_bytes,
            head_seconds=settings.head_seconds,
            body_bytes=body_bytes,
            body_seconds=settings.body_seconds,
            body_bytes_per_second=settings.body_bytes_per_second,
            idle_seconds=settings.keep_alive_seconds,
            connections=connections,
        )
