"""Metrics: how long an event takes, the release, and series that exist from the start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from receiver.feeds.feed import Feed
from receiver.metrics import TRANSPORTS
from receiver.subscription.age import Ages
from sender import metrics as sender_metrics
from shared import __version__
from shared.channels import Channel
from tests import machine
from tests.conformance.conftest import DRIVERS
from tests.connections import Handed
from tests.end_to_end.test_main_path import api, complete
from tests.senders import run_sender
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from receiver.connections.connection import Connection
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


@pytest.mark.long
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


def _aged(transport: str = "", *, le: str = "") -> float:
    """How many ages were counted of a transport, or of all; with `le` of at most that age."""
    from receiver import metrics

    return sum(
        sample.value
        for family in metrics.order_to_frame.collect()
        for sample in family.samples
        if sample.name.endswith("_bucket" if le else "_count")
        if sample.labels["transport"] == transport or not transport
        if sample.labels.get("le", "") == le
    )


def _message(source: str, at: str) -> tuple[bytes, bytes]:
    event = f'{{"specversion":"1.0","id":"1","source":"{source}","type":"t","time":"{at}"}}'
    return b"soup", f"1 1 {event}".encode()


def _feeds(*connections: Connection) -> dict[bytes, Feed]:
    feed = Feed(Channel("customer:soup"))
    for connection in connections:
        feed.join(connection)
    return {b"soup": feed}


async def test_one_event_a_second_is_looked_at_and_callers_times_are_not() -> None:
    ages, feeds, before, now = Ages(), _feeds(Handed()), _aged(), "2026-11-29T12:00:00.000Z"
    ages.look([_message("/kitchen", now)], feeds, 1.0)
    ages.look([_message("/orderbell/sender", "yesterday-and-some-more")], feeds, 1.5)
    assert _aged() == before
    ages.look([_message("/orderbell/sender", now)], feeds, 3.0)
    ages.look([_message("/orderbell/sender", now)], feeds, 3.5)
    assert _aged() == before + 1
    ages.look([_message("/orderbell/sender", now)], feeds, 4.0)
    assert _aged() == before + 2


async def test_age_counts_for_each_transport_that_got_the_event_and_for_no_other() -> None:
    class Streamed(Handed):
        transport = "sse"

    before = {name: _aged(name) for name in ("sse", "test", "polling", "")}
    message = _message("/orderbell/sender", "2026-11-29T12:00:00.000Z")
    feeds = _feeds(Streamed(), Streamed(), Handed())
    Ages().look([(b"bread", message[1]), message], feeds, 1.0)
    Ages().look([message], _feeds(), 1.0)  # nobody gets this one
    grown = {name: _aged(name) - count for name, count in before.items()}
    assert grown == {"sse": 1, "test": 1, "polling": 0, "": 2}


async def test_age_of_the_oldest_event_of_a_read_counts_not_of_the_youngest() -> None:
    """After a stall many come at once; the last of them is young, whatever the first have waited."""

    def message(source: str, recorded: float) -> tuple[bytes, bytes]:
        return _message(source, datetime.fromtimestamp(recorded, UTC).isoformat())

    before, now = _aged(le="60.0"), time.time()
    read = [
        message("/kitchen", now),
        message("/orderbell/sender", now - 90),
        message("/orderbell/sender", now),
    ]
    Ages().look(read, _feeds(Handed()), 1.0)
    assert _aged(le="60.0") == before


async def test_every_series_exists_from_the_start(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with api(processes, sender) as client:

        async def knows_redis() -> bool:
            return (await figures(client, sender.url))["orderbell_redis_memory_bytes"] > 100_000

        await await_until(knows_redis)
        ours = (await client.get(f"{sender.url}/metrics")).text
        theirs = (await client.get(f"{gateway.url}/metrics")).text
    for series in (
        'orderbell_events_total{result="duplicate"} 0.0',
        'orderbell_dead_letters_total{reason="not-an-event"} 0.0',
        'orderbell_requests_refused_total{kind="slow-body"} 0.0',
        'orderbell_database_pool_connections{state="in_use"}',
        'orderbell_limit{setting="requests_per_minute"} 600000.0',
        "orderbell_redis_memory_limit_bytes",
        "orderbell_loop_lag_seconds_count",
    ):
        assert series in ours
    for series in (
        'orderbell_connections{transport="sockjs-xhr"} 0.0',
        'orderbell_deliveries_total{transport="sse"} 0.0',
        'orderbell_connections_resumed_total{transport="websocket"} 0.0',
        'orderbell_connections_closed_total{code="4408"} 0.0',
        'orderbell_handshakes_refused_total{reason="foreign-origin"} 0.0',
        'orderbell_requests_refused_total{kind="bad-host"} 0.0',
        'orderbell_unauthentic_total{kind="ticket"} 0.0',
        'orderbell_limit{setting="handshakes_per_second"} 5000.0',
        'orderbell_not_ready{reason="keys-unavailable"} 0.0',
        "orderbell_waiting_bytes 0.0",
        "orderbell_jwks_failures_total 0.0",
    ):
        assert series in theirs
    heard_at = float(re.findall(r"^orderbell_probe_heard_timestamp_seconds (\S+)$", theirs, re.MULTILINE)[0])
    assert 0 <= time.time() - heard_at < 10


async def test_deliveries_and_resumes_are_counted_by_transport(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    alice = processes.token("alice")
    async with api(processes, sender) as client:
        async with connected(gateway, alice) as browser:
            await complete(client, "1042", "alice")
            await browser.receive_events(1)
        async with connected(gateway, alice, query="after=customer:alice=1.0") as browser:
            await browser.receive_events(1)

        async def counted() -> bool:
            text = (await client.get(f"{gateway.url}/metrics")).text
            return (
                'orderbell_deliveries_total{transport="websocket"} 1.0' in text
                and 'orderbell_connections_resumed_total{transport="websocket"} 1.0' in text
            )

        await await_until(counted)


async def test_openmetrics_shows_the_trace_of_an_event_and_prometheus_reads_it(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    asks = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
    async with api(processes, sender) as client, connected(gateway, processes.token("alice")) as browser:
        await complete(client, "1042", "alice")
        [event] = await browser.receive_events(1)
        for service in (sender, gateway):
            answer = await client.get(f"{service.url}/metrics", headers=asks)
            assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
            families = list(openmetrics(answer.text))  # type: ignore[no-untyped-call] # it has no types
            assert len(families) > 20
    exemplars = [
        sample.exemplar.labels
        for family in families
        if family.name == "orderbell_order_to_frame_seconds"
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert exemplars == [{"trace_id": event["traceparent"].split("-")[1]}]


async def test_what_was_published_and_shown_last_has_the_trace_of_its_event(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    asks = {"Accept": "application/openmetrics-text;version=1.0.0"}
    async with run_sender(f"sqlite:///{tmp_path / 'o'}.db", redis_url, key_prefix) as sender:
        await sender.place("1042", "alice")
        event = (await sender.complete("1042")).json()["event"]
        report = {"cursors": ["customer:alice=1.1"]}
        assert (await sender.client.post("/seen", json=report)).status_code == 200
        wanted = {
            ("orderbell_order_to_published_seconds", event["traceparent"].split("-")[1]),
            ("orderbell_order_to_shown_seconds", event["traceparent"].split("-")[1]),
        }

        async def named() -> bool:
            text = (await sender.client.get("/metrics", headers=asks)).text
            return wanted <= {
                (family.name, sample.exemplar.labels["trace_id"])
                for family in openmetrics(text)  # type: ignore[no-untyped-call] # it has no types
                for sample in family.samples
                if sample.exemplar is not None
            }

        await await_until(named)


@pytest.mark.parametrize("service", ["sender", "receiver"])
def test_promtool_finds_no_fault_with_any_series(service: str) -> None:
    if shutil.which("promtool") is None:
        machine.not_run("no promtool; on Debian: apt-get install prometheus")
    assert TRANSPORTS  # of the receiver, whose registry is the library's own
    registry = sender_metrics.registry if service == "sender" else REGISTRY
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(registry),
        capture_output=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.long
def test_processes_of_a_gateway_with_workers_are_counted_together(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(workers=2)
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    found = dict(re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE))
    own = sum(
        int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for pid in (gateway.pid, *_children(gateway.pid))
    )
    assert float(found["process_resident_memory_bytes"]) == pytest.approx(own, rel=0.3)
    assert float(found["process_cpu_seconds_total"]) > 0
    assert float(found["process_open_fds"]) > 30
    assert float(found["process_start_time_seconds"]) > 1e9


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))


def test_every_transport_has_its_series_from_the_start() -> None:
    assert set(TRANSPORTS) == {driver.name for driver in DRIVERS}
