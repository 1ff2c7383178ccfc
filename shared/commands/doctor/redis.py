"""Redis: whether it answers, allows what the services need, has room, and is the sender's.

Commands that services don't need (PING, INFO, TIME) are left out if our user may not use them; that is not a
fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import NoPermissionError, RedisError

from shared.commands.doctor.clocks import clock
from shared.commands.doctor.findings import Finding, fail, ok, warn
from shared.reasons import reason_of
from shared.redis.cluster import Cluster
from shared.redis.connect import connect, greet, pipelines_to
from shared.redis.keys import Names
from shared.redis.rights import Refusal, Role, refusals
from shared.redis.url import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from redis.asyncio import Redis

    from shared.commands.doctor.services import Sender
    from shared.redis.connect import AnyPipelines

OLDEST = (6, 2)
_NO_RIGHT = r"(?i)noperm|can't access|no permission|user executing the script can't"
NEARLY_FULL = 0.9
_TRIES = 30  # to find in Redis what the sender has published
_TRY_SECONDS = 0.1
SAME_REDIS = "ORDERBELL_REDIS_URL (with its database number), ORDERBELL_KEY_PREFIX: the same for all"
_FULL = "raise its maxmemory, or give Orderbell its own Redis"


class Where(NamedTuple):
    """Which Redis, and which names in it."""

    url: str
    prefix: str

    def __str__(self) -> str:
        return f"{shown(self.url)}, prefix {self.prefix}"


async def look(where: Where, sender: Sender | None, *, publishes: bool) -> list[Finding]:
    """`sender` is the sender's own report, if it answers. `publishes`: these are a sender's settings."""
    async with connect(where.url, retries=0) as redis, pipelines_to(redis) as pipelines:
        try:
            started = time.monotonic()
            await _if_allowed(greet(redis))
            milliseconds = (time.monotonic() - started) * 1000
            findings = [ok("redis", f"{shown(where.url)} answers in {milliseconds:.1f} ms{_behind(redis)}")]
            for server in _servers(redis):
                findings += await _server(server)
            names = Names.of(where.url, where.prefix)
            findings += await _works(redis, pipelines, names, publishes=publishes)
            if sender is not None:
                findings += await _is_the_senders(pipelines, names, where, sender)
        except (RedisError, OSError, TimeoutError) as error:
            fix = "ORDERBELL_REDIS_URL: the Redis or Valkey of the sender and the gateways"
            return [fail("redis", f"{shown(where.url)}: {reason_of(error)}", fix)]
    return findings


async def _if_allowed(asking: Awaitable[object]) -> object:
    """The answer; None if our user may not ask."""
    with contextlib.suppress(NoPermissionError):
        return await asking
    return None


def _behind(redis: Redis | Cluster) -> str:
    """Which server serves us, if the URL doesn't show it."""
    if isinstance(redis, Cluster):
        primaries = ", ".join(map(str, sorted(redis.primaries)))
        return f"; a cluster of {len(redis.nodes)} nodes, its primaries {primaries}"
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool) and pool.master_address:
        host, port = pool.master_address
        return f"; the sentinels' primary is {host}:{port}"
    return ""


def _servers(redis: Redis | Cluster) -> list[Redis]:
    return [*map(redis.client, sorted(redis.primaries))] if isinstance(redis, Cluster) else [redis]


async def _server(redis: Redis) -> list[Finding]:
    findings = []
    info = await _if_allowed(redis.info())
    if isinstance(info, dict):
        name = "Valkey" if "valkey_version" in info else "Redis"
        findings += [
            version(name, str(info.get("valkey_version", info["redis_version"]))),
            memory(
                str(info.get("maxmemory_policy", "noeviction")),
                int(info.get("used_memory", 0)),
                int(info.get("maxmemory", 0)),
            ),
        ]
    now = await _if_allowed(redis.time())
    if isinstance(now, tuple):
        findings.append(clock("redis clock", now[0] + now[1] / 1e6 - time.time()))
    return findings


def version(name: str, text: str) -> Finding:
    if name == "Redis" and tuple(map(int, text.split(".")[:2])) < OLDEST:
        return fail("redis version", f"{text} is too old", "install Redis 6.2 or later, or any Valkey")
    return ok("redis version", f"{name} {text}")


def memory(policy: str, used: int, limit: int) -> Finding:
    if policy != "noeviction":
        return warn(
            "redis memory",
            f"maxmemory-policy is {policy}: events may be evicted and are then read from the database",
            "in Redis' configuration: maxmemory-policy noeviction",
        )
    if limit and used >= limit:
        return fail("redis memory", f"Redis is full: {used:,} of {limit:,} bytes", _FULL)
    if limit and used >= limit * NEARLY_FULL:
        return warn("redis memory", f"Redis is nearly full: {used:,} of {limit:,} bytes", _FULL)
    return ok("redis memory", "maxmemory-policy is noeviction")


async def _works(
    redis: Redis | Cluster, pipelines: AnyPipelines, names: Names, *, publishes: bool
) -> list[Finding]:
    """Try what the services do. The rights of either service suffice; with a sender's settings, those of a
    sender.
    """
    refused = {role: await refusals(redis, pipelines, names, role) for role in Role}
    needed = Role.SENDER if publishes else Role.GATEWAY
    may = [role.value for role in Role if not refused[role]]
    if not refused[needed] or (may and not publishes):
        return [ok("redis use", f"allows all that a {' and a '.join(may)} need{'s' * (len(may) == 1)}")]
    return list({_refusal(refusal): None for refusal in refused[needed]})


def _refusal(refusal: Refusal) -> Finding:
    text = refusal.says
    if "OOM" in text:
        return fail("redis use", "Redis is full and accepts no events", _FULL)
    if re.search(_NO_RIGHT, text):
        fix = "in Redis' ACL: what deploy/users.acl grants, under this prefix"
        return fail("redis use", f"our user may not {refusal.what}: {text[:200]}", fix)
    if "READONLY" in text:
        fix = "ORDERBELL_REDIS_URL: the primary, or redis+sentinel://…, which finds it"
        return fail("redis use", "this is a replica, which accepts no events", fix)
    return fail("redis use", f"Redis does not let us {refusal.what}: {text[:200]}", "see Redis' log")


async def _is_the_senders(
    pipelines: AnyPipelines, names: Names, where: Where, sender: Sender
) -> list[Finding]:
    """Whether what the sender has published is here."""
    if not sender.reaches_redis:
        return []  # the sender reports that itself
    for _ in range(_TRIES):
        why = _elsewhere(await _noted(pipelines, names), sender)
        if not why:
            return [ok("redis sender", "it holds what the sender publishes")]
        await asyncio.sleep(_TRY_SECONDS)
    fix = SAME_REDIS
    return [fail("redis sender", f"{why} ({where})", fix)]


class _Noted(NamedTuple):
    epoch: int
    position: int
    installation: str


async def _noted(pipelines: AnyPipelines, names: Names) -> _Noted:
    [reply] = await pipelines.execute([("HMGET", names.newest(), "epoch", "position", "installation")])
    epoch, position, installation = (value.decode(errors="replace") if value else "" for value in reply)
    numbers = [int(text) if text.isdecimal() else 0 for text in (epoch, position)]
    return _Noted(numbers[0], numbers[1], installation)


def _elsewhere(noted: _Noted, sender: Sender) -> str:
    """Why this can't be the sender's Redis; empty if it can."""
    if sender.installation and noted.installation and sender.installation != noted.installation:
        return "it holds the events of another installation, not our sender's"
    if sender.installation and not noted.installation:
        return "the sender's events are in another Redis, or under other names"
    if sender.position and (noted.epoch, noted.position) < (sender.epoch, sender.position):
        return "what the sender has published is not here"
    return ""
