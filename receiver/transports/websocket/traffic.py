"""What one client may send: frames and bytes, in a second and between two heartbeats.

A frame is counted when it begins, by the size in its header, so nothing excessive is parsed. A read that only
continues a frame also counts as one, because a client that sends byte by byte costs as much. Clients that
have not authenticated may send a token, and little else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.transports.limits import Allowance


class Traffic:
    """What has come since the last heartbeat. Made when something comes, so an idle connection has none."""

    __slots__ = ("_bytes", "_bytes_in_second", "_frames", "_frames_in_second", "_second")

    def __init__(self) -> None:
        self._frames = self._bytes = 0
        self._second = -1
        self._frames_in_second = self._bytes_in_second = 0

    def count_frame(self, size: int, second: int) -> None:
        """`second` is any number that changes each second."""
        if second != self._second:
            self._second = second
            self._frames_in_second = self._bytes_in_second = 0
        self._frames += 1
        self._frames_in_second += 1
        self._bytes += size
        self._bytes_in_second += size

    def count_read(self) -> None:
        """Count a read that began no frame."""
        self._frames += 1

    def frames_left(self, allowance: Allowance, second: int) -> int:
        """How many more may begin now; below 0 if there were too many."""
        in_second = self._frames_in_second if second == self._second else 0
        return min(allowance.frames_a_second - in_second, allowance.frames_a_heartbeat - self._frames)

    def exceeds(self, allowance: Allowance) -> bool:
        return (
            self._frames > allowance.frames_a_heartbeat
            or self._frames_in_second > allowance.frames_a_second
            or self._bytes > allowance.bytes_a_heartbeat
            or self._bytes_in_second > allowance.bytes_a_second
        )
