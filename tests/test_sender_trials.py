"""Trials: events that go the whole way and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.channels import customer_channel
from tests.gateways import run_gateway
from tests.waiting import await_until

if TYPE_CHECKING:
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")


async def test_trial_reaches_the_device_and_no_list_and_no_count(
    sender: RunningSender, redis_url: str, key_prefix: str
) -> None:
    async with (
        run_gateway(sender.client, redis_url, key_prefix) as gateway,
        gateway.connected("alice") as browser,
    ):
        answer = await sender.client.post("/trials", json={"customer_id": "alice"})
        assert answer.status_code == 200, answer.text
        trial = answer.json()
        assert trial["cursor"] == f"{ALICE}=1.1"
        await browser.wait_seqs([1])
        asked = {"source": trial["source"], "event_id": trial["id"]}
        [traced] = (await sender.client.get("/trace", params=asked)).json()["alerts"]
        assert traced["verdict"] == "delivered"
        assert traced["event"]["type"] == "orderbell.trial"
        listed = (await sender.client.get(f"/channels/{ALICE}/alerts")).json()
        assert (listed["alerts"], listed["unread"]) == ([], 0)


async def test_trace_of_a_trial_promises_no_pop_up(
    sender: RunningSender, redis_url: str, key_prefix: str
) -> None:
    trial = (await sender.client.post("/trials", json={"customer_id": "alice"})).json()

    async def says(sentence: str) -> bool:
        asked = {"source": trial["source"], "event_id": trial["id"]}
        [traced] = (await sender.client.get("/trace", params=asked)).json()["alerts"]
        assert "test event, which pages receive, report and do not show" in traced["findings"][0]
        return sentence in traced["findings"]

    async with run_gateway(sender.client, redis_url, key_prefix) as gateway:
        nobody = "Nobody is connected as alice. It pops up nowhere, neither now nor later."
        await await_until(lambda: says(nobody))  # once it is published
        async with gateway.connected("alice") as browser:
            await browser.wait_seqs([1])
            assert await says("The device has not reported it yet.")
    await sender.client.post("/seen", json={"cursors": [trial["cursor"]]})
    assert await says("One of the customer's devices has received it and reported that.")


async def test_trial_takes_its_place_among_alerts(sender: RunningSender) -> None:
    for number in (1, 2):
        await sender.place(f"{number}")
        await sender.complete(f"{number}")
        await sender.client.post("/trials", json={"customer_id": "alice"})
    listed = (await sender.client.get(f"/channels/{ALICE}/alerts")).json()
    assert [one["event"]["subject"] for one in listed["alerts"]] == ["2", "1"]
    assert listed["unread"] == 2
    assert (await sender.client.post("/trials", json={"customer_id": "a\n"})).status_code == 400
