"""Migrating from an earlier version's schema, with many events, while callers continue.

ORDERBELL_TEST_EVENTS=1000000 makes it the size of a busy installation.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from bench.large import as_of_postgres
from shared.times import format_time
from tests import postgres_servers
from tests.chaos import report
from tests.chaos.ledger import Post, read
from tests.chaos.run import Load, running
from tests.interop.test_rolling_upgrade import earlier as earlier  # the fixture
from tests.large_databases import execute
from tests.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.postgres, pytest.mark.long]

EVENTS = int(os.environ.get("ORDERBELL_TEST_EVENTS", "100000"))
LOAD = Load(customers=100, rate=40, second_devices=10)
CALM_SECONDS = 4.0
MOST_SECONDS = 30.0  # that a caller waits and asks again: the sender's restart, and no lock beyond it


def test_large_database_of_an_earlier_version_is_migrated_and_nothing_is_lost(
    tmp_path: Path,
    process_group: int,
    earlier: Path,
) -> None:
    cluster = postgres_servers.own_cluster()
    assert cluster is not None, postgres_servers.NONE
    with cluster.server(process_group, max_wal_size="4GB") as server:
        url = server.url  # earlier versions know no other spelling
        with running(
            tmp_path, process_group, load=LOAD, say=print, database_url=url, drain_seconds=1.0, source=earlier
        ) as run:
            run.sleep(CALM_SECONDS)
            fill(url)
            run.sleep(CALM_SECONDS)
            (sender,) = run.system.senders
            began = time.monotonic()
            assert sender.terminate() == 0
            sender.run_from(REPOSITORY)
            sender.start(wait_ready=False)
            sender.wait_ready(600)
            away = time.monotonic() - began
            run.sleep(CALM_SECONDS)
            verdict = run.finish()
            lines = [line for line in sender.text().splitlines() if "migrat" in line or "index" in line]
        kept = execute(server.url, ["SELECT count(*) AS n FROM orderbell.events"])[0]["n"]
    print(report.table(verdict), *lines, sep="\n")
    longest = longest_wait(tmp_path / "callers.jsonl")
    print(f"{EVENTS:,} events: no sender for {away:.1f} s, longest wait of a caller {longest:.1f} s")
    assert verdict.kept, verdict.examples
    assert kept >= EVENTS + verdict.answered
    assert longest < MOST_SECONDS


def longest_wait(ledger: Path) -> float:
    """Seconds from the first request of an order's completion to its answer."""
    asked: dict[str, float] = {}
    waits = [0.0]
    for post in read([ledger]):
        if isinstance(post, Post) and post.phase == "invoke":
            asked.setdefault(post.order_id, post.at)
        elif isinstance(post, Post):
            waits.append(post.at - asked[post.order_id])
    return max(waits)


def fill(url: str) -> None:
    """Fill the columns that those versions have."""
    made = [
        statement.replace("content_digest", "content, published_at").replace(
            "md5(CAST(n AS text)), '',", "md5(CAST(n AS text)), '', '2026-11-01T00:00:00.000Z',"
        )
        for statement in as_of_postgres(EVENTS // 10, EVENTS, f"'{format_time(datetime.now(UTC))}'")
    ]
    made[0] = made[0].replace(", epoch)", ")").replace(", 0, 1 FROM", ", 0 FROM")
    execute(url, ["SET search_path = public", "SET synchronous_commit = off", *made, "ANALYZE"])
