"""The contenders: each is some gateways on their own Redis, and a way to publish to them.

Customers are numbered; a connection belongs to one customer. An event goes to one customer or to all. Its
`n` counts per customer, or for all, and lets the load generator see what is missing or out of order.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import hiredis

from bench import orders
from bench.caller import Caller, callers
from bench.load import line
from bench.stack import KEY_PREFIX, Server, running_redis, running_stack, start_server
from shared.channels import Channel, customer_channel, topic_channel
from shared.commands.embedded import free_port
from shared.redis import channel_log as log
from shared.redis.keys import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AsyncExitStack

    from bench.run import Run
    from bench.stack import Stack

TO_ALL = "all"


class Event(NamedTuple):
    customer: int | None  # None: to all
    n: int


class Contender(Protocol):
    name: str
    engineio: bool  # its clients speak Socket.IO
    connects_at_once: int
    gateways: list[Server]

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        """Everything that is needed; `stack` ends it."""

    @property
    def gateway_pids(self) -> list[int]: ...

    @property
    def redis_pid(self) -> int: ...

    def connection(self, customer: int, gateway: int) -> str:
        """A line for the load generator."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish as the contender is meant to be used. Returns when they are on their way, in order."""

    async def publish_to_redis(self, events: Sequence[Event]) -> None:
        """Publish directly into Redis. A run of events goes entirely this way or the other."""


class Orderbell:
    """The real way: POST /events, commit, relay, Redis, gateway. Tokens, places and limits as always."""

    name = "Orderbell"
    engineio = False
    connects_at_once = 256
    live_keys = ""
    environment: Mapping[str, str] = {}  # further variables of its services
    gateway_module = "receiver"

    def __init__(self) -> None:
        self.stack: Stack
        self.gateways: list[Server]
        self._caller: Caller

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        self.stack = stack.enter_context(
            running_stack(
                run.redis_binary,
                run.new_directory("orderbell"),
                run.group,
                gateways=gateways,
                live_keys=self.live_keys,
                environment=self.environment,
                gateway_module=self.gateway_module,
            )
        )
        self.gateways = [server for server in self.stack.servers if server is not self.stack.sender]
        (self._caller,) = await stack.enter_async_context(callers(self.stack.sender.port, 1))
        self._redis = stack.enter_context(RedisPublisher(self.stack.redis.port))

    @property
    def gateway_pids(self) -> list[int]:
        return [gateway.pid for gateway in self.gateways]

    @property
    def redis_pid(self) -> int:
        return _pid(self.stack.redis.process)

    def connection(self, customer: int, gateway: int, *, after: str = "") -> str:
        headers = [
            "Sec-WebSocket-Protocol: cloudevents.json",
            f"Authorization: Bearer {self.stack.token(f'customer-{customer}', [TO_ALL])}",
        ]
        target = f"/events?after={after}" if after else "/events"
        return line(self.gateways[gateway].port, target, headers, ready=1)

    async def publish(self, events: Sequence[Event]) -> None:
        answer = await self._caller.call(orders.batch(self.stack, map(_cloud_event, events)))
        if answer.status != 202 or b'"refused"' in answer.body:
            raise orders.OrderRefused(f"{answer.status} {answer.body[:500].decode(errors='replace')}")

    async def publish_to_redis(self, events: Sequence[Event]) -> None:
        """As the relay does, with its script, but without what the relay costs."""
        self._redis.publish_in_order(events, lambda event: Names(KEY_PREFIX).live(_channel(event)))


class SignedOrderbell(Orderbell):
    """With ORDERBELL_LIVE_KEYS. Only for what a sender publishes: it signs."""

    name = "Orderbell, signed"
    live_keys = f"bench:{'0123456789abcdef' * 4}"


class Floor:
    """native/floor.c

    What comes before it is what comes before Orderbell's gateway: its events, too, are published by the
    relay's script, so that Redis takes the same time from processor and caches in both, and sends at the same
    pace. With a bare PUBLISH, the gateway's own costs could not be distinguished from the script's.
    """

    name = "floor: C, one send() a delivery"
    engineio = False
    connects_at_once = 256

    def __init__(self) -> None:
        self.gateways: list[Server] = []
        self._redis: RedisPublisher

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        directory = run.new_directory("floor")
        directory.mkdir()
        redis = stack.enter_context(running_redis(run.redis_binary, directory, run.group))
        self.redis_pid = _pid(redis.process)
        self._redis = stack.enter_context(RedisPublisher(redis.port))
        for _ in range(gateways):
            port = free_port()
            command = [str(run.binaries / "floor"), str(port), str(redis.port)]
            server = start_server("floor", command, port, {}, directory, run.group, cwd=directory)
            stack.callback(server.end)
            server.wait_ready(None)
            self.gateways.append(server)

    redis_pid = 0

    @property
    def gateway_pids(self) -> list[int]:
        return [gateway.pid for gateway in self.gateways]

    def connection(self, customer: int, gateway: int) -> str:
        return line(self.gateways[gateway].port, f"/customer-{customer}")

    async def publish(self, events: Sequence[Event]) -> None:
        self._redis.publish_in_order(events, _floor_channel)

    async def publish_to_redis(self, events: Sequence[Event]) -> None:
        await self.publish(events)


class RedisPublisher:
    """Publishes many messages in one write, over a socket of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._script: object = None

    def __enter__(self) -> RedisPublisher:
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._reader = hiredis.Reader()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self.call([("PUBLISH", channel, text) for channel, text in messages])

    def publish_in_order(self, events: Sequence[Event], live: Callable[[Event], str]) -> None:
        """With the relay's script: each event is the next one of its channel, appended and published."""
        if self._script is None:
            (self._script,) = self.call([("SCRIPT", "LOAD", log.PUBLISH.text)])
        replies = self.call([self._publish_command(event, live(event)) for event in events])
        if any(isinstance(reply, list) and reply[0] != b"OK" for reply in replies):
            raise orders.OrderRefused(f"Redis answered {replies}")

    def _publish_command(self, event: Event, live: str) -> tuple[str | bytes | int, ...]:
        assert isinstance(self._script, bytes)
        channel, names = _channel(event), Names(KEY_PREFIX)
        keys = (names.log(channel), names.head(channel))
        limits = (log.LOG_LENGTH, log.LOG_SECONDS, log.HEAD_SECONDS)
        entry = (event.n, payload(event), "")  # unsigned, as without ORDERBELL_LIVE_KEYS
        return ("EVALSHA", self._script, 2, *keys, 1, *limits, live, "refuse", *entry)

    def call(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[object]:
        """Their replies. Raises the first that is an error."""
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type] # any length
        self._socket.sendall(b"".join(packed))
        replies: list[object] = []
        while len(replies) < len(commands):
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._socket.recv(65536))
            if isinstance(reply, Exception):
                raise reply
            replies.append(reply)
        return replies


def payload(event: Event) -> bytes:
    """An event of the same form and size as Orderbell's."""
    return json.dumps(content(event), separators=(",", ":")).encode()


def content(event: Event) -> dict[str, Any]:
    return {
        **orders.event(_channel(event), n=event.n, sent=time.monotonic_ns()),
        "time": "2026-11-23T14:25:00.123Z",
        "datacontenttype": "application/json",
        "epoch": 1,
        "seq": event.n,
    }


def _cloud_event(event: Event) -> dict[str, Any]:
    return orders.event(_channel(event), n=event.n, sent=time.monotonic_ns())


def _channel(event: Event) -> Channel:
    return topic_channel(TO_ALL) if event.customer is None else customer_channel(f"customer-{event.customer}")


def _floor_channel(event: Event) -> str:
    return TO_ALL if event.customer is None else f"one:customer-{event.customer}"


def _pid(process: Any) -> int:
    assert process is not None
    return int(process.pid)


# The floor comes first, because the others are compared with it.
OURS: tuple[type[Contender], ...] = (Floor, Orderbell)
