"""The one way to connect: to whatever `ORDERBELL_REDIS_URL` names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeAlias

from redis.exceptions import NoPermissionError

from shared.redis.cluster import Cluster, ClusterPipelines
from shared.redis.server import connect_server
from shared.redis.url import Kind, parse_redis_url
from shared.redis.wire import Pipelines

if TYPE_CHECKING:
    from redis.asyncio import Redis

AnyPipelines: TypeAlias = Pipelines | ClusterPipelines


def connect(url: str, *, retries: int = 2) -> Redis | Cluster:
    """Nothing is sent before the first command. Raises `InvalidRedisUrl`."""
    parsed = parse_redis_url(url)
    return Cluster(parsed) if parsed.kind is Kind.CLUSTER else connect_server(url, retries=retries)


def pipelines_to(redis: Redis | Cluster) -> AnyPipelines:
    return ClusterPipelines(redis) if isinstance(redis, Cluster) else Pipelines(redis)


async def greet(redis: Redis | Cluster) -> None:
    """Check that it answers. Raises redis-py's errors."""
    if isinstance(redis, Cluster):
        await redis.look()
    else:
        with contextlib.suppress(NoPermissionError):  # it has answered; no service needs the right
            await redis.ping()
