"""A cluster: each command goes to the node that has its key's slot.

Slots move: an operator moves them, or a primary dies and its replica takes over. A node that is asked for a
slot that it no longer has answers MOVED; while the slot is moving, it answers ASK for a key that has already
moved; a dead node does not answer. In each case the slots are looked up anew, once for all commands that
failed meanwhile, and each of them is sent once more. What fails again is reported to the caller, never
skipped.

A channel's commands keep their order nevertheless: the braces put its keys into one slot, the publish script
takes only the next event, and a relay waits for the answer before it publishes more.

Live messages always use sharded Pub/Sub: they reach the one node where a channel's subscribers are, and don't
cross the whole cluster. This needs Redis 7 or later, or Valkey; an older cluster is refused.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING, Any

import structlog
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from shared.redis.server import answers_within, connect_server
from shared.redis.url import Address
from shared.redis.wire import CommandRefused, Pipelines, accepted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from redis.asyncio import Redis

    from shared.redis.url import RedisUrl
    from shared.redis.wire import Command

LOOK_SECONDS = 1.0  # for the nodes that are asked where the slots are
_ASKED = 5  # nodes, when the slots are looked up
_TRY_AGAIN_SECONDS = 0.1  # while a slot moves, a script's keys may be on two nodes
OLDEST = 7  # has sharded Pub/Sub; Valkey reports a version like Redis 7's
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")
_AGAIN = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN")

logger = structlog.get_logger(__name__)


class Cluster:
    """The nodes that have the slots, as last reported, and a client for each node."""

    def __init__(self, url: RedisUrl, *, oldest: int = OLDEST) -> None:
        """Nodes of a major version before `oldest` are refused."""
        self._url = url
        self._oldest = oldest
        self._clients: dict[Address, Redis] = {}
        self._owners: dict[int, Address] = {}  # of each slot
        self._looking = asyncio.Lock()
        self.nodes: frozenset[Address] = frozenset(url.addresses)
        self.primaries: frozenset[Address] = frozenset()  # those that have slots
        self.looked = 0  # how often the slots were looked up, or corrected

    def owner(self, slot: int) -> Address | None:
        """The node that has the slot; None if there is none, or no node was asked yet."""
        return self._owners.get(slot)

    def slots(self, primary: Address) -> list[int]:
        return [slot for slot, owner in self._owners.items() if owner == primary]

    def client(self, address: Address) -> Redis:
        if address not in self._clients:
            self._clients[address] = connect_server(self._url.server(address), retries=0)
        return self._clients[address]

    async def look(self, looked: int | None = None) -> None:
        """Look up where the slots are; with `looked`, only if nothing else has done so since that look-up.

        Raises a `RedisConnectionError` that quotes each node's answer.
        """
        async with self._looking:
            if looked is not None and looked != self.looked:
                return
            some = random.sample(sorted(self.nodes), min(_ASKED, len(self.nodes)))
            asked = list(dict.fromkeys([*some, *self._url.addresses[:_ASKED]]))
            answers = await answers_within(LOOK_SECONDS, [self._ask(address) for address in asked])
            views = [answer for answer in answers if isinstance(answer, _SlotView)]
            if not views:
                reasons = [f"{address}: {answer}" for address, answer in zip(asked, answers, strict=True)]
                raise RedisConnectionError(f"the cluster can't be used: {'; '.join(reasons)}")
            # A node that was cut off or suspended reports an old state.
            newest = max(views, key=lambda answer: answer.epoch)
            self._adopt(newest.owners)
            self.nodes = newest.nodes
            await self._close_clients_of_others()

    def move(self, slots: Mapping[int, Address]) -> None:
        """Note what nodes reported of slots that they had until now: they are the first to know."""
        if any(self._owners.get(slot) != owner for slot, owner in slots.items()):
            self._adopt({**self._owners, **slots})

    def _adopt(self, owners: dict[int, Address]) -> None:
        self._owners = owners
        self.primaries = frozenset(owners.values())
        self.looked += 1

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def _ask(self, address: Address) -> _SlotView:
        client = self.client(address)
        version = await _answer_or_none(client.info("server"))
        if version and int(str(version["redis_version"]).partition(".")[0]) < self._oldest:
            raise RedisConnectionError(
                f"a cluster of Redis {version['redis_version']}; Redis {self._oldest} is needed"
            )
        # As two words each, which redis-py doesn't know, so that the replies stay raw.
        asking = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
        state = await _answer_or_none(asking) or b"cluster_state:ok"
        ranges: Any = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        if b"cluster_state:ok" not in state:
            raise RedisConnectionError("the cluster is down, or this node is cut off from it")
        return _SlotView(address, state, ranges)

    async def _close_clients_of_others(self) -> None:
        for address in [*self._clients]:
            if address not in self.nodes and address not in self._url.addresses:
                await self._clients.pop(address).aclose()


async def _answer_or_none(asking: Any) -> Any:
    """The answer; None if the command is not permitted: managed clusters lack some."""
    try:
        return await asking
    except ResponseError:
        return None


class _SlotView:
    """What one node reports about the slots."""

    def __init__(self, asked: Address, state: bytes, ranges: Sequence[Sequence[Any]]) -> None:
        found = re.search(rb"cluster_current_epoch:(\d+)", state)
        self.epoch = int(found[1]) if found else 0
        self.owners: dict[int, Address] = {}
        nodes = {asked}
        for first, last, *having in ranges:
            places = [Address((host or b"").decode() or asked.host, port) for host, port, *_ in having]
            nodes.update(places)
            self.owners.update(dict.fromkeys(range(first, last + 1), places[0]))
        self.nodes = frozenset(nodes)


class ClusterPipelines:
    """`Pipelines` to every node, used as one.

    Failed commands are sent once more, so send only commands that may run twice.
    """

    publish_command = "SPUBLISH"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes: dict[Address, Pipelines] = {}

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command. Raises the first error left, redis-py's or `TimeoutError`."""
        return accepted(await self.ask(commands))

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As `execute`, but a failed command's reply is its error."""
        if not commands:
            return []
        cluster = self._cluster
        if not cluster.looked:
            await cluster.look(0)
        looked = cluster.looked
        replies = await self._try(commands)
        failed = [n for n, reply in enumerate(replies) if _is_to_be_sent_again(reply)]
        if failed:
            await self._follow([replies[n] for n in failed], looked)
            again = await self._try_again([commands[n] for n in failed], [replies[n] for n in failed])
            for n, reply in zip(failed, again, strict=True):
                replies[n] = reply
        return replies

    async def probe(self, name: str | bytes, message: bytes) -> None:
        """Publish a message, through the node that has the name's slot."""
        await self.execute([(self.publish_command, name, message)])

    async def __aenter__(self) -> ClusterPipelines:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes.values():
            await node.__aexit__(kind, error, trace)
        self._nodes.clear()

    async def _try(self, commands: Sequence[Command]) -> list[Any]:
        """Send each command to its node; replies may be errors."""
        groups: dict[Address | None, list[int]] = {}
        for n, command in enumerate(commands):
            groups.setdefault(self._cluster.owner(slot_of(command)), []).append(n)
        answers = await asyncio.gather(
            *(self._ask(address, [commands[n] for n in group]) for address, group in groups.items())
        )
        replies: list[Any] = [None] * len(commands)
        for group, answer in zip(groups.values(), answers, strict=True):
            for n, reply in zip(group, answer, strict=True):
                replies[n] = reply
        return replies

    async def _ask(self, address: Address | None, commands: Sequence[Command]) -> list[Any]:
        if address is None:
            return [RedisConnectionError("no node has the slot")] * len(commands)
        try:
            return await self._node(address).ask(commands)
        except (RedisError, OSError) as error:
            return [error] * len(commands)

    async def _follow(self, failures: Sequence[Exception], looked: int) -> None:
        """Look up where the slots are now. A node that answered MOVED knows better than any other."""
        if any(not str(failure).startswith(("ASK ", "TRYAGAIN")) for failure in failures):
            try:
                await self._cluster.look(looked)
            except RedisError as error:
                logger.debug("the slots can't be looked up", reason=str(error))
        redirections = filter(None, map(Redirection.of, failures))
        self._cluster.move({found.slot: found.address for found in redirections if found.moved})
        if any(str(failure).startswith("TRYAGAIN") for failure in failures):
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _try_again(self, commands: Sequence[Command], failures: Sequence[Exception]) -> list[Any]:
        """Send commands for slots that are moving, one by one with ASKING: there are few of them."""
        replies = await self._try(
            [
                command
                for command, failure in zip(commands, failures, strict=True)
                if not _is_on_its_way(failure)
            ]
        )
        answers = iter(replies)
        return [
            await self._ask_there(command, failure) if _is_on_its_way(failure) else next(answers)
            for command, failure in zip(commands, failures, strict=True)
        ]

    async def _ask_there(self, command: Command, failure: Exception) -> Any:
        found = Redirection.of(failure)
        assert found is not None
        return (await self._ask(found.address, [("ASKING",), command]))[1]

    def _node(self, address: Address) -> Pipelines:
        if address not in self._nodes:
            self._nodes[address] = Pipelines(self._cluster.client(address))
        return self._nodes[address]


class Redirection:
    """A node's answer about a slot that it does not have, or only in part."""

    def __init__(self, found: re.Match[str]) -> None:
        self.moved = found[1] == "MOVED"
        self.slot = int(found[2])
        self.address = Address(found[3].strip("[]"), int(found[4]))

    @classmethod
    def of(cls, reply: object) -> Redirection | None:
        found = _REDIRECTION.match(str(reply)) if isinstance(reply, Exception) else None
        return cls(found) if found and found[3] else None


def slot_of(command: Command) -> int:
    """The slot of a command: our commands name a key first, or after a script and the number of its keys."""
    key = command[3 if command[0] in ("EVALSHA", "EVAL") else 1]
    return slot_of_key(key if isinstance(key, bytes) else str(key).encode())


def slot_of_key(key: bytes) -> int:
    return int(key_slot(key, REDIS_CLUSTER_HASH_SLOTS))


def _is_on_its_way(reply: object) -> bool:
    found = Redirection.of(reply)
    return found is not None and not found.moved


def _is_to_be_sent_again(reply: object) -> bool:
    """Whether a command was lost with its connection, or refused only because the node was the wrong one."""
    if isinstance(reply, (RedisError, OSError)) and not isinstance(reply, CommandRefused):
        return True
    return isinstance(reply, Exception) and str(reply).startswith(_AGAIN)
