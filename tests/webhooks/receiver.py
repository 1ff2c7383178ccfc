"""A shop's server that receives webhooks: a real one, which answers what a test wants."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from collections import deque
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from standardwebhooks import Webhook

from sender import lives, trace
from sender.webhooks import courier, search
from sender.webhooks.courier import Target
from sender.webhooks.message import Kind
from sender.webhooks.parts import webhooks_to
from shared.webhook_secrets import parse_webhook_secret
from tests.senders import Clock, run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sender.database.protocol import Database
    from sender.webhooks.parts import Webhooks
    from tests.senders import RunningSender

SECRET = f"whsec_{base64.b64encode(b'a secret for tests, of 32 bytes!').decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(b'another one, of 29 bytes: new').decode()}"
SENDING = courier.Pace(
    poll=0.02, answer=20, again=(0.02, 0.04), pause=0.01, max_pause=0.05, gone=0.5, lease_slack=0.1
)
IMPATIENT = dataclasses.replace(SENDING, answer=0.3)  # where an answer has to be late
SEARCHING = search.Pace(most_seconds=0.02)


class LivingClock(Clock):
    """The time of day; a test may move it ahead."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC))
        self._begun = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now + (datetime.now(UTC) - self._begun)


class Message(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float  # seconds, of when it came

    def verified(self, secret: str = SECRET) -> Any:
        """Its content, once the signature has been verified by the library that receivers use."""
        return Webhook(secret).verify(self.body, self.headers)

    @property
    def event(self) -> Any:
        return msgspec.json.decode(self.body)


class Answer(NamedTuple):
    status: int = 200
    headers: tuple[str, ...] = ()
    seconds: float = 0.0  # before it
    body: bytes = b"ok"
    promised: int | None = None  # bytes of the body, if not what is sent


@dataclass
class Receiver:
    port: int = 0
    usual: Answer = field(default_factory=Answer)
    next: deque[Answer] = field(default_factory=deque)  # before the usual one
    got: list[Message] = field(default_factory=list)
    answering: int = 0  # requests at this moment
    most_at_once: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts?shop=1"

    @property
    def types(self) -> list[str]:
        return [message.event["type"] for message in self.got]

    @property
    def ids(self) -> list[str]:
        return [message.headers["webhook-id"] for message in self.got]

    async def wait(self, count: int) -> list[Message]:
        await await_until(lambda: len(self.got) >= count)
        return self.got

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """At the same port each time."""
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    while True:
                        await self._serve_one(reader, writer)
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for connection in list(connections):
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await server.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append(Message(head[0].split(" ")[1], headers, body, time.monotonic()))
        with self._counted():
            answer = self.next.popleft() if self.next else self.usual
            await asyncio.sleep(answer.seconds)
        length = len(answer.body) if answer.promised is None else answer.promised
        lines = [f"HTTP/1.1 {answer.status} Whatever", *answer.headers, f"content-length: {length}", "", ""]
        writer.write("\r\n".join(lines).encode() + answer.body)
        await writer.drain()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.answering += 1
        self.most_at_once = max(self.most_at_once, self.answering)
        try:
            yield
        finally:
            self.answering -= 1


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with receiver.listening():
        yield receiver


@asynccontextmanager
async def run_reporting(
    receiver: Receiver,
    database_url: str,
    redis_url: str,
    key_prefix: str,
    *,
    secrets: tuple[str, ...] = (SECRET,),
    kinds: frozenset[Kind] = frozenset({Kind.SHOWN, Kind.READ}),
    not_shown_seconds: float = 0.2,
    sending: courier.Pace = SENDING,
    clock: Clock | None = None,
) -> AsyncIterator[RunningSender]:
    """A sender that reports to the receiver."""
    keys = tuple(map(parse_webhook_secret, secrets))
    target = Target(receiver.url, keys, kinds, not_shown_seconds)

    def webhook(database: Database, clock: Clock) -> Webhooks:
        return webhooks_to(target, database, clock, sending=sending, searching=SEARCHING)

    async with run_sender(
        database_url,
        redis_url,
        key_prefix,
        relaying=False,
        clock=clock or LivingClock(),
        webhook=webhook,
    ) as sender:
        yield sender


async def alert(sender: RunningSender, order_id: str, customer_id: str = "alice") -> None:
    await sender.place(order_id, customer_id)
    answer = await sender.complete(order_id)
    assert answer.status_code == 200, answer.text


async def report(sender: RunningSender, *cursors: str) -> None:
    answer = await sender.client.post("/seen", json={"cursors": list(cursors)})
    assert answer.status_code == 200, answer.text


async def read(sender: RunningSender, *cursors: str) -> None:
    answer = await sender.client.post("/read", json={"cursors": list(cursors)})
    assert answer.status_code == 200, answer.text


async def traced(sender: RunningSender, order_id: str) -> Any:
    """The webhooks of an order's alert, and the sentences about them."""
    # What `GET /trace` does, without the second that it gives gateways to answer.
    work = partial(lives.of_order, order_id=order_id, now=sender.clock())
    (life,) = (await sender.database.read(work)).lives
    findings = trace.explain(life, trace.Relaying(redis_up=True, contested=False), trace.Known([])).findings
    return msgspec.to_builtins(life.webhooks), [line for line in findings if "webhook" in line]
