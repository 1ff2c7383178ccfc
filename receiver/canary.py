"""The canary: an event that a gateway sends to itself over the whole way of an alert, measured as a metric.

Every `ORDERBELL_CANARY_SECONDS` the gateway posts an event to the sender, in a topic that no token names, and
waits for it where a browser's events arrive: HTTP, database, relay, Redis, subscription, feed. A gateway that
passes a balancer's health check may still deliver nothing; the canary notices.

One event at a time; an event that does not come in time has failed, even if it comes later.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import msgspec
import structlog

from receiver import metrics
from receiver.connections.connection import Connection, End, Ending
from shared.channels import topic_channel

if TYPE_CHECKING:
    from receiver.connections.notices import Notice
    from receiver.feeds.keeper import Keeper
    from shared.channels import Channel
    from shared.cursors import Place

SOURCE = "/orderbell/canary"
TYPE = "canary"

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    """Seconds."""

    every: float
    wait: float = 10.0  # for an event to come
    retry: float = 1.0  # if not even the subscription succeeded


class _Event(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Event).decode


class Perch(Connection):
    """Where the canary's events arrive: a connection without a client."""

    __slots__ = ("_awaited", "_come")

    transport = "canary"

    def __init__(self) -> None:
        super().__init__()
        self.ending = Ending("canary", "")
        self._awaited = ""
        self._come = asyncio.Event()

    def expect(self, event_id: str) -> None:
        self._awaited = event_id
        self._come.clear()

    async def wait(self) -> None:
        """Wait for the expected event. Raises `ConnectionError` once none can come any more."""
        await self._come.wait()
        if self.closed:
            raise ConnectionError(self.ending.reason)

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        try:
            event = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # not ours: without ORDERBELL_LIVE_KEYS, any program that writes to Redis can publish here
        if event.id == self._awaited:
            self._come.set()

    def notify(self, notice: Notice) -> None:
        """Ignored: an event lost to a reset counts as late, and that is what is measured."""

    def beat(self, now: float) -> None:
        """Does nothing: there is no client that could be silent."""

    def end(self, end: End, reason: str) -> None:
        self.closed = True
        self.ending = Ending(end.value, reason)
        self._come.set()

    async def wait_writable(self) -> None:
        """Returns at once: this is always writable."""


class Canary:
    def __init__(self, keeper: Keeper, sender: httpx2.AsyncClient, gateway: str, pace: Pace) -> None:
        self._keeper = keeper
        self._sender = sender
        self._channel = topic_channel(f"canary {gateway}"[:128])
        self._pace = pace
        self._well: bool | None = None  # as it was last logged

    async def run(self) -> None:
        while True:
            perch = Perch()
            self._keeper.enter(perch, [self._channel])
            try:
                starts = await self._keeper.starts(perch, {})
                if starts is not None:
                    await self._keeper.bring_in(perch, starts)
                while not perch.closed:
                    await self._sing(perch)
                    await asyncio.sleep(self._pace.every)
            finally:
                self._keeper.leave(perch)
            self._note(fault=perch.ending.reason)
            await asyncio.sleep(self._pace.retry)

    async def _sing(self, perch: Perch) -> None:
        started = asyncio.get_running_loop().time()
        event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": SOURCE, "type": TYPE}
        perch.expect(event["id"])
        try:
            async with asyncio.timeout(self._pace.wait):
                answer = await self._sender.post(
                    "/events",
                    content=msgspec.json.encode(event | {"channel": self._channel}),
                    headers={"content-type": "application/cloudevents+json"},
                )
                if answer.status_code != 202:
                    self._note(fault=f"the sender answers {answer.status_code}")
                    return
                await perch.wait()
        except TimeoutError:
            self._note(fault=f"not heard within {self._pace.wait:g} s")
        except (httpx2.HTTPError, OSError) as error:
            self._note(fault=str(error) or type(error).__name__)
        else:
            metrics.canary.observe(asyncio.get_running_loop().time() - started)
            self._note(fault="")

    def _note(self, *, fault: str) -> None:
        """Count, and log a change."""
        if fault:
            metrics.canary_failures.inc()
        if self._well is not (not fault):
            self._well = not fault
            if fault:
                logger.warning("the canary was not heard", reason=fault)
            else:
                logger.info("the canary is heard")
