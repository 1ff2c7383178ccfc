"""The two doors, on both databases, and what SQLite's one writer does with those that wait."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from structlog.testing import capture_logs

from sender.database import sqlite, sqlite_connect
from sender.database.errors import (
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
    DatabaseUnusable,
)
from sender.database.open import open_database
from sender.database.tables import channels, idempotency, metadata
from tests import sqlite_databases
from tests.postgres_servers import fresh_database
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from sender.database.protocol import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(database_url: str, anyio_backend: object) -> AsyncIterator[Database]:
    sqlite_databases.prepare(database_url)
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "orderbell.db"


@pytest.fixture
async def sqlite_database(sqlite_path: Path, anyio_backend: object) -> AsyncIterator[sqlite.SqliteDatabase]:
    sqlite_databases.prepare(f"{sqlite_databases.SCHEME}{sqlite_path}")
    async with sqlite.open_sqlite(str(sqlite_path)) as database:
        yield database


def put(connection: Connection, name: str) -> str:
    connection.execute(insert(channels), {"channel": name, "seq": 1})
    return name


def names(connection: Connection) -> list[str]:
    return list(connection.execute(select(channels.c.channel).order_by(channels.c.channel)).scalars())


def fail_after_put(connection: Connection, name: str) -> None:
    put(connection, name)
    raise LookupError(name)


@asynccontextmanager
async def held_writer(database: Database) -> AsyncIterator[None]:
    """Hold the writer: writes wait meanwhile."""
    held, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: Connection) -> None:
        loop.call_soon_threadsafe(held.set)
        assert go.wait(5)

    holder = asyncio.create_task(database.write(hold))
    await held.wait()
    try:
        yield
    finally:
        go.set()
        await holder


async def test_what_a_write_returned_from_is_read_by_the_next_read(database: Database) -> None:
    assert await database.write(partial(put, name="a")) == "a"
    assert await database.read(names) == ["a"]


async def test_failed_write_stores_nothing_and_raises_what_the_work_raised(database: Database) -> None:
    with pytest.raises(LookupError, match="a"):
        await database.write(partial(fail_after_put, name="a"))
    assert await database.read(names) == []


async def test_work_for_idle_times_is_a_transaction_like_any_other(database: Database) -> None:
    assert await database.write_when_idle(partial(put, name="a")) == "a"
    with pytest.raises(LookupError):
        await database.write_when_idle(partial(fail_after_put, name="b"))
    assert await database.write(partial(put, name="c")) == "c"
    assert await database.read(names) == ["a", "c"]


async def test_reads_see_one_snapshot(database_url: str, database: Database) -> None:
    await database.write(partial(put, name="a"))
    loop, reading, written = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read_twice(connection: Connection) -> tuple[list[str], list[str]]:
        first = names(connection)
        if database_url.startswith("sqlite"):  # it reads in a thread, PostgreSQL in the loop
            loop.call_soon_threadsafe(reading.set)
            assert written.wait(5)
        else:
            wait_in_loop(other := asyncio.create_task(database.write(partial(put, name="b"))))
            assert other.done()
        return first, names(connection)

    reader = asyncio.create_task(database.read(read_twice))
    if database_url.startswith("sqlite"):
        await reading.wait()
        await database.write(partial(put, name="b"))
        written.set()
    assert await reader == (["a"], ["a"])
    assert await database.read(names) == ["a", "b"]


def wait_in_loop(task: asyncio.Task[Any]) -> None:
    """Let the loop run from within `run_sync`."""
    from sqlalchemy.util import await_only

    await_only(asyncio.wait({task}))


async def test_reads_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"read-only|readonly"):
        await database.read(partial(put, name="a"))


async def test_cancelled_caller_disturbs_nobody(database: Database) -> None:
    cancelled = asyncio.create_task(database.write(partial(put, name="a")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await database.write(partial(put, name="b"))
    assert "b" in await database.read(names)


async def test_migrated_schema_is_what_the_code_says(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        # SQLite ignores a text's declared length, so no migration rewrites its tables for another one.
        compared = {
            "compare_type": connection.dialect.name != "sqlite",
            # On PostgreSQL it is over an expression, on SQLite part of the table: metadata has neither.
            "include_name": lambda name, kind, _: (
                name not in ("events_identity_key", "events_identity_uuid_index")
            ),
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=compared), metadata))

    assert await database.read(differences) == []


async def test_several_senders_start_at_once_on_an_empty_database(new_database_url: str) -> None:
    async def start(number: int) -> None:
        async with open_database(new_database_url) as database:
            await database.write(partial(put, name=str(number)))

    await asyncio.gather(*map(start, range(4)))
    async with open_database(new_database_url) as database:
        assert await database.read(names) == ["0", "1", "2", "3"]


# SQLite alone


async def in_one_batch(
    database: sqlite.SqliteDatabase, *works: Callable[[Connection], object]
) -> list[object | BaseException]:
    """Run the works in one transaction: the writer is held until all of them wait."""
    async with held_writer(database):
        waiting = [asyncio.create_task(database.write(work)) for work in works]
        await asyncio.sleep(0)  # all have put their job
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_one_failing_job_among_good_ones_fails_alone(sqlite_database: sqlite.SqliteDatabase) -> None:
    outcomes = await in_one_batch(
        sqlite_database, partial(put, name="a"), partial(fail_after_put, name="b"), partial(put, name="c")
    )
    assert outcomes[0] == "a"
    assert isinstance(outcomes[1], LookupError)
    assert outcomes[2] == "c"
    assert await sqlite_database.read(names) == ["a", "c"]


async def test_jobs_that_wait_share_one_commit(
    sqlite_database: sqlite.SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    run = sqlite._run

    def counted(connection: Connection, jobs: Sequence[Any]) -> list[Any]:
        batches.append(len(jobs))
        return run(connection, jobs)

    monkeypatch.setattr(sqlite, "_run", counted)
    await in_one_batch(sqlite_database, *(partial(put, name=str(n)) for n in range(20)))
    assert batches == [1, 20]


async def test_when_the_commit_fails_all_of_its_jobs_fail(sqlite_database: sqlite.SqliteDatabase) -> None:
    def break_a_deferred_rule(connection: Connection) -> None:
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        connection.execute(text("CREATE TABLE child (parent TEXT REFERENCES channels (channel))"))
        connection.execute(text("INSERT INTO child VALUES ('nobody')"))

    outcomes = await in_one_batch(sqlite_database, partial(put, name="a"), break_a_deferred_rule)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    assert await sqlite_database.read(names) == []
    await sqlite_database.write(partial(put, name="b"))
    assert await sqlite_database.read(names) == ["b"]


async def test_items_of_one_work_run_together_and_a_bad_one_fails_alone(
    sqlite_database: sqlite.SqliteDatabase,
) -> None:
    together: list[int] = []

    def put_all(connection: Connection, items: Sequence[str]) -> list[str | Exception]:
        together.append(len(items))
        for item in items:
            connection.execute(insert(channels), {"channel": item, "seq": 1})
            if item == "spoilt":
                raise ArithmeticError(item)
        return [LookupError(item) if item == "unknown" else item for item in items]

    async with held_writer(sqlite_database):
        waiting = [
            asyncio.create_task(sqlite_database.write_together(put_all, item))
            for item in ("a", "spoilt", "unknown", "b")
        ]
        await asyncio.sleep(0)
    a, spoilt, unknown, b = await asyncio.gather(*waiting, return_exceptions=True)
    assert (a, b) == ("a", "b")
    assert isinstance(spoilt, ArithmeticError)
    assert isinstance(unknown, LookupError)
    assert together == [4, 1, 1, 1, 1]
    assert "spoilt" not in await sqlite_database.read(names)


async def test_transaction_takes_no_more_together_than_the_first_can_wait_for(
    sqlite_path: Path,
) -> None:
    few = sqlite.Limits(max_together=10)  # as few as the sizes below
    sizes: list[int] = []

    def note(connection: Connection, items: Sequence[int]) -> list[int]:
        sizes.append(sum(items))
        return list(items)

    async with sqlite.open_sqlite(str(sqlite_path), few) as database:
        async with held_writer(database):
            waiting = [
                asyncio.create_task(database.write_together(note, size, size=size))
                for size in (4, 4, 4, 50, 1, 9, 1)
            ]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert sizes == [12, 50, 10, 1]


async def test_04_locked_database_is_waited_for_then_reported(
    sqlite_database: sqlite.SqliteDatabase, sqlite_path: Path
) -> None:
    await sqlite_database.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout = 200"))
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await sqlite_database.write(partial(put, name="a"))
        assert await sqlite_database.read(names) == []
        waiting = asyncio.create_task(sqlite_database.write(partial(put, name="b")))
        await asyncio.sleep(0)
        other.execute("COMMIT")
        assert await waiting == "b"
    assert await sqlite_database.read(names) == ["b"]


async def test_05_full_disk_is_reported_and_recovered_from(sqlite_database: sqlite.SqliteDatabase) -> None:
    def limit_pages(connection: Connection, pages: int) -> int:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(connection.exec_driver_sql(f"PRAGMA max_page_count = {used + pages}").scalar_one())

    def fill(connection: Connection) -> None:
        for number in range(1000):
            put(connection, f"{number:0150}")

    await sqlite_database.write(partial(limit_pages, pages=2))
    outcomes = await in_one_batch(sqlite_database, fill, partial(put, name="a"))
    assert isinstance(outcomes[0], DatabaseFull)
    stored = await sqlite_database.read(names)
    assert stored == ([] if isinstance(outcomes[1], Exception) else ["a"])
    await sqlite_database.write(partial(limit_pages, pages=100_000))
    await sqlite_database.write(partial(put, name="b"))
    assert "b" in await sqlite_database.read(names)


async def test_too_many_waiting_writes_are_sent_away(
    sqlite_path: Path,
) -> None:
    few = sqlite.Limits(max_waiting=3)  # one of them holds the writer
    async with sqlite.open_sqlite(str(sqlite_path), few) as database:
        outcomes = await in_one_batch(database, *(partial(put, name=str(n)) for n in range(4)))
    kinds = [str, str, DatabaseBusy, DatabaseBusy]
    assert [type(outcome) for outcome in outcomes] == kinds


async def test_06_commits_are_on_disk_when_answered(sqlite_database: sqlite.SqliteDatabase) -> None:
    """Held by SQLite's own promise for these settings; that they took is checked at every start."""

    def settings(connection: Connection) -> dict[str, Any]:
        wanted = ("journal_mode", "synchronous", "foreign_keys")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted}

    assert await sqlite_database.write(settings) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
    }


async def test_commits_are_on_disk_when_answered_after_work_for_idle_times_too(
    sqlite_database: sqlite.SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That work is synced after the lock is released; a caller's commit that follows, within itself."""

    def synchronous(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    synced: list[str] = []
    monkeypatch.setattr(sqlite, "sync", synced.append)
    assert await sqlite_database.write_when_idle(synchronous) == 1
    assert [path.endswith("orderbell.db-wal") for path in synced] == [True]
    assert await sqlite_database.write(synchronous) == 2
    with pytest.raises(LookupError):
        await sqlite_database.write_when_idle(partial(fail_after_put, name="a"))
    assert await sqlite_database.write(synchronous) == 2


async def test_work_for_idle_times_lets_callers_go_first_but_not_for_ever(sqlite_path: Path) -> None:
    order: list[str] = []

    def note(connection: Connection, name: str) -> None:
        order.append(name)

    for seconds, expected in ((5.0, ["caller", "idle"]), (0.0, ["idle", "caller"])):
        order.clear()
        limits = sqlite.Limits(give_way_seconds=seconds)
        async with sqlite.open_sqlite(str(sqlite_path), limits) as database:
            async with held_writer(database):
                idle = asyncio.create_task(database.write_when_idle(partial(note, name="idle")))
                await asyncio.sleep(0.02)  # without patience it is in the writer's queue by then
                caller = asyncio.create_task(database.write(partial(note, name="caller")))
                await asyncio.sleep(0)
            await asyncio.gather(idle, caller)
        assert order == expected


async def test_log_is_copied_into_the_file_beside_the_writer(
    sqlite_database: sqlite.SqliteDatabase, sqlite_path: Path
) -> None:
    def put_many(connection: Connection) -> None:
        connection.execute(insert(channels), [{"channel": str(n), "seq": 1} for n in range(1_100)])

    def in_the_file() -> int:
        copy = sqlite_path.with_suffix(".copy")
        copy.write_bytes(sqlite_path.read_bytes())  # without its log
        try:
            with closing(sqlite3.connect(copy)) as connection:
                return int(connection.execute("SELECT count(*) FROM channels").fetchone()[0])
        except sqlite3.DatabaseError:  # half of it was copied when we read
            return 0

    await sqlite_database.write(put_many)
    await await_until(lambda: in_the_file() == 1_100)


async def test_settings_that_did_not_take_refuse_to_start(
    sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sqlite_connect.PRAGMAS, "synchronous", "9")
    with pytest.raises(DatabaseUnusable, match="synchronous"):
        async with sqlite.open_sqlite(str(sqlite_path)):
            pass


async def test_database_without_a_file_is_refused() -> None:
    with pytest.raises(DatabaseUnusable, match="file"):
        async with open_database("sqlite+aiosqlite:///:memory:"):
            pass


@pytest.mark.parametrize("suffixes", [("", "-wal", "-shm"), ("",), ("-wal",)], ids=["all", "file", "log"])
async def test_files_removed_under_a_running_sender_are_an_alarm_and_nothing_is_accepted(
    sqlite_database: sqlite.SqliteDatabase, sqlite_path: Path, suffixes: tuple[str, ...]
) -> None:
    """SQLite itself continues in files without a name: it would answer 200 for rows that are gone at the next
    start.
    """
    await sqlite_database.write(partial(put, name="a"))
    await sqlite_database.check()
    for suffix in suffixes:
        os.unlink(f"{sqlite_path}{suffix}")
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="removed or replaced"):
                await sqlite_database.write(partial(put, name="b"))
            with pytest.raises(DatabaseUnavailable, match="removed or replaced"):
                await sqlite_database.check()
    assert [log["log_level"] for log in logs] == ["error"]


async def test_file_that_is_moved_back_is_used_again(
    sqlite_database: sqlite.SqliteDatabase, sqlite_path: Path
) -> None:
    await sqlite_database.write(partial(put, name="a"))
    os.rename(sqlite_path, f"{sqlite_path}.away")
    with pytest.raises(DatabaseUnavailable):
        await sqlite_database.write(partial(put, name="b"))
    os.rename(f"{sqlite_path}.away", sqlite_path)
    assert await sqlite_database.write(partial(put, name="c")) == "c"
    await sqlite_database.check()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda path: path.write_bytes(b"not a database, but long enough to be looked into" * 40),
            "not a SQLite",
        ),
        (lambda path: path.mkdir(), "it is a directory"),
        (lambda path: foreign(path, "CREATE TABLE orders (id)"), "another program's database"),
        (
            lambda path: foreign(
                path,
                "CREATE TABLE alembic_version (version_num)",
                "INSERT INTO alembic_version VALUES ('ae1027a6acf5')",
            ),
            "'ae1027a6acf5', which this release",
        ),
    ],
    ids=["garbage", "directory", "tables", "version"],
)
async def test_file_that_is_none_of_ours_is_refused_in_one_line(
    sqlite_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(sqlite_path)
    with pytest.raises(DatabaseUnusable) as refused:
        async with open_database(f"sqlite:///{sqlite_path}"):
            pass
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def foreign(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)


async def test_file_of_a_later_release_is_served_where_it_has_all_that_is_needed(sqlite_path: Path) -> None:
    async with open_database(f"sqlite:///{sqlite_path}"):
        pass
    foreign(sqlite_path, "UPDATE alembic_version SET version_num = '0999'", "CREATE TABLE later (x)")
    with capture_logs() as logs:
        async with open_database(f"sqlite:///{sqlite_path}") as database:
            assert await database.write(partial(put, name="a")) == "a"
    assert any("later release" in log["event"] for log in logs)


async def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="there is no directory"):
        async with open_database(f"sqlite:///{tmp_path}/nowhere/orderbell.db"):
            pass


async def test_closing_finishes_what_was_given_before(sqlite_path: Path) -> None:
    async with sqlite.open_sqlite(str(sqlite_path)) as database:
        given = [asyncio.create_task(database.write(partial(put, name=str(n)))) for n in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*given) == [str(n) for n in range(20)]


async def test_write_that_waits_for_the_lock_holds_up_the_end_only_for_a_moment(sqlite_path: Path) -> None:
    limits = sqlite.Limits(busy_seconds=20, hurried_seconds=0.1, close_seconds=0.1)
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
        async with sqlite.open_sqlite(str(sqlite_path), limits) as database:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(database.write(partial(put, name="a")))
            await asyncio.sleep(0.2)  # it has begun to wait
            began = time.monotonic()
        assert time.monotonic() - began < 5
        with pytest.raises(DatabaseError):
            await writing


RECOVER = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as shared:
    # As a process that has found the log's index damaged and builds it anew: the locks of SQLite's wal.c.
    fcntl.lockf(shared, fcntl.LOCK_SH, 1, 128)
    fcntl.lockf(shared, fcntl.LOCK_EX, 3, 120)
    shared.write(bytes(136))
    shared.flush()
    print("recovering", flush=True)
    time.sleep(1)
"""


async def test_write_waits_for_a_process_that_recovers_the_log_as_for_any_other(sqlite_path: Path) -> None:
    """SQLite has an error code of its own for that."""
    limits = sqlite.Limits(busy_seconds=20, hurried_seconds=0.05)
    async with sqlite.open_sqlite(str(sqlite_path), limits) as database:
        await database.write(partial(put, name="a"))
        command = [sys.executable, "-c", RECOVER, f"{sqlite_path}-shm"]
        other = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert other.stdout is not None
        assert await other.stdout.readline() == b"recovering\n"
        assert await database.write(partial(put, name="b")) == "b"
        assert await other.wait() == 0


async def test_late_writer_is_refused_and_no_turn_is_tried_for_it(sqlite_path: Path) -> None:
    async with sqlite.open_sqlite(str(sqlite_path)) as database:
        await database.write(partial(put, name="a"))
    with capture_logs() as logs, pytest.raises(DatabaseUnavailable, match="the sender ends"):
        await asyncio.wait_for(database.write(partial(put, name="b")), 0.2)
    assert logs == []


async def test_large_write_that_ends_while_we_close_is_answered_and_no_fault(sqlite_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def put_many(connection: Connection) -> int:
        begun.set()
        go.wait(20)
        connection.execute(insert(channels), [{"channel": str(n), "seq": 1} for n in range(1_100)])
        return 1_100

    with capture_logs() as logs:
        async with sqlite.open_sqlite(str(sqlite_path), sqlite.Limits(close_seconds=0.01)) as database:
            writing = asyncio.create_task(database.write(put_many))
            await asyncio.to_thread(begun.wait, 20)
            asyncio.get_running_loop().call_later(0.1, go.set)
        assert await writing == 1_100
    assert [log["event"] for log in logs if log["log_level"] == "error"] == []


async def test_files_that_vanish_under_a_large_write_disturb_no_end(sqlite_path: Path) -> None:
    def put_many_and_lose_the_file(connection: Connection) -> None:
        connection.execute(insert(channels), [{"channel": str(n), "seq": 1} for n in range(1_100)])
        sqlite_path.unlink()

    async with sqlite.open_sqlite(str(sqlite_path)) as database:
        with pytest.raises(DatabaseUnavailable, match="removed or replaced"):
            await database.write(put_many_and_lose_the_file)


# PostgreSQL alone


@pytest.fixture
def postgres_database_url(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield url


@pytest.mark.postgres
async def test_waiting_items_share_a_transaction_and_a_bad_one_fails_alone(
    postgres_database_url: str,
) -> None:
    together: list[int] = []

    def put_all(connection: Connection, items: Sequence[str]) -> list[str | Exception]:
        together.append(len(items))
        for item in items:
            connection.execute(insert(channels), {"channel": item, "seq": 1})
            if item == "spoilt":
                raise ArithmeticError(item)
        return [LookupError(item) if item == "unknown" else item for item in items]

    async with open_database(postgres_database_url) as database:
        good = [f"good-{number}" for number in range(20)]
        outcomes = await asyncio.gather(
            *(database.write_together(put_all, item) for item in (*good, "unknown", "spoilt")),
            return_exceptions=True,
        )
        assert outcomes[:20] == good
        assert isinstance(outcomes[20], LookupError)
        assert isinstance(outcomes[21], ArithmeticError)
        assert sorted(await database.read(names)) == sorted([*good, "unknown"])
        assert max(together) >= 10

        leader = asyncio.create_task(database.write_together(put_all, "leader"))
        await asyncio.sleep(0)
        leader.cancel()
        assert await database.write_together(put_all, "next") == "next"


@pytest.mark.postgres
async def test_lost_connections_cost_nobody_an_answer(postgres_database_url: str) -> None:
    """PostgreSQL closes all idle connections, as a restart does: the next write runs on a new one."""
    async with (
        open_database(postgres_database_url) as database,
        open_database(postgres_database_url) as other,
    ):
        await asyncio.gather(*(database.write(partial(put, name=str(n))) for n in range(4)))
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        await other.read(lambda c: c.execute(text(kill + "AND pid <> pg_backend_pid()")).all())
        assert await database.write(partial(put, name="after")) == "after"
        assert "after" in await database.read(names)


@pytest.mark.postgres
async def test_unreachable_server_is_reported_as_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        async with open_database("postgresql+asyncpg://nobody@127.0.0.1:1/orderbell"):
            pass


async def test_errors_quote_nothing_of_what_was_to_be_stored(database_url: str) -> None:
    """They are logged."""
    row = {"scope": "s", "body": "b", "created_at": "", "status": 200, "answer": "payload"}
    async with open_database(database_url) as database:
        with pytest.raises(Exception, match=r"unique|UNIQUE|refused") as raised:
            await database.write(lambda connection: connection.execute(insert(idempotency), [row, row]))
    causes = [raised.value, raised.value.__cause__, getattr(raised.value.__cause__, "__cause__", None)]
    assert "payload" not in " ".join(map(str, causes))
