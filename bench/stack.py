"""Orderbell on loopback as a user would start it: Redis, sender and gateways, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from shared.commands.embedded import EmbeddedServer, free_port
from shared.settings import PREFIX
from shared.tokens import mint_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

READY_SECONDS = 30.0
END_SECONDS = 10.0
TOKEN_SECONDS = 6 * 3600.0
KEY_PREFIX = "bench"
REPOSITORY = Path(__file__).parent.parent


class NotReady(Exception):
    """A process that ended or stayed silent instead of getting ready; the message has its last lines."""


@dataclass
class Server:
    """One process that listens. It is ended by its id."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def pids(self) -> list[int]:
        """With those of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [self.pid, *map(int, children.split())]

    def wait_ready(self, path: str | None) -> None:
        """Until it answers `path` with 200; without one, until it listens. Raises `NotReady`."""
        deadline = time.monotonic() + READY_SECONDS
        while not (_listens(self.port) if path is None else _answers(self.port, path)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text(encoding="utf-8", errors="replace")
                raise NotReady(f"{self.name} is not ready:\n{text[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Gently; a process that does not follow is killed."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
        self.kill()


@dataclass
class Stack:
    """One sender with its database, and any number of gateways, on a Redis of their own."""

    redis: EmbeddedServer
    directory: Path
    group: int  # process group that ends with us, see shared/process/guard.py
    database_url: str = ""
    api_key: str = field(default_factory=lambda: secrets.token_hex(16))
    jwt_secret: str = field(default_factory=lambda: secrets.token_hex(32))
    servers: list[Server] = field(default_factory=list)
    source: Path = REPOSITORY  # of the version that is measured
    live_keys: str = ""  # what Redis carries is signed with them
    environment: Mapping[str, str] = field(default_factory=dict)  # further variables, of all services
    gateway_module: str = "receiver"

    def start_sender(self, **settings: str) -> Server:
        url = self.database_url or f"sqlite:///{self.directory / 'orderbell.db'}"
        self.sender = self._start("sender", {"database_url": url, **settings})
        return self.sender

    @contextlib.contextmanager
    def running_sender(self, **settings: str) -> Iterator[Server]:
        """For a while; another may follow."""
        sender = self.start_sender(**settings)
        try:
            yield sender
        finally:
            sender.end()
            self.servers.remove(sender)

    def start_gateway(self, workers: int = 1, **settings: str) -> Server:
        return self._start(
            self.gateway_module,
            {
                "jwt_secret": self.jwt_secret,
                "sender_url": f"http://127.0.0.1:{self.sender.port}",
                "drain_seconds": "0",
                "max_connections": "20000",
                **settings,
            },
            *(["--workers", str(workers)] if workers > 1 else []),
        )

    def token(self, customer: str, topics: Sequence[str] = ()) -> str:
        return mint_token(
            SecretStr(self.jwt_secret),
            customer,
            audience="orderbell",
            topics=topics,
            lifetime_seconds=TOKEN_SECONDS,
        )

    def _start(self, service: str, settings: dict[str, str], *options: str) -> Server:
        port = free_port()
        common = {
            "redis_url": self.redis.url,
            "api_keys": self.api_key,
            "key_prefix": KEY_PREFIX,
            "log_level": "WARNING",
            **({"live_keys": self.live_keys} if self.live_keys else {}),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {PREFIX + name.upper(): value for name, value in (common | settings).items()}
        environment |= self.environment
        command = [sys.executable, "-m", service, "--port", str(port), *options]
        server = start_server(
            service, command, port, environment, self.directory, self.group, cwd=self.source
        )
        self.servers.append(server)
        server.wait_ready("/readyz")
        return server


def start_server(
    name: str,
    command: Sequence[str | Path],
    port: int,
    environment: dict[str, str],
    directory: Path,
    group: int,
    *,
    cwd: Path,
) -> Server:
    """The caller waits until it is ready, and ends it."""
    log = directory / f"{name}-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=group,
        )
    return Server(name, port, process, log)


@contextlib.contextmanager
def running_redis(binary: Path, directory: Path, group: int) -> Iterator[EmbeddedServer]:
    redis = EmbeddedServer(binary, directory, process_group=group)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


@contextlib.contextmanager
def running_stack(
    redis_binary: Path,
    directory: Path,
    group: int,
    *,
    gateways: int,
    database_url: str = "",
    source: Path = REPOSITORY,
    live_keys: str = "",
    environment: Mapping[str, str] | None = None,
    gateway_module: str = "receiver",
) -> Iterator[Stack]:
    """A fresh one; all its processes end with the block."""
    directory.mkdir(parents=True)
    with running_redis(redis_binary, directory, group) as redis:
        stack = Stack(
            redis,
            directory,
            group,
            database_url,
            source=source,
            live_keys=live_keys,
            environment=environment or {},
            gateway_module=gateway_module,
        )
        try:
            stack.start_sender()
            for _ in range(gateways):
                stack.start_gateway()
            yield stack
        finally:
            for server in reversed(stack.servers):
                server.end()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers(port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request.encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
