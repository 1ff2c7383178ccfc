"""The fixtures themselves, tested."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from sender.database.open import open_database
from shared.commands.embedded import free_port
from shared.redis.server import connect_server
from tests import sqlite_databases
from tests.commands import Command, fork, spawn
from tests.postgres_servers import EmptiedDatabase, connected_to
from tests.processes import REPOSITORY, clean_environment
from tests.waiting import await_until, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Begin, Processes

pytestmark = pytest.mark.anyio


async def test_redis_is_real_and_the_prefix_is_fresh(redis: Redis, key_prefix: str) -> None:
    assert await redis.incr(f"{key_prefix}:count") == 1


async def test_killed_server_comes_back_empty_on_its_port(redis_server: EmbeddedServer) -> None:
    async with connect_server(redis_server.url, retries=0) as client:
        await client.set("a", "b")
        redis_server.kill()
        with pytest.raises(RedisConnectionError):
            await client.get("a")
        redis_server.start()
        assert await client.get("a") is None


async def test_stopped_server_is_silent_until_it_resumes(redis_server: EmbeddedServer) -> None:
    async with connect_server(redis_server.url, retries=0) as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
        await client.ping()
        redis_server.stop()
        with pytest.raises(RedisTimeoutError):
            await client.ping()
        redis_server.resume()
        assert await client.ping()


@pytest.mark.long
def test_shared_service_that_crashes_is_named_and_started_again(processes: Processes) -> None:
    sender = processes.start_sender()
    assert processes.restart_crashed() == []
    sender.process.send_signal(signal.SIGALRM)  # no test asks a service to end by this signal
    wait_until(lambda: sender.crashed)
    assert processes.restart_crashed() == [sender]
    assert sender.answers("/readyz")
    sender.kill()
    assert processes.restart_crashed() == []


async def test_new_databases_have_no_tables(new_database_url: str) -> None:
    creating = text("CREATE TABLE orders (id integer)")
    if new_database_url.startswith("sqlite:"):
        engine = create_engine(new_database_url)
        with engine.begin() as connection:
            connection.execute(creating)
        engine.dispose()
        return
    pool = create_async_engine(new_database_url)
    try:
        async with pool.begin() as waiting:
            await waiting.execute(creating)
    finally:
        await pool.dispose()


@pytest.mark.postgres
async def test_emptied_database_has_what_a_migration_leaves_and_nothing_else(postgres_url: str) -> None:
    with EmptiedDatabase(postgres_url) as database:
        with database.use() as first:
            before = await contents(first)
            async with connected_to(first) as connection:
                await connection.execute(
                    "INSERT INTO orderbell.channels (channel, seq) VALUES ('topic:a', 1)"
                )
                await connection.execute("UPDATE orderbell.generation SET epoch = 7")
        with database.use() as second:
            assert second == first
            assert await contents(second) == before


@pytest.mark.postgres
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE orderbell.orders ADD COLUMN more text",
        pytest.param("CREATE TABLE public.theirs (id integer)", marks=pytest.mark.long),
        pytest.param("DROP INDEX orderbell.orders_open_index", marks=pytest.mark.long),
        pytest.param("ALTER DATABASE {name} SET default_transaction_read_only = on", marks=pytest.mark.long),
    ],
)
async def test_database_that_a_test_has_changed_is_not_used_again(postgres_url: str, change: str) -> None:
    with EmptiedDatabase(postgres_url) as database:
        with database.use() as first:
            async with connected_to(first) as connection:
                await connection.execute(change.format(name=first.rpartition("/")[2]))
        with database.use() as second:
            assert second != first


async def contents(url: str) -> list[tuple[str, int]]:
    """Each table with its number of rows, and the epoch."""
    async with connected_to(url) as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'orderbell'")
        counts = [
            (name, await connection.fetchval(f"SELECT count(*) FROM orderbell.{name}")) for (name,) in tables
        ]
        epoch = await connection.fetchval("SELECT epoch FROM orderbell.generation")
        return [*sorted(counts), ("epoch", epoch)]


def test_waiting_ends_with_the_first_true_value() -> None:
    values = iter(["", 0, "now"])
    assert wait_until(lambda: next(values)) == "now"


async def test_waiting_in_vain_names_the_condition() -> None:
    def pigs_fly() -> bool:
        return False

    with pytest.raises(TimeoutError, match="pigs_fly"):
        await await_until(pigs_fly, timeout=0.02)


@pytest.mark.long
@pytest.mark.parametrize("begin", [fork, spawn])
def test_command_has_its_own_environment_log_group_and_end(
    begin: Begin, tmp_path: Path, process_group: int
) -> None:
    database = f"sqlite:///{tmp_path / 'orderbell.db'}"
    settings = {"ORDERBELL_DATABASE_URL": database, "ORDERBELL_API_KEYS": "a-key-of-sixteen"}
    port = ("--port", str(free_port()))
    good = Command(
        "sender", port, clean_environment() | settings, REPOSITORY, tmp_path / "good.log", process_group
    )
    bad = replace(good, environment={**good.environment, "ORDERBELL_API_KEYS": ""}, log=tmp_path / "bad.log")
    running, refused = begin(good), begin(bad)
    assert refused.wait(60) == 2
    assert "ORDERBELL_API_KEYS" in bad.log.read_text()
    wait_until(lambda: "listening" in good.log.read_text(), timeout=60)
    assert running.poll() is None
    assert os.getpgid(running.pid) == process_group
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(0.1)
    running.kill()
    assert running.wait(60) == -signal.SIGKILL
    running.kill()  # nothing is there to be killed


async def test_sqlite_file_with_tables_is_the_one_that_a_sender_makes(tmp_path: Path) -> None:
    made, given = tmp_path / "made.db", tmp_path / "given.db"
    sqlite_databases.prepare(f"sqlite:///{given}")
    async with open_database(f"sqlite:///{made}"), open_database(f"sqlite:///{given}"):
        pass
    dumps = []
    for path in (made, given):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            dumps.append([*connection.iterdump(), connection.execute("PRAGMA auto_vacuum").fetchone()])
    assert dumps[0] == dumps[1]
    sqlite_databases.prepare(f"sqlite:///{given}")  # which is left as it is
