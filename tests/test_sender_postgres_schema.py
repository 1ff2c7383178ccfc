"""Our schema in a shared PostgreSQL: whose tables, whose rights, which version; and the messages."""

from __future__ import annotations

import asyncio
import subprocess
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from alembic import command
from sqlalchemy import insert, text
from structlog.testing import capture_logs

from sender.database import migrations
from sender.database.errors import DatabaseError, DatabaseUnusable
from sender.database.open import open_database
from sender.database.postgres import maintenance
from sender.database.postgres_indexes import INDEXES
from sender.database.tables import events
from sender.outbox import backlog
from shared.database_url import PostgresUrl, parse_database_url
from shared.settings import PREFIX
from tests import commands, postgres_servers
from tests.postgres_servers import fresh_database
from tests.processes import clean_environment
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import Connection

    from tests.postgres_servers import ClusterServer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

SECRET = "s3cr3t-of-nobody"


@pytest.fixture(scope="module")
def server(process_group: int) -> Iterator[ClusterServer]:
    """With roles: `owner` may make schemas, `service` may not, `locked` needs a password."""
    cluster = postgres_servers.own_cluster()
    if cluster is None:
        pytest.skip(postgres_servers.NONE)
    with cluster.server(process_group) as server:
        for role in ("owner", "service", "locked"):
            server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
        server.allow("host all locked 127.0.0.1/32 scram-sha-256")
        yield server


@pytest.fixture
def url(server: ClusterServer) -> Iterator[str]:
    with fresh_database(server.url, "OWNER owner") as url:
        yield url


def as_role(url: str, role: str, password: str = SECRET) -> str:
    return url.replace("orderbell@", f"{role}:{password}@", 1)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    async with plain(url) as connection:
        for statement in statements:
            await connection.execute(statement)


async def refusal(url: str, **options: Any) -> str:
    """The line with which the process would end."""
    with pytest.raises((DatabaseUnusable, DatabaseError)) as raised:
        async with open_database(url, **options):
            pass
    line = str(raised.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


def migrate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {f"{PREFIX}DATABASE_URL": url}
    return commands.run("shared.commands.cli", "migrate", *arguments, environment=environment)


@pytest.mark.long
async def test_tables_stand_in_a_schema_of_their_own_beside_somebody_elses(url: str) -> None:
    await execute(
        url,
        "CREATE TABLE orders (id int PRIMARY KEY)",
        "CREATE TABLE events (id int)",
        "CREATE TABLE alembic_version (version_num varchar(32))",
        "INSERT INTO alembic_version VALUES ('ae1027a6acf5')",
    )
    async with open_database(url) as database:
        assert (await database.read(backlog)).size == 0
    async with open_database(url, schema="bell-2") as database:
        assert (await database.read(backlog)).size == 0
    async with plain(url) as connection:
        rows = await connection.fetch(
            "SELECT schemaname, count(*) FROM pg_tables WHERE schemaname !~ '^(pg_|inf)' GROUP BY 1"
        )
        counts = dict(rows)
    assert counts["public"] == 3
    assert counts["orderbell"] == counts["bell-2"] > 6


def insert_event(connection: Connection, seq: int) -> int:
    """Returns its position."""
    event = {
        "channel": "customer:a",
        "seq": seq,
        "epoch": 1,
        "identity": str(seq),
        "content_digest": "",
        "recorded_at": "2026-11-23T14:25:00.123Z",
        "text": "{}",
    }
    inserted = connection.execute(insert(events).returning(events.c.position), event)
    return int(inserted.scalar_one())


async def test_installation_that_stood_in_public_moves_with_all_it_has(url: str) -> None:
    parsed = parse_database_url(url)
    assert isinstance(parsed, PostgresUrl)
    async with maintenance(parsed, "public") as engine, engine.connect() as connection:
        await connection.run_sync(as_of_0002)
    await execute(
        url,
        "INSERT INTO public.events (channel, seq, epoch, identity, content, recorded_at, text) "
        "VALUES ('customer:a', 1, 1, '1', '', '2026-11-23T14:25:00.123Z', '{}')",
        "CREATE TABLE public.customers (id int)",
        # With an order, indexes are built beside the work of others.
        "INSERT INTO public.orders (order_id, customer_id, status, created_at, data) "
        "VALUES ('1', 'a', 'open', '2026-11-23T14:25:00.123Z', '{}')",
    )
    async with open_database(url) as database:
        assert (await database.read(backlog)).size == 1
        assert await database.write(partial(insert_event, seq=2)) == 2
    async with plain(url) as connection:
        left = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row[0] for row in left] == ["customers"]


def as_of_0002(connection: Connection) -> None:
    command.upgrade(migrations._config(connection=connection, schema="public"), "0002")


@pytest.mark.long
async def test_service_that_may_only_read_and_write_works_on_what_migrate_has_made(url: str) -> None:
    service = as_role(url, "service")
    line = await refusal(service)
    assert "orderbell migrate" in line
    assert "permission denied" in line
    made = await asyncio.to_thread(migrate, as_role(url, "owner"), "--role", "service")
    assert made.returncode == 0, made.stderr
    async with open_database(service) as database:
        await database.write(lambda c: c.execute(text("INSERT INTO channels (channel, seq) VALUES ('a', 1)")))
        assert (await database.read(backlog)).size == 0
        await database.check()
    await execute(as_role(url, "owner"), "REVOKE DELETE ON orderbell.events FROM service")
    assert "lacks DELETE" in await refusal(service)
    again = await asyncio.to_thread(migrate, as_role(url, "owner"), "--role", "service")
    assert again.returncode == 0, again.stderr
    async with open_database(service):
        pass


@pytest.mark.long
async def test_sql_of_migrate_makes_what_the_service_needs(url: str, server: ClusterServer) -> None:
    written = await asyncio.to_thread(migrate, as_role(url, "owner"), "--sql", "--role", "service")
    assert written.returncode == 0, written.stderr
    psql = ["psql", "-q", as_role(url, "owner").replace("+asyncpg", "")]
    run = await asyncio.to_thread(subprocess.run, psql, input=written.stdout, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    async with open_database(as_role(url, "service")) as database:
        await database.check()
    again = await asyncio.to_thread(migrate, as_role(url, "owner"), "--sql", "--role", "service")
    assert "CREATE TABLE" not in again.stdout


async def test_role_without_rights_is_shown_the_grants_it_needs(url: str) -> None:
    async with open_database(url):
        pass
    assert "grants what is needed" in await refusal(as_role(url, "service"))


async def test_schema_of_a_later_release_is_served_where_it_has_all_that_is_needed(url: str) -> None:
    async with open_database(url):
        pass
    await execute(
        url,
        "UPDATE orderbell.alembic_version SET version_num = '0999'",
        "ALTER TABLE orderbell.orders ADD COLUMN later int",
    )
    with capture_logs() as logs:
        async with open_database(url) as database:
            await database.check()
    assert any("later release" in log["event"] and log["found"] == "0999" for log in logs)
    await execute(url, "ALTER TABLE orderbell.orders DROP COLUMN data")
    assert "'0999', which this release" in await refusal(url)


async def test_schema_of_another_program_is_refused(url: str) -> None:
    await execute(
        url,
        "CREATE TABLE alembic_version (version_num varchar(32))",
        "INSERT INTO alembic_version VALUES ('ae1027a6acf5')",
        "CREATE TABLE orders (id int)",
    )
    assert "ORDERBELL_DATABASE_SCHEMA" in await refusal(url, schema="public")
    await execute(url, "DROP TABLE alembic_version")
    assert "tables of another program" in await refusal(url, schema="public")


async def test_database_that_keeps_no_unicode_is_refused(server: ClusterServer) -> None:
    options = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    with fresh_database(server.url, options) as url:
        assert "LATIN1" in await refusal(url)


async def test_database_that_is_not_there_is_one_line(server: ClusterServer) -> None:
    assert 'database "nowhere" does not exist' in await refusal(server.url.replace("/postgres", "/nowhere"))


async def test_wrong_password_is_one_line_without_it(url: str) -> None:
    assert "password authentication failed" in await refusal(as_role(url, "locked"))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sslmode=require", "TLS|SSL"),
        ("sslmode=verify-full&sslrootcert=/nowhere/root.crt", "sslrootcert=/nowhere/root.crt: No such file"),
        ("sslmode=verify-full", "root certificate"),
        ("sslcert=/nowhere/c.pem&sslkey=/nowhere/k.pem", "sslcert=/nowhere/c.pem: No such file"),
        ("options=-cnonsense%3D1", "nonsense"),
        ("host=/nowhere", "/nowhere"),
        ("service=nowhere", "service=nowhere: there is none in"),
        ("host=nowhere.invalid", "nowhere.invalid"),
    ],
)
async def test_fault_of_the_url_is_one_line(url: str, query: str, says: str) -> None:
    line = await refusal(f"{as_role(url, 'service')}?{query}")
    assert any(word in line for word in says.split("|")), line


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer&gssencmode=disable&keepalives=1",
        "options=-csearch_path%3Dshop",
        "sslmode=prefer",
    ],
)
async def test_url_of_a_console_is_served(url: str, query: str) -> None:
    async with open_database(f"{url}?{query}") as database:
        await database.check()


async def test_process_ends_with_one_line_and_code_2(server: ClusterServer) -> None:
    url = as_role(server.url, "locked").replace("postgresql+asyncpg", "postgres")
    environment = clean_environment() | {
        f"{PREFIX}DATABASE_URL": url,
        f"{PREFIX}API_KEYS": "a-key-for-tests-only",
    }
    ended = await asyncio.to_thread(commands.run, "sender", "--port", "0", environment=environment)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("orderbell: ORDERBELL_DATABASE_URL: ")
    assert SECRET not in ended.stdout + ended.stderr


async def test_migration_that_meets_a_lock_lets_others_pass_and_comes_again(url: str) -> None:
    """A change of the catalogue that waited for minutes would hold up every query behind it."""
    async with open_database(url), plain(url) as connection:
        await connection.execute("SET search_path = orderbell")
        # As before the outbox had a table of its own.
        await connection.execute("DROP TABLE outbox; ALTER TABLE events RENAME content_digest TO content")
        await connection.execute("ALTER TABLE events ADD published_at varchar(24)")
        await connection.execute("UPDATE alembic_version SET version_num = '0006'")
    async with plain(url) as reader, plain(url) as other:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT count(*) FROM orderbell.events")

        async def migrate() -> None:
            async with open_database(url):
                pass

        with capture_logs() as logs:
            migrating = asyncio.create_task(migrate())
            await await_until(lambda: any("waits for another" in log["event"] for log in logs), timeout=20)
            began = time.monotonic()
            await other.fetch("SELECT count(*) FROM orderbell.events")
            assert time.monotonic() - began < 2
            assert not migrating.done()
            await reading.rollback()
            migrating_failed = await asyncio.wait_for(asyncio.gather(migrating, return_exceptions=True), 20)
        # Parts of later versions are there: the test made this database old by hand, and only partly.
        assert "outbox" in await tables(url), migrating_failed


async def test_index_that_was_never_built_does_not_stop_a_migration(url: str) -> None:
    """There were orders when version 0006 came, and a role that may not build indexes; now there are none."""
    async with open_database(url):
        pass
    indexes = [index.name for index in INDEXES if index.name.endswith(("completed_index", "cancelled_index"))]
    indexes += ["revocations_kept_until_index", "dead_letters_channel_index"]
    await execute(
        url,
        *(f"DROP INDEX orderbell.{name}" for name in indexes),
        "DROP TABLE orderbell.senders",  # of version 0016
        "UPDATE orderbell.alembic_version SET version_num = '0014'",
    )
    async with open_database(url) as database:
        await database.check()


async def tables(url: str) -> set[str]:
    async with plain(url) as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'orderbell'")
        return {row["tablename"] for row in rows}
