"""What one connection may cost its gateway: bytes that wait for its client, and what the client sends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from receiver.transports.websocket.traffic import CUSTOMERS, STRANGERS, Allowance

if TYPE_CHECKING:
    from shared.settings import ReceiverSettings


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

    def scaled(self, settings: ReceiverSettings) -> Self:
        """As the settings have it; at their defaults these limits. STOMP's keep their proportion."""
        usual = WebSocketLimits()
        frames = settings.frames_per_second / usual.customers.frames_a_second
        size = settings.bytes_per_second / usual.customers.bytes_a_second
        return replace(
            self,
            message_bytes=self.message_bytes * settings.max_message_bytes // usual.message_bytes,
            customers=self.customers.times(frames, size),
        )
