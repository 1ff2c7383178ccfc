"""Events heard in one read of Redis: all are examined before anything is written, then they leave together.

After a system call Python runs slower for a while: the kernel's mitigations discard the processor's branch
predictions, and the kernel displaces its caches. If each event is for one customer, this saves a sixth of a
delivery's processor time.

Connections that share finished bytes get them from here, straight to the kernel; the others are handed the
event. A connection is of one kind, so each gets everything in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.connections.failing import end_failed
from receiver.metrics import delivered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from receiver.connections.connection import Connection, SharingConnection
    from shared.channels import Channel
    from shared.cursors import Place

TOGETHER_BYTES = 16 * 1024  # of events of one channel, heard one after the other, in one system call

Finished = tuple[tuple["SharingConnection", ...], bytes]
Handed = tuple[tuple["Connection", ...], "Channel", "Place", bytes]

_FAILED = "an event could not be delivered"


class Burst:
    """`Feed.take_next` fills it; `write` empties it."""

    __slots__ = ("feed", "finished", "handed")

    def __init__(self) -> None:
        self.finished: list[Finished] = []
        self.handed: list[Handed] = []
        self.feed: object = None  # the feed of the last finished bytes

    def write(self) -> None:
        """Send everything. Must be called before anything that was heard later is sent."""
        finished, handed, self.feed = self.finished, self.handed, None
        if finished:
            self.finished = []
            write_all(finished)
        if handed:
            self.handed = []
            for one in handed:
                hand_over(*one)


def write_all(finished: Iterable[Finished]) -> None:
    """Write bytes to all connections that share them. None has closed before; some may close here."""
    for connections, data in finished:
        delivered[connections[0].transport] += len(connections)  # all are of one kind
        size = len(data)
        for connection in connections:
            if connection.paused:
                _write(connection, data)
                continue
            # Straight to the kernel: calling a method of ours for each would double the cost.
            try:
                sent = connection.socket.send(data)
            except OSError:  # it takes nothing now, or the connection is gone: the transport finds out which
                sent = 0
            if sent != size:
                _write(connection, data[sent:])


def _write(connection: SharingConnection, data: bytes) -> None:
    try:
        connection.write(data)
    except Exception:  # of one connection: its feed has moved on, so its client must come back
        end_failed(connection, _FAILED)


def hand_over(connections: Iterable[Connection], channel: Channel, place: Place, text: bytes) -> None:
    """Hand an event to connections that write it in their own way."""
    for connection in connections:
        delivered[connection.transport] += 1
        try:
            connection.deliver(channel, place, text)
        except Exception:  # of one connection: its feed has moved on, so its client must come back
            end_failed(connection, _FAILED)
