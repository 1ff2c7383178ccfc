"""The attacks of `make bench-abuse`: what the clients of bench/attackers.py are to send, and where."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from bench import orders
from bench.caller import callers
from bench.contenders import Orderbell, RedisPublisher
from bench.stack import REPOSITORY, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AsyncExitStack

    from bench.caller import Caller
    from bench.contenders import Contender
    from bench.run import Run

GOOD = 1_000  # clients
_IDENTITIES = 100  # the attackers' customers
RESUMING = 10
_CALLERS = 17  # as many shops' threads: one that waits for its answer does not hold up the others' events


class Target(Orderbell):
    """A gateway that gives its clients two seconds at its end."""

    source = REPOSITORY

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        directory = run.new_directory("orderbell")
        # Earlier versions know no other spelling.
        url = f"sqlite+aiosqlite:///{directory / 'orderbell.db'}"
        self.stack = stack.enter_context(
            running_stack(
                run.redis_binary, directory, run.group, gateways=0, database_url=url, source=self.source
            )
        )
        self.gateways = [self.stack.start_gateway(drain_seconds="2") for _ in range(gateways)]
        connected = await stack.enter_async_context(callers(self.stack.sender.port, _CALLERS))
        self._caller = connected.pop()
        self._idle: asyncio.LifoQueue[Caller] = asyncio.LifoQueue()
        for caller in connected:
            self._idle.put_nowait(caller)
        self._redis = stack.enter_context(RedisPublisher(self.stack.redis.port))

    async def publish_due(self, customer: int, n: int, due: float) -> None:
        channel = f"customer:customer-{customer}"
        one = orders.event(channel, n=n, sent=int(due * 1e9))
        caller = await self._idle.get()
        answer = await caller.call(orders.single(self.stack, one))
        self._idle.put_nowait(caller)
        if answer.status != 202:
            raise orders.OrderRefused(f"{answer.status} {answer.body[:500].decode(errors='replace')}")

    async def publish_many(self, channel: str, count: int, **data: Any) -> None:
        for first in range(0, count, 100):
            events = [orders.event(channel, **data) for _ in range(first, min(first + 100, count))]
            answer = await self._caller.call(orders.batch(self.stack, events))
            if answer.status != 202:
                raise orders.OrderRefused(f"{answer.status} {answer.body[:500].decode(errors='replace')}")


@dataclass(frozen=True)
class Attack:
    name: str
    kind: str  # of bench/attackers.py
    sockets: int
    requests: Callable[[Contender], list[str]]
    messages: Callable[[Contender], list[str]] = lambda _: []
    on_sender: bool = False
    of_ours: bool = False  # peers have no such endpoint
    prepare: str = ""  # a method of `Attacking`
    beside: str = ""  # runs at the same time


def _head(port: int, target: str, *headers: str, method: str = "GET") -> str:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""])


def _upgrade(port: int, target: str, *headers: str) -> str:
    wanted = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return _head(port, target, *wanted, key, *headers)


def _port(contender: Any) -> int:
    return int(contender.gateways[0].port)


def _sockets(contender: Contender) -> list[str]:
    """Handshakes of customers, or of whatever clients a peer accepts."""
    found = []
    for n in range(_IDENTITIES):
        _, target, headers, _ = contender.connection(GOOD + n, 0).split("\t")
        found.append(_upgrade(_port(contender), target, *filter(None, headers.split("\x1f"))))
    return found


_SUBPROTOCOL = "Sec-WebSocket-Protocol: cloudevents.json"


def _bearer(target: Target, customer: str, topics: Sequence[str] = ()) -> str:
    return f"Authorization: Bearer {target.stack.token(customer, topics)}"


def _strangers(contender: Contender) -> list[str]:
    if not isinstance(contender, Target):
        return _sockets(contender)
    return [_upgrade(_port(contender), "/events", _SUBPROTOCOL)]


def _listeners(contender: Contender) -> list[str]:
    """Customers who read a busy topic, and ask for all of it again."""
    if not isinstance(contender, Target):
        return _sockets(contender)
    target = "/events?after=topic:noise=1.0"
    return [
        _upgrade(_port(contender), target, _SUBPROTOCOL, _bearer(contender, f"mallory-{n}", ["noise"]))
        for n in range(_IDENTITIES)
    ]


def _resumers(contender: Contender) -> list[str]:
    assert isinstance(contender, Target)
    port, found = _port(contender), []
    for n in range(RESUMING):
        customer = f"mallory-{n}"
        target, bearer = f"/events?after=customer:{customer}=1.0", _bearer(contender, customer)
        found.append(_upgrade(port, target, _SUBPROTOCOL, bearer))
        found.append(_head(port, f"{target}&wait=0", bearer))
    return found


def _tickets(contender: Contender) -> list[str]:
    assert isinstance(contender, Target)
    return [
        _head(
            _port(contender),
            "/tickets",
            _bearer(contender, f"mallory-{n}"),
            "Content-Length: 0",
            method="POST",
        )
        for n in range(_IDENTITIES)
    ]


def _lists(contender: Contender) -> list[str]:
    assert isinstance(contender, Target)
    return [
        _head(_port(contender), "/alerts?limit=100", _bearer(contender, f"mallory-{n}"))
        for n in range(RESUMING)
    ]


def _topics(contender: Contender) -> list[str]:
    assert isinstance(contender, Target)
    found = []
    for n in range(_IDENTITIES):
        topics = [f"t-{n}-{of}" for of in range(99)]
        bearer = _bearer(contender, f"mallory-{n}", topics)
        found.append(_upgrade(_port(contender), "/events", _SUBPROTOCOL, bearer))
    return found


def _cloud_event(kind: str, data: dict[str, Any]) -> str:
    content = {"specversion": "1.0", "id": "1", "source": "/x", "type": f"orderbell.{kind}", "data": data}
    return msgspec.json.encode(content).decode()


def _credentials(contender: Contender) -> list[str]:
    assert isinstance(contender, Target)
    tokens = [contender.stack.token(f"customer-{GOOD + n}", ["all"]) for n in range(_IDENTITIES)]
    return [_cloud_event("auth", {"token": token}) for token in tokens]


def _reports(contender: Contender) -> list[str]:
    """Seen in as many pieces as fit, read by as many names as fit."""
    assert isinstance(contender, Target)
    found = []
    for n in range(RESUMING):
        pieces = ".".join(str(seq) for seq in range(2, 400, 2))
        found.append(_cloud_event("seen", {"cursor": f"customer:mallory-{n}=1.1+{pieces}"}))
        found.append(
            _cloud_event("read", {"cursor": f"customer:mallory-{n}=1.{n + 1}", "ids": [f"a{n}"] * 50})
        )
    return found


def _nonsense(contender: Contender) -> list[str]:
    return [_cloud_event("seen", {"cursor": "customer:x=1.1"}), _cloud_event("ping", {}), '{"a":[[[]]]}']


ATTACKS = (
    Attack("2,000 customers' sockets that never read", "never_read", 2_000, _listeners, beside="_noise"),
    Attack("floods of frames, 1 socket, no token", "floods", 1, _strangers),
    Attack("floods of frames, 200 sockets, no token", "floods", 200, _strangers),
    Attack("floods of frames, 1 customer's socket", "floods", 1, _sockets, of_ours=True),
    Attack("floods of frames, 200 customers' sockets", "floods", 200, _sockets, of_ours=True),
    Attack("slow and endless heads and bodies, gateway, 500", "slow", 500, _strangers),
    Attack(
        "slow and endless heads and bodies, sender, 500",
        "slow",
        500,
        _strangers,
        of_ours=True,
        on_sender=True,
    ),
    Attack("handshakes without a token, 50 at a time", "handshakes", 50, _strangers),
    Attack("random bytes and mutated frames, 50 sockets", "garbage", 50, _sockets, _nonsense),
    Attack(
        "the whole history in a loop, 50 sockets", "resume", 50, _resumers, of_ours=True, prepare="_history"
    ),
    Attack("POST /tickets, 50 at a time", "requests", 50, _tickets, of_ours=True),
    Attack("orderbell.auth, 50 customers' sockets", "messages", 50, _sockets, _credentials, of_ours=True),
    Attack("tokens with 99 topics each, 50 at a time", "handshakes", 50, _topics, of_ours=True),
    Attack(
        "seen and read, 50 sockets", "messages", 50, _resumers, _reports, of_ours=True, prepare="_history"
    ),
    Attack("GET /alerts, 50 at a time", "requests", 50, _lists, of_ours=True, prepare="_history"),
)
