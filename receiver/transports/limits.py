"""What one connection may cost its gateway: bytes that wait for its client, and what the client sends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

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
class Allowance:
    """What one client may send; see receiver/transports/websocket/traffic.py."""

    frames_a_second: int
    frames_a_heartbeat: int
    bytes_a_second: int
    bytes_a_heartbeat: int

    def times(self, frames: float, size: float) -> Allowance:
        return Allowance(
            max(1, round(self.frames_a_second * frames)),
            max(1, round(self.frames_a_heartbeat * frames)),
            round(self.bytes_a_second * size),
            round(self.bytes_a_heartbeat * size),
        )


CUSTOMERS = Allowance(200, 400, 128 * 1024, 512 * 1024)
STRANGERS = Allowance(20, 20, 32 * 1024, 32 * 1024)


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
