"""Sender and gateways as real processes on free ports, with settings of the test's own.

    def test_…(processes: Processes) -> None:
        sender = processes.start_sender()
        gateway = processes.start_receiver()      # of the sender started last
        httpx2.post(f"{sender.url}/orders", headers=processes.api_headers, json=…)
        token = processes.token("alice", topics=["menu"])

Settings are given without their prefix: `start_sender(history_days="1")`. What processes log is shown when
the test fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import secrets
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from shared.commands.embedded import free_port
from shared.settings import PREFIX
from shared.tokens import mint_token
from tests import commands, sqlite_databases
from tests.commands import Command, Running, fork
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = commands.REPOSITORY
READY_SECONDS = 60.0  # two cores shared by a whole test run
# Runs; was asked to end; has a wrong setting of a test's; was killed by a test.
_USUAL_ENDS = (None, 0, 2, -signal.SIGTERM, -signal.SIGKILL)
Begin = Callable[[Command], Running]


class ServiceProcess:
    """`python -m sender` or `python -m receiver`. Killed and started again it keeps port and settings."""

    def __init__(
        self,
        service: str,
        port: int,
        environment: dict[str, str],
        log: Path,
        group: int,
        *,
        arguments: tuple[str, ...] = (),
        without: str | None = None,
        begin: Begin = fork,
        source: Path = REPOSITORY,
    ) -> None:
        self.service = service
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        module, arguments = service, (*arguments, "--port", str(port))
        if without is not None:  # a safeguard to switch off (tests/chaos/without)
            module, arguments = "tests.chaos.without", (without, service, *arguments)
        self._command = Command(module, arguments, environment, source, log, group)
        self._begin = begin
        self._process: Running | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its next start, which a test may change."""
        return self._command.environment

    def run_from(self, source: Path) -> None:
        """Run another version of Orderbell from its next start on; it must be spawned, not forked."""
        self._command = dataclasses.replace(self._command, directory=source)

    def start(self, *, wait_ready: bool = True) -> None:
        self._process = self._begin(self._command)
        if wait_ready:
            self.wait_ready()

    @property
    def process(self) -> Running:
        assert self._process is not None, f"{self.service} was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def crashed(self) -> bool:
        """Whether it ended although neither asked to nor given a fault by a test."""
        return self._process is not None and self._process.poll() not in _USUAL_ENDS

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Raises `AssertionError` with its log where it ends before."""
        wait_until(lambda: self.process.poll() is not None or self.answers("/readyz"), timeout)
        assert self.process.poll() is None, f"{self.service} ended with {self.process.poll()}:\n{self.text()}"

    def answers(self, path: str) -> bool:
        """Whether it answers 200."""
        # Without httpx2, which took a third of the processor time when asking every 10 ms while a service
        # starts.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            return connection.getresponse().status == 200
        return False

    def kill(self) -> None:
        """As by `kill -9`; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout: float = 15) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def stop(self) -> None:
        """Freeze it."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def text(self) -> str:
        """Everything it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log lines, parsed; with `event`, those alone."""
        records = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [r for r in records if event is None or r.get("event") == event]


class SenderProcess(ServiceProcess):
    pass


class ReceiverProcess(ServiceProcess):
    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/events"


class Processes:
    """All processes of one test: one key prefix, one SQLite file, one secret, one API key."""

    def __init__(
        self,
        redis_url: str,
        key_prefix: str,
        directory: Path,
        group: int,
        *,
        begin: Begin = fork,
        source: Path = REPOSITORY,
    ) -> None:
        """`source` is where Orderbell is run from; another version of it must be spawned."""
        self.redis_url = redis_url
        self.key_prefix = key_prefix
        # Earlier versions know no other spelling.
        scheme = "sqlite" if source == REPOSITORY else "sqlite+aiosqlite"
        self.database_url = f"{scheme}:///{directory / 'orderbell.db'}"
        if source == REPOSITORY:
            sqlite_databases.prepare(self.database_url)
        self.api_key = secrets.token_hex(16)
        self.jwt_secret = secrets.token_hex(32)
        self.api_headers = {"Authorization": f"Bearer {self.api_key}"}
        self.all: list[ServiceProcess] = []
        self._directory = directory
        self._group = group
        self._begin = begin
        self._source = source

    def start_sender(
        self,
        *,
        port: int | None = None,
        wait_ready: bool = True,
        without: str | None = None,
        **settings: str,
    ) -> SenderProcess:
        environment = self._environment({"database_url": self.database_url, **settings})
        log = self._log("sender")
        port = port or free_port()
        sender = SenderProcess(
            "sender",
            port,
            environment,
            log,
            self._group,
            without=without,
            begin=self._begin,
            source=self._source,
        )
        self.all.append(sender)
        sender.start(wait_ready=wait_ready)
        return sender

    def start_receiver(
        self,
        *,
        sender: SenderProcess | None = None,
        port: int | None = None,
        workers: int = 1,
        wait_ready: bool = True,
        without: str | None = None,
        **settings: str,
    ) -> ReceiverProcess:
        """A gateway of this sender, or of the one started last. Of several workers, one is ready."""
        defaults = {"jwt_secret": self.jwt_secret, "drain_seconds": "0.2"}
        if sender := sender or self._last_sender():
            defaults["sender_url"] = sender.url
        environment = self._environment({**defaults, **settings})
        port = port or free_port()
        log = self._log("receiver")
        arguments = ("--workers", str(workers)) if workers > 1 else ()
        gateway = ReceiverProcess(
            "receiver",
            port,
            environment,
            log,
            self._group,
            arguments=arguments,
            without=without,
            begin=self._begin,
            source=self._source,
        )
        self.all.append(gateway)
        gateway.start(wait_ready=wait_ready)
        return gateway

    def token(self, customer: str, *, topics: list[str] | None = None, lifetime_seconds: float = 600) -> str:
        return mint_token(
            SecretStr(self.jwt_secret),
            customer,
            audience="orderbell",
            topics=topics or [],
            lifetime_seconds=lifetime_seconds,
        )

    def restart_crashed(self) -> list[ServiceProcess]:
        """Start services again that ended by themselves with a failure; returns them."""
        crashed = [process for process in self.all if process.crashed]
        for process in crashed:
            process.start()
        return crashed

    def end(self) -> str:
        """Kill whatever still runs; returns what all have logged."""
        for process in self.all:
            process.kill()
        return "\n".join(f"--- {process.log.name}, {process.url}\n{process.text()}" for process in self.all)

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        common = {"redis_url": self.redis_url, "key_prefix": self.key_prefix, "api_keys": self.api_key}
        ours = {PREFIX + name.upper(): value for name, value in {**common, **settings}.items()}
        return clean_environment() | ours

    def _log(self, service: str) -> Path:
        number = sum(process.service == service for process in self.all) + 1
        return self._directory / f"{service}-{number}.log"

    def _last_sender(self) -> SenderProcess | None:
        return next((p for p in reversed(self.all) if isinstance(p, SenderProcess)), None)


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of Orderbell."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
