"""What operators measure: the times of an event's way, the release, and series that exist from the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.subscription.age import Ages
from shared import __version__
from tests.end_to_end.test_main_path import api, complete
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    import httpx2

    from tests.processes import Processes

pytestmark = pytest.mark.anyio


async def figures(client: httpx2.AsyncClient, url: str) -> dict[str, float]:
    """Sums over all labels."""
    answer = await client.get(f"{url}/metrics")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


async def test_order_to_published_and_order_to_frame_are_measured(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with api(processes, sender) as client, connected(gateway, processes.token("alice")) as browser:
        before = await figures(client, gateway.url)
        assert before["orderbell_order_to_frame_seconds_count"] == 0
        assert before["orderbell_build_info"] == 1
        assert before["orderbell_limit"] > 0
        await complete(client, "1042", "alice")
        await browser.receive_events(1)

        async def measured() -> bool:
            ours = await figures(client, sender.url)
            return ours["orderbell_order_to_published_seconds_count"] == 1

        await await_until(measured)
        after = await figures(client, gateway.url)
        assert after["orderbell_order_to_frame_seconds_count"] == 1
        assert after["orderbell_order_to_frame_seconds_sum"] < 30
        text = (await client.get(f"{sender.url}/metrics")).text
        assert 'orderbell_build_info{python="3.' in text
        assert f'version="{__version__}"' in text
        assert 'orderbell_relay_published_total{answer="STALE"} 0.0' in text
        assert "process_resident_memory_bytes" in text


def test_one_event_a_second_is_looked_at_and_callers_times_are_not() -> None:
    from receiver import metrics

    def count() -> float:
        return next(
            sample.value
            for family in metrics.order_to_frame.collect()
            for sample in family.samples
            if sample.name.endswith("_count")
        )

    def message(source: str, time: str) -> bytes:
        return f'1 1 {{"specversion":"1.0","id":"1","source":"{source}","type":"t","time":"{time}"}}'.encode()

    ages, before, now = Ages(), count(), "2026-11-29T12:00:00.000Z"
    ages.look(message("/kitchen", now), 1.0)
    ages.look(message("/orderbell/sender", "yesterday-and-some-more"), 1.5)
    assert count() == before
    ages.look(message("/orderbell/sender", now), 3.0)
    ages.look(message("/orderbell/sender", now), 3.5)
    assert count() == before + 1
    ages.look(message("/orderbell/sender", now), 4.0)
    assert count() == before + 2
