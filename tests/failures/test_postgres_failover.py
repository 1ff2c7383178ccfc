"""PostgreSQL fails over to a streaming standby, and back, while 200 orders a second come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests import postgres_servers
from tests.chaos import report
from tests.chaos.run import Load, running
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.run import Run
    from tests.postgres_servers import ClusterServer

pytestmark = [pytest.mark.postgres, pytest.mark.long, pytest.mark.alone]

LOAD = Load(customers=500, rate=200, second_devices=20)
RECOVERED_SECONDS = 5.0  # after the new primary takes writes
QUIET_SECONDS = 4.0


def follow(standby: ClusterServer, primary: ClusterServer) -> None:
    """Make it a synchronous standby: a commit is answered only once the standby has it, so it survives."""
    standby.follow(primary)
    standby.start()
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")


def fail_over(run: Run, primary: ClusterServer, standby: ClusterServer) -> float:
    """Seconds from the moment when the standby took writes until an order was completed."""
    primary.crash()
    run.sleep(1.0)
    standby.promote()
    standby.execute("ALTER SYSTEM RESET synchronous_standby_names")
    standby.execute("SELECT pg_reload_conf()")
    began, answered = time.monotonic(), run.callers.status().answered
    wait_until(lambda: run.callers.status().answered > answered + 20, timeout=60)
    wait_until(lambda: run.system.senders[0].answers("/readyz"), timeout=60)
    return time.monotonic() - began


def test_fail_over_to_a_standby_and_back_loses_doubles_and_reorders_nothing(
    tmp_path: Path, process_group: int
) -> None:
    cluster = postgres_servers.own_cluster()
    assert cluster is not None, postgres_servers.NONE
    with (
        cluster.server(process_group) as one,
        cluster.server(process_group, follows=one) as other,
    ):
        one.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        one.execute("SELECT pg_reload_conf()")
        url = f"postgresql://orderbell@127.0.0.1:{one.port},127.0.0.1:{other.port}/postgres"
        with running(tmp_path, process_group, load=LOAD, say=print, senders=2, database_url=url) as run:
            run.sleep(QUIET_SECONDS)
            there = fail_over(run, one, other)
            run.sleep(QUIET_SECONDS)
            follow(one, other)
            run.sleep(QUIET_SECONDS)
            back = fail_over(run, other, one)
            run.sleep(QUIET_SECONDS)
            ended = [sender.process.poll() for sender in run.system.senders]
            verdict = run.finish()
    print(report.table(verdict), f"recovered after {there:.1f} and {back:.1f} s")
    assert verdict.kept, verdict.examples
    assert verdict.answered > 0.7 * LOAD.rate * 4 * QUIET_SECONDS
    assert max(there, back) < RECOVERED_SECONDS
    assert ended == [None, None]


def test_primary_that_became_a_standby_is_left_though_its_connections_live(
    tmp_path: Path, process_group: int
) -> None:
    """A demotion that keeps the server up: every write fails with 25006, and no connection ends."""
    cluster = postgres_servers.own_cluster()
    assert cluster is not None, postgres_servers.NONE
    with cluster.server(process_group) as one, cluster.server(process_group, follows=one) as other:
        url = f"postgresql://orderbell@127.0.0.1:{one.port},127.0.0.1:{other.port}/postgres"
        load = Load(customers=50, rate=50, second_devices=0)
        with running(tmp_path, process_group, load=load, say=print, database_url=url) as run:
            run.sleep(2)
            sender = run.system.senders[0]
            one.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            one.execute("SELECT pg_reload_conf()")
            wait_until(lambda: not sender.answers("/readyz"), timeout=10)
            assert sender.answers("/livez")
            other.promote()
            began, answered = time.monotonic(), run.callers.status().answered
            wait_until(lambda: run.callers.status().answered > answered + 20, timeout=30)
            wait_until(lambda: sender.answers("/readyz"), timeout=30)
            assert time.monotonic() - began < RECOVERED_SECONDS
            verdict = run.finish()
    assert verdict.kept, verdict.examples
