"""The way of an event in the logs: the same events everywhere, no data, channels hashed."""

from __future__ import annotations

import hashlib
import signal
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.process.ways import Ways
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio
STEPS = ("event recorded", "event published", "event handed over")


async def complete(processes: Processes, sender: SenderProcess, order_id: str, trace: str) -> str:
    """The event's id."""
    headers = {**processes.api_headers, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    async with httpx2.AsyncClient(base_url=sender.url, headers=headers, trust_env=False) as client:
        order = {"order_id": order_id, "customer_id": "alice", "data": {"note": "secret sauce"}}
        assert (await client.post("/orders", json=order)).status_code == 201
        answer = await client.post(f"/orders/{order_id}/complete", headers={"X-Request-ID": f"r-{order_id}"})
        event_id: str = answer.json()["event"]["id"]
        return event_id


def lines(services: tuple[SenderProcess, ReceiverProcess], event_id: str) -> list[dict[str, object]]:
    found = [record for step in STEPS for service in services for record in service.records(step)]
    return [record for record in found if record["event_id"] == event_id]


async def test_sampled_way_is_in_the_logs_of_both_services_with_trace_place_and_hashed_channel(
    processes: Processes,
) -> None:
    sender, gateway = (
        processes.start_sender(log_events="0.5"),
        processes.start_receiver(log_events="0.5"),
    )
    async with connected(gateway, processes.token("alice")) as browser:
        low, high = "0af7651916cd43dd8448eb21" + "10000000", "0af7651916cd43dd8448eb21" + "f0000000"
        kept = await complete(processes, sender, "1", low)
        left = await complete(processes, sender, "2", high)
        await browser.receive_events(2)

        async def complete_way() -> bool:
            return len(lines((sender, gateway), kept)) == len(STEPS)

        await await_until(complete_way)
    way = lines((sender, gateway), kept)
    assert [line["event"] for line in way] == list(STEPS)
    hashed = hashlib.sha256(b"customer:alice").hexdigest()[:16]
    assert {(line["trace_id"], line["place"], line["channel"]) for line in way} == {(low, "1.1", hashed)}
    assert way[0]["request_id"] == "r-1"
    assert "request_id" not in way[1]
    assert way[2]["connections"] == 1
    assert lines((sender, gateway), left) == []
    assert "alice" not in str(way)
    assert "secret sauce" not in sender.text() + gateway.text()


async def test_way_of_every_event_is_logged_while_a_signal_has_set_the_level_to_debug(
    processes: Processes,
) -> None:
    sender = processes.start_sender(log_channels="plain")
    gateway = processes.start_receiver(log_channels="plain")
    async with connected(gateway, processes.token("alice")) as browser:
        before = await complete(processes, sender, "1", "1" * 32)
        await browser.receive_events(1)
        for service in (sender, gateway):
            service.process.send_signal(signal.SIGUSR1)

        async def changed() -> bool:
            return all(service.records("the log level was changed") for service in (sender, gateway))

        await await_until(changed)
        during = await complete(processes, sender, "2", "f" * 32)
        await browser.receive_events(2)

        async def complete_way() -> bool:
            return len(lines((sender, gateway), during)) == len(STEPS)

        await await_until(complete_way)
    # That it was published may be noted after the signal: that follows the delivery.
    assert before not in {line["event_id"] for line in sender.records("event recorded")}
    assert {line["channel"] for line in lines((sender, gateway), during)} == {"customer:alice"}


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_share_is_kept(share: float) -> None:
    assert Ways(share).share == pytest.approx(share)
    assert Ways(share).noted is (share > 0)
