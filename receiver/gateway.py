"""One gateway: its parts and how they are connected."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from receiver.access.capacity import Capacity, Limits
from receiver.access.revocations import RevocationList
from receiver.connections.clock import Clock
from receiver.connections.life import Life, Terms
from receiver.feeds.alerts import ReadReports
from receiver.feeds.keeper import Keeper
from receiver.feeds.seen import SeenReports
from receiver.subscription.belonging import Belonging
from receiver.subscription.shards import subscription_to
from receiver.subscription.subscription import USUAL, Subscriber
from receiver.transports.stomp import connection as stomp
from receiver.transports.websocket import connection as websocket
from shared import agreement
from shared.agreement import Agreement, announced
from shared.problems import Problem
from shared.process.forwarded import Proxies
from shared.quota import Quota
from shared.redis.channel_log import LogReader
from shared.redis.keys import Names
from shared.redis.signatures import NO_SIGNATURES

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from receiver.access.authentication import Authentication
    from receiver.feeds.history import History
    from receiver.feeds.pace import Pace
    from receiver.subscription.shards import Shards
    from receiver.subscription.subscription import Pace as HearingPace
    from receiver.subscription.subscription import Subscription
    from shared.process.tracing import Tracing
    from shared.redis.cluster import Cluster
    from shared.redis.connect import AnyPipelines
    from shared.redis.signatures import Signatures
    from shared.settings import ReceiverSettings


class Gateway:
    def __init__(
        self,
        redis: Redis | Cluster,
        pipelines: AnyPipelines,
        history: History,
        authentication: Authentication,
        settings: ReceiverSettings,
        *,
        name: str,
        pace: Pace | None = None,
        hearing_pace: HearingPace | None = None,
        tracing: Tracing | None = None,
        signatures: Signatures = NO_SIGNATURES,
    ) -> None:
        names = Names.of(settings.redis_url, settings.key_prefix)
        self.name = name
        self.names = names
        self.draining = False
        log = LogReader(pipelines, names, signatures)

        def subscribing(keeper: Keeper) -> Subscription | Shards:
            return subscription_to(
                redis,
                Subscriber(
                    gateway=name,
                    pipelines=pipelines,
                    names=names,
                    hearer=keeper,
                    pace=hearing_pace or USUAL,
                    belonging=Belonging(log, history, keeper.learn_epoch),
                    delivered=tracing.delivered if tracing is not None else None,
                    signatures=signatures,
                ),
            )

        self.keeper = Keeper(
            subscribing,
            log,
            history,
            pace,
            ring_again_seconds=settings.ring_again_seconds,
            replays=Quota(settings.replays_per_minute),
        )
        self.clock = Clock(settings.heartbeat_seconds, max_age_seconds=settings.max_connection_hours * 3600)
        proxies = Proxies(settings.forwarded_allow_ips)
        self.capacity = Capacity(Limits.of(settings), proxies, lambda: self.clock.count)
        self.seen = SeenReports(history)
        self.websocket_limits = websocket.LIMITS.scaled(settings)
        self.stomp_limits = stomp.LIMITS.scaled(settings)
        terms = Terms(
            name,
            settings.heartbeat_seconds,
            settings.max_connections_per_customer,
            settings.authenticate_seconds,
        )
        self.reads = ReadReports(history)
        self.history = history
        history.introduce(
            name,
            lambda: self.keeper.sources.asks_redis,
            announced(settings, (*agreement.SHARED, *agreement.OF_GATEWAYS)),
            Agreement("senders", announced(settings, agreement.SHARED)),
        )
        self.life = Life(self.keeper, self.clock, self.seen, self.reads, authentication, self.capacity, terms)
        self.keeper.when_erased = self.life.end_erased
        self._revocations = RevocationList(
            history, authentication.revocations, lambda: self.clock.connections
        )

    async def run(self) -> None:
        """Runs everything beside the connections; only cancellation or a defect ends it."""
        async with asyncio.TaskGroup() as tasks:
            for part in (self.keeper, self.seen, self.reads, self.clock, self.life, self._revocations):
                tasks.create_task(part.run(), name=type(part).__name__)

    @property
    def hears(self) -> bool:
        """Whether Redis is heard."""
        return self.keeper.subscription.hears

    @property
    def full(self) -> bool:
        return self.capacity.full

    def unable(self) -> Problem | None:
        """Why no client may connect now; None if clients may."""
        if self.draining or self.full:
            kind = "draining" if self.draining else "overloaded"
            return Problem(503, kind, "Try again in a moment.", {"retry-after": "2"})
        return None

    def refusal(self, address: str) -> Problem | None:
        """Why a client of that address may not connect now, or None. Called once for each handshake."""
        return self.unable() if self.draining else self.capacity.refusal(address)

    def refusal_now(self, address: str) -> Problem | None:
        """As `refusal`, for a handshake that was not refused and has waited since."""
        return self.unable() or self.capacity.lack(address)

    async def drain(self, seconds: float) -> None:
        """Accept no more connections, and end all, spread over that time."""
        self.draining = True
        await self.life.drain(seconds)
