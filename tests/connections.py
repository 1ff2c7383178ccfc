"""Connections that remember what they were given, for tests of code that knows no transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from receiver.connections.connection import Connection, End, SharingConnection

if TYPE_CHECKING:
    from receiver.connections.notices import Notice
    from shared.channels import Channel
    from shared.cursors import Place


class Handed(Connection):
    """A connection that is handed events."""

    transport = "test"

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Channel, Place, bytes]] = []
        self.notices: list[Notice] = []
        self.ends: list[End] = []
        self.beats = 0

    @property
    def seqs(self) -> list[int]:
        return [place.seq for _, place, _ in self.events]

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        self.events.append((channel, place, text))

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)

    def beat(self, now: float) -> None:
        self.beats += 1

    def end(self, end: End, reason: str) -> None:
        self.closed = True
        self.ends.append(end)

    async def wait_writable(self) -> None: ...


class Frames:
    """A socket that remembers what each system call took."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)


class Shared(Handed, SharingConnection):
    """A connection that shares its bytes with others."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = False
        self._socket = Frames()
        self.frames = self._socket.sent

    @property
    def socket(self) -> Frames:
        return self._socket

    @staticmethod
    def frame(channel: Channel, epoch: int, seq: int, text: bytes) -> bytes:
        return b"%d " % len(text) + text

    @property
    def seqs(self) -> list[int]:
        return [msgspec.json.decode(frame.partition(b" ")[2])["seq"] for frame in self.frames]

    def write(self, data: bytes) -> None:
        self.frames.append(data)
