"""PostgreSQL behind the two doors when it misbehaves: fail-over, locked rows, plans that became invalid."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import Connection, insert, select, text
from structlog.testing import capture_logs

from sender.database.errors import DatabaseError, DatabaseFault, DatabaseUnavailable, RowHeld
from sender.database.postgres import Limits, open_postgres
from sender.database.postgres_connect import Connector
from sender.database.tables import channels
from shared.database_url import PostgresUrl, parse_database_url
from tests import postgres_servers
from tests.postgres_servers import fresh_database
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from sender.database.postgres import PostgresDatabase
    from tests.postgres_servers import ClusterServer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

QUICK = Limits(lock_seconds=1.0, connect_seconds=1.0)


@pytest.fixture(scope="module")
def server(process_group: int) -> Iterator[ClusterServer]:
    """A server whose settings may be changed."""
    cluster = postgres_servers.own_cluster()
    if cluster is None:
        pytest.skip(postgres_servers.NONE)
    with cluster.server(process_group) as server:
        yield server


@pytest.fixture
def url(server: ClusterServer) -> Iterator[str]:
    with fresh_database(server.url) as url:
        yield url


def parsed(url: str) -> PostgresUrl:
    found = parse_database_url(url)
    assert isinstance(found, PostgresUrl)
    return found


@asynccontextmanager
async def opened(url: str, limits: Limits = QUICK, **options: Any) -> AsyncIterator[PostgresDatabase]:
    async with open_postgres(parsed(url), "orderbell", limits=limits, **options) as database:
        yield database


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of another program."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


def put(connection: Connection, name: str) -> str:
    connection.execute(insert(channels), {"channel": name, "seq": 1})
    return name


def put_all(connection: Connection, names: Sequence[str]) -> list[str]:
    connection.execute(insert(channels), [{"channel": name, "seq": 1} for name in names])
    return list(names)


def move(connection: Connection, name: str) -> None:
    connection.execute(text("UPDATE channels SET seq = seq + 1 WHERE channel = :name"), {"name": name})


def move_all(connection: Connection, names: Sequence[str]) -> Sequence[str]:
    for name in sorted(names):
        move(connection, name)
    return names


def names(connection: Connection) -> list[str]:
    return list(connection.execute(select(channels.c.channel).order_by(channels.c.channel)).scalars())


def backend(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@contextmanager
def read_only(server: ClusterServer) -> Iterator[None]:
    """Make it read-only, as a demoted primary that keeps its connections."""
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        server.execute("ALTER SYSTEM RESET default_transaction_read_only")
        server.execute("SELECT pg_reload_conf()")


async def fails(database: PostgresDatabase) -> bool:
    try:
        await database.check()
    except DatabaseUnavailable:
        return True
    return False


@pytest.mark.long
async def test_connections_to_a_server_that_takes_no_writes_are_dropped_all_at_once(
    server: ClusterServer, url: str
) -> None:
    async with opened(url) as database:
        before = set(await asyncio.gather(*(database.write(backend) for _ in range(8))))
        with read_only(server):
            await await_until(lambda: fails(database))
            with pytest.raises(DatabaseUnavailable, match=r"read-only|no writes"):
                await database.write(partial(put, name="a"))
        await await_until(lambda: succeeds(database))
        after = set(await asyncio.gather(*(database.write(backend) for _ in range(8))))
        assert not before & after
        assert await database.write(partial(put, name="b")) == "b"


async def succeeds(database: PostgresDatabase) -> bool:
    return not await fails(database)


@pytest.mark.long
async def test_several_hosts_lead_to_the_one_that_takes_writes_and_a_silent_one_costs_its_own_time(
    server: ClusterServer, process_group: int
) -> None:
    """libpq's time limit is for each host, asyncpg's for all together."""
    cluster = postgres_servers.own_cluster()
    assert cluster is not None
    # Connections wait in its queue without an answer.
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, cluster.server(process_group, follows=server) as standby:
        port = silent.getsockname()[1]
        hosts = f"127.0.0.1:1,127.0.0.1:{port},127.0.0.1:{standby.port},127.0.0.1:{server.port}"
        began = time.monotonic()
        async with opened(f"postgresql://orderbell@{hosts}/postgres") as database:
            assert time.monotonic() - began < 5
            await database.check()
            found = await database.read(lambda c: c.execute(text("SELECT inet_server_port()")).scalar_one())
            assert found == server.port
        for attribute in ("any", "primary", "read-write"):  # whatever the URL asks for, we write
            hosts = f"127.0.0.1:{standby.port},127.0.0.1:{server.port}"
            url = f"postgresql://orderbell@{hosts}/postgres?target_session_attrs={attribute}"
            async with opened(url) as database:
                await database.check()
        with pytest.raises(DatabaseUnavailable, match="standby"):
            async with opened(f"postgresql://orderbell@127.0.0.1:{standby.port}/postgres"):
                pass


async def test_connection_that_is_being_made_when_all_are_dropped_is_dropped_too(url: str) -> None:
    """It would wait for the server when nothing may wait any more; nor is another host tried."""

    def connector(url: str) -> Connector:
        return Connector(
            parsed(url), schema="orderbell", connect_seconds=0.2, command_seconds=1, idle_seconds=1
        )

    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        host = url.split("@")[1].split("/")[0]
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{host}"
        for of in (url, url.replace(host, hosts)):
            connecting = connector(of)
            made = asyncio.create_task(connecting.connect())
            await asyncio.sleep(0)
            connecting.drop_all()
            with pytest.raises(DatabaseUnavailable, match="the sender ends"):
                await made


async def test_types_that_a_migration_changes_under_an_idle_sender_cost_nobody_an_answer(url: str) -> None:
    async with opened(url) as database, plain(url) as other:
        await asyncio.gather(*(database.write(partial(put, name=str(n))) for n in range(4)))
        await asyncio.gather(*(database.read(names) for _ in range(4)))
        for kind in ("text", "varchar(200)", "varchar(160)"):
            await other.execute(f"ALTER TABLE orderbell.channels ALTER COLUMN channel TYPE {kind}")
            assert len(await database.read(names)) >= 4
            await database.write(partial(put, name=kind))
        await other.execute("ALTER TABLE orderbell.channels ALTER COLUMN seq TYPE numeric")
        await database.write_together(move_all, "1")
        await other.execute("ALTER TABLE orderbell.channels ADD COLUMN more text")
        assert len(await asyncio.gather(*(database.read(names) for _ in range(8)))) == 8


async def test_statements_that_vanished_are_prepared_no_more(url: str) -> None:
    """As if a pooler had been put in between."""
    async with opened(url, Limits(pool_size=1)) as database:
        await database.write(partial(put, name="a"))
        await database.read(names)
        await database.write(lambda connection: connection.exec_driver_sql("DEALLOCATE ALL"))
        assert await database.read(names) == ["a"]
        assert await database.write(partial(put, name="b")) == "b"
        await database.read(names)
        left = await database.read(
            lambda c: c.execute(
                text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
            ).scalar_one()
        )
        assert left == 0


async def test_names_of_prepared_statements_are_this_connections_own(url: str) -> None:
    """asyncpg numbers them, so two processes behind a pooler would run each other's. Pins asyncpg's hook."""

    def prepared(connection: Connection) -> list[str]:
        put(connection, "a")
        connection.execute(insert(channels), [{"channel": name, "seq": 1} for name in "bc"])
        found = connection.execute(text("SELECT name FROM pg_prepared_statements WHERE name <> ''"))
        return list(found.scalars())

    async with opened(url) as database:
        ours = await database.write(prepared)
        assert len(ours) >= 3
        assert all(name.startswith("__orderbell_") for name in ours)


async def test_error_that_nobody_expected_is_one_of_ours(url: str) -> None:
    async with opened(url) as database, plain(url) as other:
        await other.execute("ALTER TABLE orderbell.channels RENAME COLUMN seq TO sequence")
        with pytest.raises(DatabaseFault, match="seq"):
            await database.write(partial(put, name="a"))
        with pytest.raises(DatabaseFault, match="seq"):
            await database.write_together(put_all, "a")
        await other.execute("ALTER TABLE orderbell.channels RENAME COLUMN sequence TO seq")
        assert await database.write(partial(put, name="a")) == "a"


@pytest.mark.parametrize("error", [BufferError("types"), TimeoutError(), OSError("gone")])
async def test_errors_that_are_no_databases_are_met_with_a_new_connection(url: str, error: Exception) -> None:
    """A plan whose types changed gives a `BufferError`, a command without an answer a `TimeoutError`."""
    async with opened(url) as database:
        raised: list[int] = []

        def work(connection: Connection) -> str:
            raised.append(backend(connection))
            if len(raised) == 1:
                raise error
            return put(connection, "a")

        assert await database.write(work) == "a"
        assert await database.read(names) == ["a"]


async def test_locked_row_delays_only_requests_that_need_it(url: str) -> None:
    async with opened(url, Limits(lock_seconds=60.0)) as database, plain(url) as other:
        await database.write_together(put_all, "held")
        await asyncio.gather(*(database.write_together(put_all, f"free-{n}") for n in range(20)))
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE orderbell.channels SET seq = 7 WHERE channel = 'held'")
        guilty = [asyncio.create_task(database.write_together(move_all, "held")) for _ in range(20)]
        impatient = asyncio.create_task(database.write(partial(move, name="held"), patient=False))
        await asyncio.sleep(0)
        seconds = []
        for number in range(100):
            began = time.monotonic()
            await database.write_together(move_all, f"free-{number % 20}")
            seconds.append(time.monotonic() - began)
        with pytest.raises(RowHeld):
            await impatient
        assert not any(task.done() for task in guilty)
        await transaction.rollback()
        assert await asyncio.gather(*guilty) == ["held"] * 20
        # Without separate lanes each would wait for as long as the row is locked.
        assert sorted(seconds)[95] < 20.0


async def test_rows_that_stay_locked_are_reported_in_time(url: str) -> None:
    async with opened(url, QUICK) as database, plain(url) as other:
        await database.write(partial(put, name="held"))
        async with other.transaction():
            await other.execute("UPDATE orderbell.channels SET seq = 7 WHERE channel = 'held'")
            began = time.monotonic()
            outcomes = await asyncio.gather(
                *(database.write_together(move_all, "held") for _ in range(12)), return_exceptions=True
            )
            assert all(isinstance(outcome, RowHeld) for outcome in outcomes)
            assert time.monotonic() - began < 15 * QUICK.lock_seconds
            assert await asyncio.wait_for(database.write(partial(put, name="free")), 20) == "free"


async def test_client_that_is_cut_off_in_a_transaction_holds_its_locks_no_longer_than_said(url: str) -> None:
    async with opened(url, Limits(idle_seconds=0.5)) as database, plain(url) as other:
        await database.write(partial(put, name="a"))

        def hang(connection: Connection) -> None:
            move(connection, "a")
            held.set()
            released.wait(30)

        held, released = threading.Event(), threading.Event()
        cut_off = asyncio.to_thread(lambda: asyncio.run(_write_elsewhere(url, hang)))
        writing = asyncio.create_task(cut_off)
        try:
            assert await asyncio.to_thread(held.wait, 30)
            # It passes while the other still hangs.
            await other.execute("UPDATE orderbell.channels SET seq = 7 WHERE channel = 'a'", timeout=20)
        finally:
            released.set()
        with pytest.raises(DatabaseError):
            await writing


async def _write_elsewhere(url: str, work: Any) -> None:
    """Write once, like a sender on another machine."""
    async with opened(url, Limits(idle_seconds=0.5, attempts=1)) as database:
        await database.write(work)


async def test_time_limits_and_commits_are_ours_whatever_an_administrator_has_set(url: str) -> None:
    """Limits for people would refuse orders, and what is answered must be on disk."""

    def work(connection: Connection) -> str:
        connection.execute(text("SELECT pg_sleep(0.2)"))
        return str(connection.execute(text("SHOW synchronous_commit")).scalar_one())

    async with plain(url) as connection:
        name = await connection.fetchval("SELECT current_database()")
        for setting in ("statement_timeout = 100", "lock_timeout = 1", "synchronous_commit = off"):
            await connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
    with capture_logs() as lines:
        async with opened(url) as database:
            assert await database.write(work) == "on"
            assert await database.read(work) == "on"
    assert any(line["event"].startswith("synchronous_commit is off here") for line in lines)


async def test_time_outs_are_those_of_transactions_and_leave_the_session_as_it_was(url: str) -> None:
    """A pooler hands the session to others."""

    def settings(connection: Connection) -> list[str]:
        names = ("lock_timeout", "idle_in_transaction_session_timeout", "search_path")
        return [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]

    async with opened(url, Limits(pool_size=1)) as database:
        assert await database.write(settings) == ["100ms", "10s", "orderbell"]
        assert await database.read(settings) == ["5s", "10s", "orderbell"]
        async with database._write_engine.execution_options(
            isolation_level="AUTOCOMMIT"
        ).connect() as connection:
            assert await connection.run_sync(settings) == ["0", "0", '"$user", public']
