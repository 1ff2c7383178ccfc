"""Several workers on one port: real processes, a real Redis, and what becomes of connected clients."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import structlog
from click.testing import CliRunner

from receiver.__main__ import main
from receiver.serving.supervisor import (
    HANG_SECONDS,
    HOLD_SECONDS,
    LIVED_SECONDS,
    BackOff,
    Seat,
    Supervisor,
    Worker,
)
from shared.commands.embedded import port_in_use
from shared.process.listening import listen_together
from tests.process_table import descendants, running, stopped
from tests.waiting import await_until, wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess
    from tests.websocket_client import Client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="--workers needs Linux"),
]

WORKERS = 2
START_SECONDS = 60.0  # on two busy cores


class Pool:
    """A gateway with several workers, and their processes."""

    def __init__(self, gateway: ReceiverProcess) -> None:
        self.gateway = gateway

    @property
    def heard(self) -> int:
        """How many workers have been ready so far."""
        return len(self.gateway.records("redis is heard"))

    @property
    def deaths(self) -> list[dict[str, Any]]:
        return self.gateway.records("a worker died")

    @property
    def pids(self) -> dict[int, int]:
        """The running workers' process ids, by number."""
        commands = descendants(self.gateway.pid)
        worker = re.compile(r" receiver\.serving\.worker (\d+) ")
        found = {pid: worker.search(command) for pid, command in commands.items()}
        return {int(match[1]): pid for pid, match in found.items() if match}

    @property
    def directory(self) -> Path:
        """The directory where its workers count."""
        variables = Path(f"/proc/{min(self.pids.values())}/environ").read_text(encoding="utf-8").split("\0")
        return Path(next(v for v in variables if v.startswith("PROMETHEUS_MULTIPROC_DIR=")).partition("=")[2])

    @contextlib.asynccontextmanager
    async def clients_of_each(self, token: str, count: int = 1) -> AsyncIterator[dict[int, list[Client]]]:
        """Connections by the number of their worker; at least so many for each."""
        clients: dict[int, list[Client]] = {}
        async with contextlib.AsyncExitStack() as stack:
            while len(clients) < WORKERS or min(map(len, clients.values())) < count:
                client = await stack.enter_async_context(connected(self.gateway, token))
                clients.setdefault(number_of(client), []).append(client)
            yield clients

    async def figure(self, name: str) -> float:
        """A figure in /metrics of any worker."""
        async with httpx2.AsyncClient(trust_env=False, timeout=START_SECONDS) as client:  # of any worker
            text = (await client.get(f"{self.gateway.url}/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    async def figure_is(self, name: str, value: float) -> bool:
        return await self.figure(name) == value


def number_of(client: Client) -> int:
    """The number of the worker that sent it hello."""
    return int(client.notices[0]["data"]["gateway"].rpartition("/")[2])


def start_pool(processes: Processes, *, drain_seconds: str) -> Pool:
    """Start workers for the sender started last; all are ready when this returns."""
    pool = Pool(processes.start_receiver(workers=WORKERS, drain_seconds=drain_seconds))
    wait_until(lambda: pool.heard == WORKERS, START_SECONDS)
    return pool


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def pool(sender: SenderProcess, module_processes: Processes) -> Pool:
    return start_pool(module_processes, drain_seconds="2")


async def complete(processes: Processes, sender: SenderProcess, order_id: str, customer: str) -> None:
    async with httpx2.AsyncClient(
        base_url=sender.url, headers=processes.api_headers, trust_env=False
    ) as client:
        placed = await client.post("/orders", json={"order_id": order_id, "customer_id": customer})
        assert placed.status_code == 201, placed.text
        completed = await client.post(f"/orders/{order_id}/complete", json={})
        assert completed.status_code == 200, completed.text


async def test_log_level_of_all_workers_changes_with_a_signal(pool: Pool) -> None:
    changed = "the log level was changed"
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        pool.gateway.process.send_signal(number)
    wait_until(lambda: len(pool.gateway.records(changed)) == 2 * (1 + WORKERS))
    assert {record.get("worker") for record in pool.gateway.records(changed)} >= {1, 2}
    assert {record["to"] for record in pool.gateway.records(changed)} == {"DEBUG", "INFO"}
    assert pool.gateway.process.poll() is None


# What clients see.


async def test_event_reaches_the_connections_of_every_worker_once(
    pool: Pool, sender: SenderProcess, module_processes: Processes
) -> None:
    async with pool.clients_of_each(module_processes.token("anna"), 2) as clients:
        for n in range(3):
            await complete(module_processes, sender, f"anna-{n}", "anna")
        for client in itertools.chain(*clients.values()):
            assert [event["seq"] for event in await client.receive_events(3)] == [1, 2, 3]


async def test_killed_worker_is_replaced_and_its_clients_go_on_where_they_were(
    pool: Pool, sender: SenderProcess, module_processes: Processes
) -> None:
    token, heard = module_processes.token("bert"), pool.heard
    async with pool.clients_of_each(token) as clients:
        await complete(module_processes, sender, "bert-1", "bert")
        number, (client, *_) = clients.popitem()
        (had,) = await client.receive_events(1)
        os.kill(pool.pids[number], signal.SIGKILL)
        assert (await client.receive_close())[0] == 1006
    await complete(module_processes, sender, "bert-2", "bert")
    await await_until(lambda: pool.heard > heard, START_SECONDS)
    assert len(pool.pids) == WORKERS
    async with pool.clients_of_each(token):  # its successor sends hello, too
        pass
    async with connected(pool.gateway, token, query=f"after={had['channel']}=1.{had['seq']}") as back:
        assert [event["seq"] for event in await back.receive_events(1)] == [2]
    assert pool.deaths[-1]["reason"] == f"worker {number} was ended by SIGKILL"


@pytest.mark.long
def test_connections_in_the_queue_of_a_worker_that_dies_are_served_by_its_successor(pool: Pool) -> None:
    pid = max(pool.pids.values())
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: stopped(pid))  # it accepts no connections; every second one of these waits for it
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", pool.gateway.port)
        waiting = [stack.enter_context(socket.create_connection(address, START_SECONDS)) for _ in range(20)]
        # All ask at once: a connection that the other worker accepted is closed when it stays silent for five
        # seconds, and a successor may take longer to start.
        for client in waiting:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        os.kill(pid, signal.SIGKILL)
        for client in waiting:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.long
async def test_worker_that_drains_alone_has_a_successor_meanwhile(
    pool: Pool, module_processes: Processes
) -> None:
    deaths = len(pool.deaths)
    async with pool.clients_of_each(module_processes.token("carl"), 2) as clients:
        number = min(clients)
        drains, before = pool.pids[number], pool.heard
        os.kill(drains, signal.SIGTERM)
        assert {(await client.receive_close())[0] for client in clients[number]} == {1012}
    await await_until(lambda: pool.heard > before, START_SECONDS)
    await await_until(lambda: not running(drains))
    assert number not in pool.pids  # no successor took its number while it was still there
    assert len(pool.pids) == WORKERS
    assert len(pool.deaths) == deaths


@pytest.mark.long
async def test_any_worker_returns_the_metrics_of_all(pool: Pool, module_processes: Processes) -> None:
    await await_until(lambda: pool.figure_is("orderbell_connections{", 0))
    opened = await pool.figure("orderbell_connections_opened_total")
    async with pool.clients_of_each(module_processes.token("dora"), 2) as clients:
        count = sum(map(len, clients.values()))
        for _ in range(8):
            assert await pool.figure("orderbell_connections{") == count
            assert await pool.figure("orderbell_connections_opened_total") == opened + count
        # A dead worker's counts remain; its connections don't.
        number, lost = clients.popitem()
        os.kill(pool.pids[number], signal.SIGKILL)
        left = count - len(lost)
        await await_until(lambda: pool.figure_is("orderbell_connections{", left), START_SECONDS)
        assert await pool.figure("orderbell_connections_opened_total") == opened + count


# The end.


@pytest.mark.long
async def test_sigterm_drains_all_workers_exits_with_0_and_leaves_nothing(
    sender: SenderProcess, module_processes: Processes
) -> None:
    pool = start_pool(module_processes, drain_seconds="1")
    processes = descendants(pool.gateway.pid)
    directory = pool.directory
    assert os.listdir(directory)
    async with pool.clients_of_each(module_processes.token("erna"), 2) as clients:
        pool.gateway.process.terminate()
        for client in itertools.chain(*clients.values()):
            assert (await client.receive_close())[0] == 1012
            assert client.notices[-1]["type"] == "orderbell.bye"
        assert await asyncio.to_thread(pool.gateway.process.wait, START_SECONDS) == 0
    assert not pool.deaths
    assert not any(map(running, processes))
    assert not port_in_use("127.0.0.1", pool.gateway.port)
    assert not await asyncio.to_thread(directory.exists)


@pytest.mark.long
async def test_second_interrupt_skips_the_rest_of_the_drain(
    sender: SenderProcess, module_processes: Processes
) -> None:
    pool = start_pool(module_processes, drain_seconds="30")
    async with pool.clients_of_each(module_processes.token("fred"), 2):
        pool.gateway.process.send_signal(signal.SIGINT)
        await await_until(lambda: len(pool.gateway.records("draining")) == WORKERS)
        pool.gateway.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(pool.gateway.process.wait, START_SECONDS) == 0


@pytest.mark.long
def test_no_worker_outlives_a_supervisor_that_was_killed(
    sender: SenderProcess, module_processes: Processes
) -> None:
    pool = start_pool(module_processes, drain_seconds="0.2")
    pids, directory = pool.pids.values(), pool.directory
    assert len(pids) == WORKERS
    pool.gateway.kill()
    wait_until(lambda: not any(map(running, pids)))
    assert not directory.exists()


# How it starts, or doesn't.


class Unlucky(Supervisor):
    """At first no process can be started; then one ends at once; then one stays."""

    spawned = 0

    async def _spawn(self, number: int, listening: socket.socket) -> Worker:
        self.spawned += 1
        if self.spawned == 1:
            raise OSError("no process to be had")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(["false"] if self.spawned == 2 else ["sleep", "600"]),
                pass_fds=[theirs.fileno()],
                process_group=self._process_group,
            )
        return Worker(number, process, ours)


async def end_when_third_is_spawned(supervisor: Unlucky) -> int:
    running = asyncio.create_task(supervisor.run())
    await await_until(lambda: supervisor.spawned == 3 or running.done())
    os.kill(os.getpid(), signal.SIGTERM)
    return await asyncio.wait_for(running, 20)


@pytest.mark.long
def test_worker_that_cannot_start_is_tried_again_until_it_can(process_group: int, tmp_path: Path) -> None:
    sockets = listen_together("127.0.0.1", 0, 1)
    supervisor = Unlucky(sockets, process_group=process_group, directory=str(tmp_path), drain_seconds=0)
    with structlog.testing.capture_logs() as logs:
        assert asyncio.run(end_when_third_is_spawned(supervisor)) == 0
    told = [(log["event"], log["reason"], log["restart_in_seconds"]) for log in logs]
    assert told == [
        ("a worker died", "it can't be started: no process to be had", 0),
        ("a worker died", "worker 1 ended with exit code 1", 1),
    ]


class Hanging(Supervisor):
    """The first process reports once that it is alive; the others report regularly."""

    spawned = 0

    async def _spawn(self, number: int, listening: socket.socket) -> Worker:
        self.spawned += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        says = "printf .; sleep 600" if self.spawned == 1 else "while printf .; do sleep 0.1; done"
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", says), stdout=theirs.fileno(), process_group=self._process_group
            )
        return Worker(number, process, ours)


async def end_when_second_has_lived(supervisor: Hanging, seconds: float) -> int:
    running = asyncio.create_task(supervisor.run())
    await await_until(lambda: supervisor.spawned == 2 or running.done())
    await asyncio.sleep(seconds)
    os.kill(os.getpid(), signal.SIGTERM)
    return await asyncio.wait_for(running, 20)


def test_worker_that_hangs_is_replaced_and_one_that_does_not_is_not(
    process_group: int, tmp_path: Path
) -> None:
    supervisor = Hanging(
        listen_together("127.0.0.1", 0, 1),
        process_group=process_group,
        directory=str(tmp_path),
        drain_seconds=0,
        hang_seconds=1,
    )
    with structlog.testing.capture_logs() as logs:
        assert asyncio.run(end_when_second_has_lived(supervisor, 3)) == 0
    assert supervisor.spawned == 2
    assert [log["reason"] for log in logs] == ["worker 1 was ended by SIGKILL after it hung"]


@pytest.mark.long
async def test_stopped_worker_is_replaced(pool: Pool) -> None:
    heard, pid = pool.heard, max(pool.pids.values())
    os.kill(pid, signal.SIGSTOP)
    await await_until(lambda: pool.heard > heard, HANG_SECONDS + START_SECONDS)
    assert not running(pid)
    assert pool.deaths[-1]["reason"].endswith("was ended by SIGKILL after it hung")


@pytest.mark.parametrize("workers", ["0", "-1", "two", ""])
def test_number_of_workers_is_at_least_1(workers: str) -> None:
    done = CliRunner().invoke(main, ["--workers", workers])
    assert done.exit_code == 2
    assert "Error: Invalid value for '--workers'" in done.output


def test_port_in_use_is_reported_once(pool: Pool, module_processes: Processes) -> None:
    port = pool.gateway.port
    other = module_processes.start_receiver(port=port, workers=WORKERS, wait_ready=False)
    assert other.process.wait(START_SECONDS) == 2
    assert other.text() == f"orderbell: cannot listen on 127.0.0.1 port {port}: the port is in use\n"


def test_fault_of_the_settings_is_reported_once(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(workers=WORKERS, wait_ready=False, max_connections="0")
    assert gateway.process.wait(START_SECONDS) == 2
    (line,) = gateway.text().splitlines()
    assert line.startswith("orderbell: ORDERBELL_MAX_CONNECTIONS: ")


def test_successors_wait_longer_with_each_that_dies_at_once() -> None:
    back_off = BackOff()
    assert [back_off.after(0.5) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert back_off.after(LIVED_SECONDS) == 0
    assert back_off.after(0.5) == 1


def test_queue_is_kept_for_a_successor_unless_that_would_take_too_long() -> None:
    one, other = listen_together("127.0.0.1", 0, 2)
    address = one.getsockname()
    seat = Seat(one)
    with other:
        while seat.vacate(0) <= HOLD_SECONDS:
            assert seat.open() is one
        assert seat.closed
        with seat.open() as again:
            assert again.getsockname() == address
