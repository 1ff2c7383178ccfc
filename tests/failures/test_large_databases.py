"""Restoring a database with many channels while 100 orders a second come.

ORDERBELL_TEST_CHANNELS=1000000 makes it the size that shared installations have.
"""

from __future__ import annotations

import dataclasses
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.times import format_time
from tests import postgres_servers
from tests.chaos import report
from tests.chaos.ledger import Post, Reset, read
from tests.chaos.run import Load, running
from tests.large_databases import fill_postgres, make_tables
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.run import Run

pytestmark = [pytest.mark.postgres, pytest.mark.long, pytest.mark.alone]

CHANNELS = int(os.environ.get("ORDERBELL_TEST_CHANNELS", "100000"))
LOAD = Load(customers=200, rate=100, second_devices=20)
CALM_SECONDS = 4.0
EPOCH_SECONDS = 5.0  # from the moment when the restored database answers


def epoch(run: Run) -> int:
    sender = run.system.senders[0]
    try:
        answer = httpx2.get(
            f"{sender.url}/orders?customer_id=c0", headers=run.system.processes.api_headers, timeout=5
        )
    except httpx2.TransportError:
        return 0
    if answer.status_code != 200:
        return 0
    return int(answer.json()["as_of"].partition("=")[2].partition(".")[0])


def begun_of_refused(callers: Path) -> list[float]:
    """When the orders were begun whose completion was refused."""
    posts = [entry for entry in read([callers]) if isinstance(entry, Post)]
    begun = {post.order_id: post.at for post in posts if post.phase == "invoke"}
    return [begun[post.order_id] for post in posts if post.phase == "refused"]


def test_restored_large_database_begins_a_new_epoch_within_seconds_and_loses_nothing(
    tmp_path: Path, process_group: int
) -> None:
    cluster = postgres_servers.own_cluster()
    assert cluster is not None, postgres_servers.NONE
    with cluster.server(process_group, max_wal_size="4GB") as server:
        make_tables(server.url)
        fill_postgres(server.url, channels=CHANNELS, events=CHANNELS, at=format_time(datetime.now(UTC)))
        url = server.url.replace("+asyncpg", "", 1)
        with running(tmp_path, process_group, load=LOAD, say=print, database_url=url) as run:
            run.sleep(CALM_SECONDS)
            backing_up = time.monotonic()
            server.back_up()  # some events that wait in its outbox are published a moment later
            backed_up = time.monotonic() - backing_up
            run.sleep(CALM_SECONDS)
            wait_until(lambda: epoch(run) == 1)
            server.restore()
            back, answered = time.monotonic(), run.callers.status().answered
            wait_until(lambda: epoch(run) == 2, timeout=60)
            began = time.monotonic() - back
            wait_until(lambda: run.callers.status().answered > answered + 20, timeout=60)
            served = time.monotonic() - back
            run.sleep(max(EPOCH_SECONDS - served, 0))
            refused = dict(run.callers.status().asked_again)
            run.sleep(2 * CALM_SECONDS)
            refused_later = dict(run.callers.status().asked_again)
            verdict = run.finish(allowed=frozenset({"epoch"}))
    told = {entry.device for entry in read([tmp_path / "clients.jsonl"]) if isinstance(entry, Reset)}
    print(
        report.table(verdict),
        f"{CHANNELS:,} channels, {backed_up:.0f} s of backup:"
        f" epoch after {began:.1f} s, served after {served:.1f}, asked again {refused_later}",
    )
    # An order that was lost with the last transactions is unknown when it is to be completed.
    assert all(begun < back for begun in begun_of_refused(tmp_path / "callers.jsonl"))
    assert dataclasses.replace(verdict, refused=0).kept, verdict.examples
    assert told == run.devices.keys()
    assert began < EPOCH_SECONDS
    assert refused_later.get("503") == refused.get("503")
