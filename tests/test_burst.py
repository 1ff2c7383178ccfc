"""Events heard together leave together, whatever fails in one of their connections."""

from __future__ import annotations

import pytest

from receiver.connections.connection import End
from receiver.feeds.burst import Burst, hand_over, write_all
from shared.channels import Channel
from shared.cursors import Place
from tests.connections import Handed, Shared

pytestmark = pytest.mark.anyio

ALICE = Channel("customer:alice")


class Faulty(Handed):
    """A connection that takes nothing and can't even be ended cleanly."""

    dropped = False

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        raise RuntimeError("a defect")

    def end(self, end: End, reason: str) -> None:
        super().end(end, reason)
        raise RuntimeError("another")

    def drop(self) -> None:
        self.dropped = True


class FaultyShared(Shared, Faulty):
    def write(self, data: bytes) -> None:
        raise RuntimeError("a defect")


class Full:
    """A socket that takes nothing now."""

    def send(self, data: bytes) -> int:
        raise BlockingIOError


async def test_connection_that_takes_no_event_and_cannot_be_ended_holds_up_no_other() -> None:
    faulty, other = Faulty(), Handed()
    hand_over([faulty, other], ALICE, Place(1, 1), b"{}")
    assert faulty.ends == [End.INTERNAL_ERROR]
    assert faulty.dropped
    assert other.seqs == [1]


@pytest.mark.parametrize("paused", [True, False])
async def test_connection_that_takes_no_bytes_holds_up_no_other(*, paused: bool) -> None:
    faulty, other = FaultyShared(), Shared()
    faulty.paused = paused
    faulty._socket = Full()  # type: ignore[assignment] # as a socket is when its client does not read
    write_all([((faulty, other), b"one"), ((other,), b"two")])
    assert faulty.ends == [End.INTERNAL_ERROR]
    assert faulty.dropped
    assert other.frames == [b"one", b"two"]


async def test_burst_leaves_whole_and_once_whatever_fails_in_it() -> None:
    faulty, handed, shared = Faulty(), Handed(), Shared()
    burst = Burst()
    burst.finished.append(((shared,), b"one"))
    burst.handed += [((faulty,), ALICE, Place(1, 1), b"{}"), ((handed,), ALICE, Place(1, 1), b"{}")]
    burst.write()
    burst.write()
    assert shared.frames == [b"one"]
    assert handed.seqs == [1]
