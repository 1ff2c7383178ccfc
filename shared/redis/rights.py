"""The rights that sender and gateways need in Redis, tried out for `orderbell doctor`.

Each right is tried as the services use it, under names that expire in seconds and that nothing hears. Nothing
else is tried: the users of deploy/users.acl pass, and any user that passes is good enough for a service.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError

from shared.channels import Channel
from shared.redis.channel_log import ADVANCE, CLAIM, PUBLISH, SEE
from shared.redis.cluster import Cluster, slot_of_key
from shared.redis.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from shared.redis.connect import AnyPipelines
    from shared.redis.keys import Names
    from shared.redis.scripts import Script
    from shared.redis.wire import Command

_SECONDS = 5
_REPLY_SECONDS = 3.0


class Role(enum.Enum):
    SENDER = "sender"
    GATEWAY = "gateway"


class Refusal(NamedTuple):
    """Something that a service does, and what Redis answered."""

    what: str
    says: str


async def refusals(
    redis: Redis | Cluster, pipelines: AnyPipelines, names: Names, role: Role
) -> list[Refusal]:
    """What Redis refuses of all that a service does. Raises redis-py's errors if Redis is away."""
    trial = _Trial(redis, pipelines, names)
    return await (trial.sender() if role is Role.SENDER else trial.gateway())


class _Trial:
    def __init__(self, redis: Redis | Cluster, pipelines: AnyPipelines, names: Names) -> None:
        self._redis = redis
        self._pipelines = pipelines
        self._names = names
        self._channel = Channel(f"rehearsal:{secrets.token_hex(8)}")

    async def sender(self) -> list[Refusal]:
        names, channel = self._names, self._channel
        keys = (names.log(channel), names.head(channel))
        live = names.live(channel)
        publish = (2, *keys, 1, 1, _SECONDS, _SECONDS, live, "refuse")
        found = await self._scripts(
            [
                ("publish events", PUBLISH, (*publish, 1, b"{}", b"")),
                ("publish after a gap", PUBLISH, (*publish[:-1], "restart", 9, b"{}", b"")),
                ("note seen cursors", SEE, (1, names.seen(channel), "1.1", _SECONDS, live, b"", b"", b"")),
                ("note the newest event", ADVANCE, (1, names.newest(), 0, 0, "")),
                # For no installation, and without `take`, so that it changes nothing.
                ("claim the names", CLAIM, (2, names.newest(), names.owner(), "doctor", 1, "", "")),
            ]
        )
        return found + await self._commands(
            [
                ("read heads", ("HMGET", names.head(channel), "epoch", "seq")),
                ("read logs", ("XRANGE", names.log(channel), "1-0", "+", "COUNT", 1)),
                ("forget a channel", ("DEL", names.log(channel), names.head(channel))),
                ("forget a channel", ("DEL", names.seen(channel))),
                ("ask gateways", ("LRANGE", names.answers(str(channel)), 0, 0)),
            ]
        )

    async def gateway(self) -> list[Refusal]:
        names, channel = self._names, self._channel
        ticket = names.ticket(f"rehearsal-{secrets.token_hex(8)}")
        found = await self._commands(
            [
                ("read heads", ("HMGET", names.head(channel), "epoch", "seq")),
                ("read the newest event", ("HMGET", names.newest(), "epoch", "position")),
                ("read seen cursors", ("GET", names.seen(channel))),
                ("read logs", ("XRANGE", names.log(channel), "1-0", "+", "COUNT", 1)),
                ("issue tickets", ("SET", ticket, b"{}", "EX", _SECONDS, "NX")),
                ("redeem tickets", ("GETDEL", ticket)),
                ("answer support's questions", ("RPUSH", names.answers(str(channel)), b"")),
                ("answer support's questions", ("EXPIRE", names.answers(str(channel)), 0)),
                ("publish probes", (self._pipelines.publish_command, names.probe(str(channel)), b"")),
            ]
        )
        return found + await self._subscriptions()

    async def _commands(self, trials: Sequence[tuple[str, Command]]) -> list[Refusal]:
        replies = await self._pipelines.ask([command for _, command in trials])
        return [
            Refusal(what, str(reply))
            for (what, _), reply in zip(trials, replies, strict=True)
            if isinstance(reply, Exception)
        ]

    async def _scripts(self, trials: Sequence[tuple[str, Script, tuple[Any, ...]]]) -> list[Refusal]:
        """By EVAL first: a user who may only use EVALSHA would fail after Redis has restarted."""
        commands: list[tuple[str, Command]] = []
        for what, script, call in trials:
            text, digest = script.using(self._pipelines.publish_command)
            commands += [(what, ("EVAL", text, *call)), (what, ("EVALSHA", digest, *call))]
        return await self._commands(commands)

    async def _subscriptions(self) -> list[Refusal]:
        live = self._names.live(self._channel).encode()
        probe = self._names.probe(str(self._channel)).encode()
        sharded = isinstance(self._redis, Cluster)
        found = []
        for what, name in (("hear events", live), ("hear probes", probe)):
            command = b"SSUBSCRIBE" if sharded else b"SUBSCRIBE"
            end = b"SUNSUBSCRIBE" if sharded else b"UNSUBSCRIBE"
            if refusal := await self._subscribe(what, [(command, name), (end, name)], name):
                found.append(refusal)
        return found

    async def _subscribe(self, what: str, commands: Sequence[Command], name: bytes) -> Refusal | None:
        redis = self._redis
        if isinstance(redis, Cluster):
            owner = redis.owner(slot_of_key(name))
            if owner is None:
                return Refusal(what, "no node has the slot")
            redis = redis.client(owner)
        replies: asyncio.Queue[Any] = asyncio.Queue()

        def take(some: list[Any]) -> None:
            for reply in some:
                replies.put_nowait(reply)

        wire = await Wire.open(redis, take, lambda reason: replies.put_nowait(RedisError(reason)))
        try:
            wire.send(commands)
            async with asyncio.timeout(_REPLY_SECONDS):
                for _ in commands:
                    reply = await replies.get()
                    if isinstance(reply, Exception):
                        return Refusal(what, str(reply))
        finally:
            wire.abort()
        return None
