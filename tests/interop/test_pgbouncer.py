"""A real PgBouncer with its defaults between sender and PostgreSQL, in both modes."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import text

from sender.database.open import open_database
from sender.outbox import backlog
from tests import pgbouncer_servers, postgres_servers
from tests.chaos import report
from tests.chaos.run import Load, running
from tests.pgbouncer_servers import pgbouncer
from tests.postgres_servers import fresh_database
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.chaos.run import Run
    from tests.postgres_servers import ClusterServer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres, pytest.mark.long]

LOAD = Load(customers=500, rate=200, second_devices=20)
SECONDS = 15.0
ENOUGH = 0.8  # of the orders that are due
BUSY_SECONDS = 120.0
RECOVERED_SECONDS = 5.0


@pytest.fixture(scope="module")
def server(process_group: int) -> Iterator[ClusterServer]:
    pgbouncer_servers.require()
    cluster = postgres_servers.own_cluster()
    if cluster is None:
        pytest.skip(postgres_servers.NONE)
    with cluster.server(process_group) as server:
        yield server


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.alone
def test_200_orders_a_second_through_it_are_each_shown_once_and_in_order(
    server: ClusterServer, tmp_path: Path, process_group: int, mode: str
) -> None:
    # Fewer sessions than the senders want: in transaction mode each is shared all the time.
    size = 3 if mode == "transaction" else 40
    with (
        fresh_database(server.url) as direct,
        pgbouncer(direct, process_group, pool_mode=mode, default_pool_size=size) as url,
        running(tmp_path, process_group, load=LOAD, say=print, senders=2, database_url=url) as run,
    ):
        run.sleep(SECONDS)
        # On a machine that is busy with other things, it takes longer.
        wait_until(lambda: run.callers.status().answered > ENOUGH * LOAD.rate * SECONDS, BUSY_SECONDS)
        verdict = run.finish()
    print(report.table(verdict))
    assert verdict.kept, verdict.examples
    assert verdict.ends.total() == 0 or set(verdict.ends) == {1000}


async def test_prepared_statements_are_given_up_where_it_is_found_and_kept_where_asked(
    server: ClusterServer, process_group: int
) -> None:
    def prepared(connection: Connection) -> int:
        connection.execute(text("SELECT 1"))
        named = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        return int(connection.execute(named).scalar_one())

    with (
        fresh_database(server.url) as direct,
        pgbouncer(direct, process_group, pool_mode="session") as url,
    ):
        for given, asked, kept in ((direct, None, True), (url, None, False), (url, True, True)):
            async with open_database(given, prepared_statements=asked) as database:
                assert (await database.read(prepared) > 0) is kept


async def test_pooler_that_is_put_in_between_is_found_by_what_it_breaks(
    server: ClusterServer, process_group: int
) -> None:
    """A setting says that there is no pooler; three sessions are shared by many transactions."""
    with (
        fresh_database(server.url) as direct,
        pgbouncer(direct, process_group, pool_mode="transaction", default_pool_size=3) as url,
    ):
        async with open_database(url, prepared_statements=True) as database:
            for _ in range(20):
                outcomes = await asyncio.gather(
                    *(database.read(partial(some, number=number)) for number in range(10)),
                    return_exceptions=True,
                )
            assert outcomes == list(range(10))


def some(connection: Connection, number: int) -> int:
    backlog(connection)
    return int(connection.execute(text(f"SELECT {number}")).scalar_one())


async def test_what_a_transaction_sets_is_no_other_clients(server: ClusterServer, process_group: int) -> None:
    with (
        fresh_database(server.url) as direct,
        pgbouncer(direct, process_group, pool_mode="transaction", default_pool_size=2) as url,
    ):
        async with open_database(url) as database:
            await database.read(backlog)
            await database.check()
        other = await asyncpg.connect(url.replace("+asyncpg", ""), statement_cache_size=0)
        assert await other.fetchval("SHOW search_path") == '"$user", public'
        assert await other.fetchval("SHOW lock_timeout") == "0"
        await other.close()


async def test_migration_under_it_costs_nobody_an_answer(server: ClusterServer, process_group: int) -> None:
    with (
        fresh_database(server.url) as direct,
        pgbouncer(direct, process_group, pool_mode="transaction", default_pool_size=2) as url,
    ):
        async with open_database(url) as database:
            await asyncio.gather(*(database.read(backlog) for _ in range(10)))
            other = await asyncpg.connect(direct.replace("+asyncpg", ""))
            await other.execute("ALTER TABLE orderbell.events ALTER COLUMN recorded_at TYPE text")
            await other.close()
            await asyncio.gather(*(database.read(backlog) for _ in range(10)))


@pytest.mark.alone
def test_restart_of_postgresql_behind_it_is_over_within_five_seconds(
    server: ClusterServer, tmp_path: Path, process_group: int
) -> None:
    """With the one line that docs/postgresql.md asks for; by default it waits for fifteen."""
    with (
        fresh_database(server.url) as direct,
        pgbouncer(direct, process_group, pool_mode="transaction", server_login_retry=1) as url,
        running(
            tmp_path,
            process_group,
            load=Load(customers=50, rate=50, second_devices=0),
            say=print,
            database_url=url,
        ) as run,
    ):
        run.sleep(2)
        # Other work on this machine can only lengthen a recovery, so one of three must be as fast as
        # promised.
        recovered = [restart(server, run)]
        while min(recovered) >= RECOVERED_SECONDS and len(recovered) < 3:
            run.sleep(2)
            recovered.append(restart(server, run))
        verdict = run.finish()
    assert verdict.kept, verdict.examples
    assert min(recovered) < RECOVERED_SECONDS, recovered


def restart(server: ClusterServer, run: Run) -> float:
    """PostgreSQL crashes and is started again; seconds from its first answer to those of callers."""
    server.crash()
    run.sleep(3)
    server.start()
    began, answered = time.monotonic(), run.callers.status().answered
    wait_until(lambda: run.callers.status().answered > answered + 20, timeout=60)
    return time.monotonic() - began
