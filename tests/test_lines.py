"""Lines to a pipe that is not read: nothing waits, lost lines are counted, and the process can end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from shared.process.lines import Lines
from tests.commands import spawn
from tests.processes import Processes, ServiceProcess
from tests.waiting import wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Command, Running

PAGE = 4096


@contextlib.contextmanager
def small_pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe that holds one page."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PAGE)
    try:
        yield reads, writes
    finally:
        for end in (reads, writes):
            with contextlib.suppress(OSError):
                os.close(end)


def note(count: int) -> str:
    return f"dropped {count}"


def test_nobody_waits_and_what_is_dropped_is_said_when_somebody_reads() -> None:
    counted: list[int] = []
    with small_pipe() as (reads, writes):
        lines = Lines(writes, note, max_lines=100)
        lines.dropped = counted.append
        for number in range(10_000):
            lines.write(f"{number:0100}")
        read = b""
        while not counted or b"dropped" not in read:
            read += os.read(reads, PAGE)
        lines.close()
    numbers = [int(line) for line in read.split(b"\n") if line and not line.startswith(b"d")]
    assert numbers[:100] == list(range(100))  # the oldest are kept, whole and in order
    assert numbers == sorted(set(numbers))
    assert sum(counted) == 10_000 - len(numbers)
    assert read.endswith(f"dropped {counted[-1]}\n".encode())


def test_bytes_that_wait_are_bounded_as_well() -> None:
    with small_pipe() as (reads, writes):
        lines = Lines(writes, note, max_bytes=100_000)
        for _ in range(100):
            lines.write("x" * 10_000)
        assert lines._bytes <= 100_000
        os.close(reads)  # the thread's write fails, and it ends
        lines.close()


def test_lines_are_written_whole_and_together_up_to_what_a_pipe_does_not_mix() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a packet for each write
    with ours, theirs:
        lines = Lines(theirs.fileno(), note)
        for number in range(300):
            lines.write(f"{number:099}")
        packets, count = [], 0
        while count < 300:
            packets.append(ours.recv(100_000))
            count += packets[-1].count(b"\n")
        lines.close()
    assert all(packet.endswith(b"\n") and len(packet) <= PAGE for packet in packets)
    assert [int(line) for line in b"".join(packets).splitlines()] == list(range(300))


def test_file_that_takes_nothing_more_is_survived() -> None:
    counted: list[int] = []
    reads, writes = os.pipe()
    lines = Lines(writes, note)
    lines.dropped = counted.append
    os.close(reads)
    lines.write("nobody reads this")
    wait_until(lambda: counted == [1])
    lines.close()
    os.close(writes)


PROGRAM = """
import logging, structlog, sys
from shared.process.logs import configure_logs
configure_logs("json", "INFO", "sender")
for n in range(5_000):
    structlog.get_logger("x").info("a line of some length", n=n)
    logging.getLogger("y").warning("another")
print("through", flush=True)
raise ValueError("the end")
"""


def test_process_ends_though_nobody_reads_and_leaves_the_file_as_it_was() -> None:
    with small_pipe() as (_, writes):
        flags = fcntl.fcntl(writes, fcntl.F_GETFL)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=writes, timeout=120, check=False
        )
        assert (done.stdout, done.returncode) == (b"through\n", 1)
        assert fcntl.fcntl(writes, fcntl.F_GETFL) == flags


class _ToPipe:
    """Starts services whose log is a pipe of one page."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __call__(self, command: Command) -> Running:
        reads, writes = os.pipe()
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PAGE)
        self.reads.append(reads)
        link = command.log.with_suffix(".pipe")
        link.symlink_to(f"/proc/{os.getpid()}/fd/{writes}")
        running = spawn(
            type(command)(
                command.module, command.arguments, command.environment, command.directory, link, command.group
            )
        )
        os.close(writes)
        return running


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.parametrize("service", ["sender", "receiver"])
async def test_service_whose_log_nobody_reads_serves_and_ends(
    service: str, redis_url: str, key_prefix: str, tmp_path: Any, process_group: int
) -> None:
    begin = _ToPipe()
    processes = Processes(redis_url, key_prefix, tmp_path, process_group)
    try:
        sender = processes.start_sender()
        processes._begin = begin
        running: ServiceProcess
        if service == "sender":
            running = processes.start_sender(log_level="DEBUG")
        else:
            running = processes.start_receiver(sender=sender)
            token = processes.token("alice")
            for _ in range(60):  # two lines each; a page holds some twenty
                async with connected(running, token):
                    pass
        async with httpx2.AsyncClient(base_url=running.url, trust_env=False, timeout=10) as client:
            for _ in range(30):
                await client.post("/tickets", headers={"authorization": "Bearer x", "origin": "http://x"})
                assert (await client.get("/livez")).status_code == 200
            if service == "receiver":
                assert (await client.get("/readyz")).json()["ready"] is True
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 30) == 0
        text = os.read(begin.reads[0], PAGE).decode()
        assert json.loads(text.splitlines()[0])["event"]
    finally:
        processes.end()
        for end in begin.reads:
            os.close(end)
