"""The clock of all connections; what a beat does to a WebSocket is in test_websocket_connection.py."""

from __future__ import annotations

import asyncio
import contextlib
import time

import prometheus_client
import pytest

from receiver.access.identity import Identity
from receiver.connections.clock import Clock
from receiver.connections.connection import End
from receiver.connections.notices import Bye
from tests.connections import Handed
from tests.waiting import await_until

pytestmark = pytest.mark.anyio


def lag() -> float:
    """The sum of the loop's measured lags."""
    return prometheus_client.REGISTRY.get_sample_value("orderbell_loop_lag_seconds_sum") or 0.0


async def test_loop_that_was_held_up_shows_how_long() -> None:
    ticking = asyncio.create_task(Clock(20, tick_seconds=0.01).run())
    await asyncio.sleep(0)  # it has begun
    before = lag()
    time.sleep(0.3)  # noqa: ASYNC251 - that is what must show
    await await_until(lambda: lag() > before + 0.2)
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking


async def test_each_connection_has_one_beat_a_heartbeat_and_no_second_has_them_all() -> None:
    clock, connections = Clock(4), [Handed() for _ in range(8)]
    for connection in connections:
        clock.add(connection)
    clock.tick(1, 0)
    assert sum(connection.beats for connection in connections) == 2
    for now in (2, 3, 4):
        clock.tick(now, 0)
    assert [connection.beats for connection in connections] == [1] * 8


async def test_48_connection_ends_with_its_token() -> None:
    clock, connection = Clock(1), Handed()
    clock.add(connection)
    connection.identity = Identity("alice", (), expires_at=100)
    clock.tick(1, wall_clock=99)
    assert connection.ends == []
    clock.tick(2, wall_clock=101)
    assert connection.ends == [End.UNAUTHENTICATED]


class Looked(Handed):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def look(self, now: float) -> bool:
        self.left -= 1
        return self.left > 0


async def test_connection_that_is_attended_is_looked_at_each_second_until_it_needs_it_no_more() -> None:
    clock, connection = Clock(20), Looked(times=2)
    clock.add(connection)
    clock.attend(connection)
    for now in range(5):
        clock.tick(now, 0)
    assert connection.left == 0


class Faulty(Looked):
    def look(self, now: float) -> bool:
        raise RuntimeError("a defect")

    def beat(self, now: float) -> None:
        raise RuntimeError("a defect")


async def test_connection_whose_heartbeat_fails_ends_and_the_others_go_on() -> None:
    clock, faulty, sound = Clock(1), Faulty(times=9), Looked(times=9)
    for connection in (faulty, sound):
        clock.add(connection)
        clock.attend(connection)
    for now in (1, 2):
        clock.tick(now, 0)
    assert set(faulty.ends) == {End.INTERNAL_ERROR}
    assert (sound.beats, sound.left, sound.ends) == (2, 7, [])


async def test_clock_is_empty_once_the_last_connection_is_gone() -> None:
    clock, connection = Clock(20), Handed()
    clock.add(connection)
    waiting = asyncio.create_task(clock.wait_empty())
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.discard(connection)
    await asyncio.wait_for(waiting, 20)


async def test_a_connection_ends_at_its_greatest_age_give_or_take_a_tenth() -> None:
    clock = Clock(1, max_age_seconds=1_000)
    connections = [Handed() for _ in range(200)]
    ages: list[float] = []
    for connection in connections:
        connection.opened_at = 0.0
        clock.add(connection)
    for now in range(880, 1_130, 10):
        before = sum(bool(connection.ends) for connection in connections)
        clock.tick(now, 0)
        ages += [now] * (sum(bool(connection.ends) for connection in connections) - before)
    assert len(ages) == 200
    assert 900 <= min(ages) < 950
    assert 1_050 < max(ages) <= 1_110
    assert all(End.RESTART in connection.ends for connection in connections)
    assert all(isinstance(connection.notices[0], Bye) for connection in connections)
