"""A client of any transport, as the suite sees it. Each transport has a driver beside this file.

A new transport is a driver here and a line in `DRIVERS` (tests/conformance/conftest.py).
"""

from __future__ import annotations

import abc
import asyncio
import socket
from typing import TYPE_CHECKING, Any, ClassVar

from receiver.connections.connection import End
from shared.cursors import Cursor, Place, format_cursors

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from shared.channels import Channel
    from tests.processes import ReceiverProcess

TIMEOUT_SECONDS = 20.0  # on a machine that runs several tests side by side


class Ended(Exception):
    """The gateway has ended the connection."""


_KINDS = {"draining": End.RESTART, "overloaded": End.TRY_AGAIN_LATER, "unavailable": End.TRY_AGAIN_LATER}


def end_of(problem: dict[str, Any]) -> End:
    """What the problem of a refused request means for a connection.

    408 and 503 ask for the same again: a request may have come too slowly.
    """
    if problem["status"] == 408:
        return End.TRY_AGAIN_LATER
    kind = str(problem["type"]).rpartition(":")[2]
    return _KINDS.get(kind) or End(kind)


class Client(abc.ABC):
    """`events` are those with a place; `notices` are the gateway's own, each with its type, hello first."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []

    @abc.abstractmethod
    async def receive(self) -> None:
        """Take what comes next by `take`. Raises `Ended`."""

    @abc.abstractmethod
    async def report_seen(self, cursor: str) -> None: ...

    async def report_seen_alone(self, cursor: str) -> None:
        """That event, and none before it."""
        place, _, seq = cursor.rpartition(".")
        await self.report_seen(f"{place}.0+{seq}")

    @abc.abstractmethod
    def end(self) -> End | None:
        """The reason that the gateway gave for ending the connection; None if it gave none."""

    def take(self, message: dict[str, Any]) -> None:
        (self.events if "seq" in message else self.notices).append(message)

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    def seqs_of(self, channel: str) -> list[int]:
        return [event["seq"] for event in self.events if event["channel"] == channel]

    @property
    def cursor(self) -> str:
        """Where a client that comes back continues: after the hello, a reset or the last event it had."""
        places: dict[Channel, Place] = {}
        for event in self.events:
            places[event["channel"]] = Place(event["epoch"], event["seq"])
        return format_cursors(Cursor(channel, place) for channel, place in places.items())

    def noticed(self, kind: str) -> list[dict[str, Any]]:
        """The data of the notices of one type."""
        return [notice["data"] for notice in self.notices if notice["type"] == f"orderbell.{kind}"]

    async def receive_events(self, count: int) -> None:
        """Receive until it has so many events in all. Raises `Ended` and `TimeoutError`."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len(self.events) < count:
                await self.receive()

    async def receive_notice(self, kind: str) -> dict[str, Any]:
        """Receive until it has one; returns its data. Raises `Ended` and `TimeoutError`."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not self.noticed(kind):
                await self.receive()
        return dict(self.noticed(kind)[-1])

    async def receive_end(self) -> End | None:
        """Receive until the connection is over. Raises `TimeoutError`."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                try:
                    await self.receive()
                except Ended:
                    return self.end()


def socket_to(gateway: ReceiverProcess, *, buffered: bool) -> socket.socket:
    """Connected. Without `buffered`, the client's machine takes little that the client does not receive."""
    sock = socket.socket()
    if not buffered:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", gateway.port))
    return sock


class Driver(abc.ABC):
    name: ClassVar[str]  # as in metrics and log lines

    @abc.abstractmethod
    def connected(
        self,
        gateway: ReceiverProcess,
        token: str | None,
        *,
        after: str = "",
        greeted: bool = True,
        buffered: bool = True,
    ) -> AbstractAsyncContextManager[Client]:
        """With `greeted`, the hello has come when this begins. `buffered`: see `socket_to`."""

    @abc.abstractmethod
    def code(self, end: End) -> str:
        """How metrics name that end of this transport."""
