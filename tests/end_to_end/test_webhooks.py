"""Webhooks all the way: a device shows an alert, its gateway reports it, the sender's process delivers it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.test_main_path import api
from tests.webhooks.receiver import SECRET, Answer, receiving
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes

pytestmark = [pytest.mark.anyio, pytest.mark.long]


async def test_what_a_device_reports_is_delivered_and_a_slow_receiver_delays_no_end(
    processes: Processes,
) -> None:
    async with receiving() as receiver:
        sender = processes.start_sender(
            webhook_url=receiver.url, webhook_secrets=SECRET, webhook_events="alert.shown"
        )
        gateway = processes.start_receiver()
        async with api(processes, sender) as client, connected(gateway, processes.token("alice")) as browser:
            for order_id in ("1", "2"):
                await client.post("/orders", json={"order_id": order_id, "customer_id": "alice"})
                await client.post(f"/orders/{order_id}/complete")
            await browser.receive_events(2)
            await browser.report_seen("customer:alice=1.1")
            (message,) = await receiver.wait(1)
            assert message.verified()["data"]["event"]["subject"] == "1"
            receiver.usual = Answer(200, seconds=600)
            await browser.report_seen("customer:alice=1.2")
            await receiver.wait(2)
        # Pytest's own loop must go on meanwhile: the receiver is in it.
        assert await asyncio.to_thread(sender.terminate) == 0
        assert SECRET.removeprefix("whsec_") not in sender.text()
        assert "alice" not in sender.text()
