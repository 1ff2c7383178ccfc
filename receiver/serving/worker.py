"""A worker: one of several gateways that share a port. Only receiver/serving/supervisor.py starts it.

    python -m receiver.serving.worker <number> <listening socket> <socket to the supervisor> <log level>

It differs from a single gateway in three ways: its name and its log lines carry its number; its counts are
kept in files that all workers read; and it reports to the supervisor that it is alive, and when it accepts no
more connections.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys

import structlog
from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from shared.settings import ReceiverSettings, load

ALIVE = b"."
LEAVING = b"L"


class Line:
    """Reports to the supervisor, a byte each. Never waits."""

    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        supervisor.setblocking(False)

    def alive(self) -> None:
        self._send(ALIVE)

    def leaving(self) -> None:
        self._send(LEAVING)

    def _send(self, what: bytes) -> None:
        try:
            self._supervisor.send(what)
        except BlockingIOError:
            pass  # the supervisor is suspended, and will find enough reports when it continues
        except (BrokenPipeError, ConnectionResetError):
            # The supervisor was killed, so we end, too, and tidy up in its place.
            shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def main(number: int, listening: socket.socket, supervisor: socket.socket, level: str) -> None:
    _count_as(number)
    # Imported only now, because importing receiver.metrics makes the counters.
    from receiver.serving.process import name_of, run
    from receiver.serving.processes import Processes

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # registers itself
    registry.register(Processes(os.getppid()))
    structlog.contextvars.bind_contextvars(worker=number)
    name = f"{name_of(listening)}/{number}"
    run(
        load(ReceiverSettings),
        listening,
        name=name,
        registry=registry,
        watcher=Line(supervisor),
        level=level,
    )


def _count_as(number: int) -> None:
    """Name this worker's files by its number, not by its process id.

    The next worker with this number continues its counts, and there are never more files than workers,
    however often one dies.
    """
    values.ValueClass = MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    ours, listening_fd, supervisor_fd = map(int, sys.argv[1:4])
    main(ours, socket.socket(fileno=listening_fd), socket.socket(fileno=supervisor_fd), sys.argv[4])
