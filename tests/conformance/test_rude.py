"""No client of any transport ends its gateway, delays another client, or leaves anything behind."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.conformance.rude import TRANSPORTS, play
from tests.conformance.websocket import WebSocketDriver
from tests.waiting import await_until

if TYPE_CHECKING:
    from tests.conformance.conftest import Shop
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

CUSTOMERS = 5
TURNS = 120
SESSIONS = ("polling", "xhr")
LONG_TURNS = 1_500  # a gateway that could be ended by one packet fell within 120
LONG_SEED = "ORDERBELL_RUDE_SEED"


@pytest.fixture(scope="module")
def rude_gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    """Its limits are so high that they protect it from nothing."""
    return module_processes.start_receiver(
        sender=sender,
        heartbeat_seconds="2",
        spring_compat="0",
        handshakes_per_second="100000",
        handshakes_per_second_per_address="100000",
        max_unauthenticated_per_address="10",
        max_connections_per_customer="8",
    )


def connections(gateway: ReceiverProcess) -> float:
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    return sum(
        float(count) for count in re.findall(r"^orderbell_connections\{.*\} (.*)$", text, re.MULTILINE)
    )


async def check(
    gateway: ReceiverProcess,
    shop: Shop,
    processes: Processes,
    transport: str,
    turns: int,
    seed: int,
    *,
    lasting: bool,
) -> None:
    """`lasting`: wait until sessions have ended, which the gateway keeps for clients that come back."""
    tokens = [processes.token(f"rude-{n}", topics=["news"]) for n in range(CUSTOMERS)]
    customer = f"polite-{transport}-{seed}"
    pid, before = gateway.pid, connections(gateway)
    async with WebSocketDriver().connected(gateway, processes.token(customer)) as polite:
        playing = asyncio.create_task(play(gateway.port, tokens, transport, turns, seed))
        posted = 0
        while not playing.done():
            await shop.post(f"customer:{customer}", 1)
            for n in range(CUSTOMERS):
                await shop.post(f"customer:rude-{n}", 2)
            await shop.post("topic:news", 1)
            posted += 1
            await polite.receive_events(posted)
            await asyncio.sleep(0.02)
        await playing
        assert polite.seqs == list(range(1, posted + 1))
        assert gateway.process.poll() is None
        if lasting or transport not in SESSIONS:
            await await_until(lambda: connections(gateway) <= before + 1, timeout=60)
    assert gateway.pid == pid
    faults = [r for r in gateway.records() if r.get("level") in ("error", "critical") or "exception" in r]
    assert not faults, faults[0]
    assert "Traceback" not in gateway.text()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_rude_client_harms_nobody_but_itself(
    rude_gateway: ReceiverProcess, shop: Shop, module_processes: Processes, transport: str
) -> None:
    await check(rude_gateway, shop, module_processes, transport, TURNS, seed=1, lasting=False)


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_thousands_of_rude_clients_harm_nobody_but_themselves(
    rude_gateway: ReceiverProcess, shop: Shop, module_processes: Processes, transport: str
) -> None:
    seed = int(os.environ.get(LONG_SEED, "2"))
    await check(rude_gateway, shop, module_processes, transport, LONG_TURNS, seed, lasting=True)
