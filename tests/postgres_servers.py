"""The PostgreSQL that the tests run against.

`ORDERBELL_TEST_POSTGRES_URL`, else Docker, else a cluster of our own made by `initdb`: from PATH, or from
where Debian keeps it. PostgreSQL refuses to run as root; then it runs as the user `postgres`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from sender.database.open import open_database
from shared.commands.embedded import free_port
from tests import docker_engine
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

T = TypeVar("T")
URL_VARIABLE = "ORDERBELL_TEST_POSTGRES_URL"
IMAGE = "postgres:17-alpine"
NONE = f"no PostgreSQL: set {URL_VARIABLE}, or install Docker or PostgreSQL (as root: with its user postgres)"
_SCHEME = "postgresql+asyncpg://"


@dataclass(frozen=True)
class Url:
    """A server that somebody else runs; its user may create databases."""

    url: str

    def __str__(self) -> str:
        return f"{URL_VARIABLE}={self.url.rpartition('@')[2]}"

    @contextlib.contextmanager
    def run(self, process_group: int) -> Iterator[str]:
        yield self.url


@dataclass(frozen=True)
class Container:
    def __str__(self) -> str:
        return f"Docker, {IMAGE}"

    @contextlib.contextmanager
    def run(self, process_group: int) -> Iterator[str]:
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer(IMAGE, driver="asyncpg") as container:
            yield container.get_connection_url()


@dataclass(frozen=True)
class Cluster:
    """A cluster of our own in a temporary directory."""

    binaries: Path

    def __str__(self) -> str:
        return str(self.binaries / "postgres")

    @contextlib.contextmanager
    def run(self, process_group: int) -> Iterator[str]:
        with self.server(process_group) as server:
            yield server.url

    @contextlib.contextmanager
    def server(
        self, process_group: int, *, follows: ClusterServer | None = None, **settings: str | int
    ) -> Iterator[ClusterServer]:
        """A server that the test may stop, crash and start again, or make a standby of another."""
        directory = Path(tempfile.mkdtemp(prefix="orderbell-postgres-"))
        try:
            server = ClusterServer(self.binaries, directory, process_group, follows=follows, **settings)
            try:
                server.start()
                yield server
            finally:
                server.stop()
        finally:
            shutil.rmtree(directory)


class ClusterServer:
    """PostgreSQL on one port; started again it has what was committed."""

    def __init__(
        self,
        binaries: Path,
        directory: Path,
        process_group: int,
        *,
        follows: ClusterServer | None = None,
        **settings: str | int,
    ) -> None:
        self.port = free_port()
        self.url = f"{_SCHEME}orderbell@127.0.0.1:{self.port}/postgres"
        self.directory = directory
        self._settings = settings
        self._binaries = binaries
        self._directory = directory
        self._process_group = process_group
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user = _unprivileged_user() or {}
        if self._as_user:
            shutil.chown(directory, self._as_user["user"], self._as_user["group"])
        if follows is None:
            self._initdb()
        else:
            self.follow(follows)

    def start(self) -> None:
        """Returns when it answers."""
        with (self._directory / "log").open("ab") as log:
            server = self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=self._process_group,
                cwd=self._directory,
                **self._as_user,
            )
        wait_until(lambda: server.poll() is not None or _answers(self.url), timeout=30)
        assert server.poll() is None, (self._directory / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Its "fast" shutdown: connections are closed, and open transactions rolled back."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def crash(self) -> None:
        """Its processes end at once; it recovers from its log when it is started again."""
        self.stop(signal.SIGQUIT)

    def freeze(self) -> None:
        """Freeze its processes: connections stay open without answers, and new ones are not accepted."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """First the process that starts the others, so that none is missed."""
        assert self._process is not None
        pid = self._process.pid
        os.kill(pid, number)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)

    def execute(self, statement: str) -> None:
        _execute(self.url, statement)

    def follow(self, primary: ClusterServer) -> None:
        """Become its standby, with a copy of its data. Start it afterwards."""
        shutil.rmtree(self._directory / "data", ignore_errors=True)
        self._copy(primary, self._directory / "data", "-R")

    def back_up(self) -> None:
        """Back up, while others continue to write."""
        self._copy(self, self._directory / "backup")

    def restore(self) -> None:
        """Restore the backup; everything newer is lost. Returns when it answers."""
        self.crash()
        shutil.rmtree(self._directory / "data")
        (self._directory / "backup").rename(self._directory / "data")
        self.start()

    def _copy(self, source: ClusterServer, to: Path, *options: str) -> None:
        command: list[str | Path] = [self._binaries / "pg_basebackup", "-D", to, *options]
        command += ["-h", "127.0.0.1", "-p", str(source.port), "-U", "orderbell", "-c", "fast", "--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=self._directory, **self._as_user)
        assert made.returncode == 0, made.stderr

    def promote(self) -> None:
        """Returns when it takes writes."""
        self.execute("SELECT pg_promote(wait => true)")

    def allow(self, *lines: str) -> None:
        """Put these lines before the others of pg_hba.conf."""
        path = self._directory / "data" / "pg_hba.conf"
        path.write_text("\n".join((*lines, path.read_text())))
        self.execute("SELECT pg_reload_conf()")

    def put_file(self, name: str, content: bytes) -> None:
        """Into its data directory, its own and unreadable for others, as a key must be."""
        path = self._directory / "data" / name
        path.touch(0o600)
        path.write_bytes(content)
        if self._as_user:
            shutil.chown(path, self._as_user["user"], self._as_user["group"])

    def _initdb(self) -> None:
        command: list[str | Path] = [self._binaries / "initdb", "-D", self._directory / "data"]
        command += ["-U", "orderbell", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=self._directory, **self._as_user)
        assert made.returncode == 0, made.stderr

    def _command(self) -> list[str | Path]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": self.port,
            "max_connections": 200,
            "fsync": "off",  # no test cuts the machine's power
            **self._settings,
        }
        settings = [f"{name}={value}" for name, value in options.items()]
        words = [word for setting in settings for word in ("-c", setting)]
        return [self._binaries / "postgres", "-D", self._directory / "data", *words]


@functools.cache
def choose() -> Url | Container | Cluster | None:
    if url := os.environ.get(URL_VARIABLE):
        return Url(url)
    if docker_engine.can_have(IMAGE):
        return Container()
    return own_cluster()


@functools.cache
def own_cluster() -> Cluster | None:
    """A cluster that a test can start, crash and freeze."""
    binaries = _binaries()
    if binaries is None or _unprivileged_user() is None:
        return None
    return Cluster(binaries)


@contextlib.contextmanager
def fresh_database(server_url: str, options: str = "") -> Iterator[str]:
    """The URL of a database of the test's own, dropped afterwards."""
    name = f"orderbell_{uuid.uuid4().hex}"
    _execute(server_url, f"CREATE DATABASE {name} {options}")
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


class EmptiedDatabase:
    """One database for many tests, with our tables and what a migration writes into them, and nothing else.

    Creating, migrating and dropping one for each test took a quarter of the time of all tests.
    """

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._made = contextlib.ExitStack()
        self._url = ""
        self._shape = ""
        self._rows: dict[str, str] = {}
        # Its connection stays open: a new one reads the catalogue anew for what it is asked.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="emptied-database")
        self._runner = self._thread.submit(asyncio.Runner).result()
        self._connection: Any = None

    def __enter__(self) -> EmptiedDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._disconnect)
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()
        self._made.close()

    @contextlib.contextmanager
    def use(self) -> Iterator[str]:
        """Its URL."""
        if not self._url:
            self._url = self._made.enter_context(fresh_database(self._server_url))
            self._run(self._migrate)
        try:
            yield self._url
        finally:
            if not self._run(self._empty):
                # The test has changed the tables or the settings: the next one gets another database.
                self._run(self._disconnect)
                self._url = ""

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """In a thread of its own: the test's thread may have an event loop."""
        return self._thread.submit(lambda: self._runner.run(work())).result()

    async def _connect(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(_plain(self._url), timeout=5)
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _migrate(self) -> None:
        async with open_database(self._url):
            pass
        connection = await self._connect()
        self._shape = await connection.fetchval(_SHAPE)
        tables = [table for (table,) in await connection.fetch(_TABLES)]
        self._rows = {table: await connection.fetchval(_rows_of(table)) for table in tables}

    async def _empty(self) -> bool:
        """Returns whether it could be emptied. Tables that were not used are left: truncating one is slow."""
        connection = await self._connect()
        try:
            await connection.execute(_END_OTHERS)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # the test has ended it
            await self._disconnect()
            connection = await self._connect()
            await connection.execute(_END_OTHERS)
        if await connection.fetchval(_SHAPE) != self._shape:
            return False
        used = " UNION ALL ".join(
            f"SELECT '{table}' WHERE ({_rows_of(table)}) <> $${rows}$$"
            if rows != "[]"
            else f"(SELECT '{table}' FROM orderbell.{table} LIMIT 1)"
            for table, rows in self._rows.items()
        )
        tables = [table for (table,) in await connection.fetch(used)]
        async with connection.transaction():
            if tables:
                await connection.execute(f"TRUNCATE {', '.join(f'orderbell.{table}' for table in tables)}")
            await connection.execute(_RESTART)
            for table in tables:
                if (rows := self._rows[table]) != "[]":
                    row = f"json_populate_recordset(NULL::orderbell.{table}, $1)"
                    await connection.execute(f"INSERT INTO orderbell.{table} SELECT * FROM {row}", rows)
        return True


def _rows_of(table: str) -> str:
    return f"SELECT coalesce(json_agg(t), '[]')::text FROM orderbell.{table} t"


_RESTART = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false) FROM pg_sequences
    WHERE schemaname = 'orderbell' AND last_value IS NOT NULL
"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'orderbell' ORDER BY tablename"
_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Everything a test might change that emptying the tables does not undo.
_SHAPE = """
    WITH ours AS (
      SELECT * FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
    )
    SELECT md5(string_agg(part, ',' ORDER BY part)) FROM (
      SELECT concat_ws(' ', relnamespace, relname, relkind, relowner, relacl, reloptions)
        FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)
      UNION ALL
      SELECT concat_ws(' ', attrelid, attname, atttypid, atttypmod, attnotnull)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace IN (SELECT oid FROM ours)
      UNION ALL SELECT concat_ws(' ', nspname, nspowner, nspacl) FROM ours
      UNION ALL SELECT concat_ws(' ', conrelid, conname) FROM pg_constraint
      UNION ALL SELECT concat_ws(' ', tgrelid, tgname, tgenabled) FROM pg_trigger
      UNION ALL SELECT concat_ws(' ', setrole, setconfig) FROM pg_db_role_setting
      UNION ALL
      SELECT concat_ws(' ', datacl, datallowconn, datconnlimit)
        FROM pg_database WHERE datname = current_database()
    ) AS parts(part)
"""


def _binaries() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return debian[-1].parent if debian else None


def _unprivileged_user() -> dict[str, Any] | None:
    """Popen's arguments for a user that PostgreSQL accepts; None where there is none."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        return None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _answers(url: str) -> bool:
    try:
        _execute(url, "SELECT 1")
    except (OSError, asyncpg.PostgresError):
        return False
    return True


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        async with connected_to(url) as connection:
            await connection.execute(statement)

    _in_thread(run)


@contextlib.asynccontextmanager
async def connected_to(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(_plain(url), timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


def _plain(url: str) -> str:
    return url.replace("+asyncpg", "", 1)


def _in_thread(run: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a thread of its own: the test's thread may have an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()
