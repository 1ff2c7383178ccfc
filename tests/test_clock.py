"""The clock of all connections; what it does to each is in test_connection.py."""

from __future__ import annotations

import asyncio
import contextlib
import time

import prometheus_client
import pytest

from receiver.connections import clock as heartbeat
from receiver.connections.clock import Heartbeat
from tests.waiting import await_until

pytestmark = pytest.mark.anyio


def lag() -> float:
    """Of the loop, all that was measured."""
    return prometheus_client.REGISTRY.get_sample_value("orderbell_loop_lag_seconds_sum") or 0.0


async def test_loop_that_was_held_up_shows_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK_SECONDS", 0.01)
    beating = asyncio.create_task(Heartbeat(20).run())
    await asyncio.sleep(0)  # it has begun
    before = lag()
    time.sleep(0.3)  # noqa: ASYNC251 - that is what must show
    await await_until(lambda: lag() > before + 0.2)
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
