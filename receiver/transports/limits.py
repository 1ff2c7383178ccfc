"""What one connection may cost its gateway: bytes that wait for its client, and what the client sends."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.transports.websocket.traffic import CUSTOMERS, STRANGERS, Allowance


@dataclass(frozen=True)
class StreamLimits:
    buffer_bytes: int = 256 * 1024  # that wait for one client
    kernel_bytes: int = 128 * 1024  # as many in the kernel, which would keep megabytes; it doubles this
    stall_bytes: int = 64 * 1024  # from here on the client must read within `stall_seconds`
    stall_seconds: float = 5.0
    linger_seconds: float = 2.0  # for the client to read our last bytes and close its side


@dataclass(frozen=True)
class WebSocketLimits(StreamLimits):
    message_bytes: int = 16 * 1024  # of one message from a client: room for a token
    message_fragments: int = 128
    customers: Allowance = CUSTOMERS
    strangers: Allowance = STRANGERS
