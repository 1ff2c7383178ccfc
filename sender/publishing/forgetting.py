"""Forgetting in Redis: deletes the keys of erased customers, and ends their devices' connections.

This happens at once, and again a moment later: a relay, ours or another sender's, may have been publishing
what it had read before the erasure. While Redis is away, it is retried. If the sender ends meanwhile, the
keys expire by themselves: the log after a day, head and seen place after a week.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from shared.channels import Channel
    from shared.redis.channel_log import LogWriter

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    again_seconds: float = 5.0  # longer than a relay holds what it has read, while Redis answers
    retry_seconds: float = 1.0  # while Redis is away


class Forgetting:
    def __init__(self, log: LogWriter, pace: Pace = Pace()) -> None:
        self._log = log
        self._pace = pace
        # When to forget each channel again, in loop time, and whether its connections are still to be ended.
        self._due: dict[Channel, tuple[float, bool]] = {}
        self._changed = asyncio.Event()

    async def forget(self, channel: Channel) -> bool:
        """Whether Redis has done it; if not, it is retried until it has."""
        done = await self._try(channel, end=True)
        wait = self._pace.again_seconds if done else self._pace.retry_seconds
        self._due[channel] = (asyncio.get_running_loop().time() + wait, not done)
        self._changed.set()
        return done

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due = [(channel, end) for channel, (at, end) in self._due.items() if at <= loop.time()]
            for channel, end in due:
                del self._due[channel]
                if not await self._try(channel, end=end):
                    self._due[channel] = (loop.time() + self._pace.retry_seconds, end)
            next_at = min((at for at, _ in self._due.values()), default=None)
            try:
                async with asyncio.timeout_at(next_at):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _try(self, channel: Channel, *, end: bool) -> bool:
        """`end`: whether to end connections, too; later ones are legitimate."""
        try:
            await self._log.erase(channel, end=end)
        except (RedisError, OSError) as error:
            logger.warning("an erased customer's keys in Redis cannot be deleted yet", reason=str(error))
            return False
        return True
