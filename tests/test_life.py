"""A drain: how fast those who are sent away come back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from receiver.connections.life import pause_seconds
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes

CONNECTIONS, PER_SECOND, DRAIN_SECONDS = 12, 4, 0.5


@pytest.mark.parametrize(
    ("connections", "drain_seconds", "per_second", "pause"),
    [
        (10_000, 10.0, 2_000, 0.0),  # the defaults
        (1_833, 20.0, 200, 0.0),
        (7_000, 10.0, 200, 30.0),  # at most
        (1_400, 0.0, 200, 10.0),
        (0, 10.0, 200, 0.0),
    ],
)
def test_drain_that_is_faster_than_gateways_accept_keeps_the_last_ones_away_longer(
    connections: int, drain_seconds: float, per_second: int, pause: float
) -> None:
    assert pause_seconds(connections, drain_seconds, per_second) == pytest.approx(pause)


@pytest.mark.long
@pytest.mark.anyio
async def test_those_who_are_sent_away_come_back_no_faster_than_the_next_gateway_accepts(
    processes: Processes,
) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver(
        sender=sender, handshakes_per_second=str(PER_SECOND), drain_seconds=str(DRAIN_SECONDS)
    )
    async with AsyncExitStack() as stack:
        clients = []
        for n in range(CONNECTIONS):
            if n and n % PER_SECOND == 0:
                await asyncio.sleep(1.2)  # or its own limit would refuse them
            clients.append(await stack.enter_async_context(connected(gateway, processes.token(f"c{n}"))))
        gateway.process.terminate()
        backs = []
        for client in clients:
            bye = await client.receive()
            assert bye["type"] == "orderbell.bye"
            backs.append(bye["data"]["retry_after_ms"] / 1000)
    least = CONNECTIONS / (0.7 * PER_SECOND) - DRAIN_SECONDS  # that the last one is kept away
    assert max(backs) > 0.9 * least * (CONNECTIONS - 1) / CONNECTIONS
    assert max(backs) < least + 2.1
    assert min(backs) < 2.5  # the first ones come back at once
