"""A keeper brings connections into feeds, and waits for no place without end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from receiver.feeds.feed import Feed
from receiver.feeds.keeper import Keeper
from receiver.feeds.pace import Pace
from receiver.feeds.sources import Unavailable
from shared.cursors import Place
from tests.catch_up.world import ALICE, BOB, World, WorldHistory, WorldLog
from tests.connections import Shared

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.anyio


class Deaf:
    hears = False

    def subscribe(self, feed: Feed) -> None: ...

    def unsubscribe(self, feeds: Iterable[Feed]) -> None: ...

    async def run(self) -> None: ...


async def test_wait_for_several_places_ends_in_time_though_one_comes_in_the_last_moment() -> None:
    """The first place and the time-out fall into one turn of the loop, before the connection's task."""
    world = World(1)
    keeper = Keeper(lambda _: Deaf(), WorldLog(world), WorldHistory(world), Pace(establish_seconds=0.02))
    first, second = Feed(ALICE), Feed(BOB)
    waiting = asyncio.create_task(keeper._wait_established(Shared(), [first, second]))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_later(0.01, first.establish, Place(1, 0))
    loop.call_soon(time.sleep, 0.03)
    with pytest.raises(Unavailable, match="in time"):
        await asyncio.wait_for(waiting, 5)
