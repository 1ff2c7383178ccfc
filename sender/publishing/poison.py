"""Poison: events that can't be published, found among those that can.

An event that can't be published must not block others (sender/tombstones.py). If its text shows a fault, it
is given up at once. If only Redis refuses it, it is searched for by bisection among the events sent with it;
its channel then publishes one by one, while the others go on, and after some attempts it is given up, too.
Before a refusal is blamed on an event, Redis has to accept another one: a Redis that accepts nothing must not
cause dead letters.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

import structlog

from sender import dead_letters, metrics
from sender.database.errors import DatabaseError
from sender.publishing.publisher import Outcome
from shared.redis.channel_log import blames_what_was_sent
from shared.redis.wire import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sender.database.protocol import Database
    from sender.outbox import Waiting
    from sender.publishing.pace import Pace
    from sender.publishing.publisher import Publisher
    from sender.publishing.stops import Stops
    from shared.channels import Channel
    from shared.redis.channel_log import LogWriter

logger = structlog.get_logger(__name__)


class PoisonSearch:
    """Publishes what can be published. Calls `wake` when a tombstone has replaced an event."""

    def __init__(
        self,
        database: Database,
        log: LogWriter,
        publisher: Publisher,
        clock: Callable[[], datetime],
        pace: Pace,
        wake: Callable[[], None],
        stops: Stops,
    ) -> None:
        self._database = database
        self._log = log
        self._publisher = publisher
        self._clock = clock
        self._pace = pace
        self._wake = wake
        self._stops = stops
        self._suspects: dict[Channel, _Suspect] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def later(self) -> list[Channel]:
        """Channels that wait to retry an event that Redis refused."""
        now = self._loop.time()
        return [name for name, suspect in self._suspects.items() if suspect.due > now]

    def seconds_to_next(self, longest: float) -> float:
        """Until the next attempt, at most `longest`."""
        now = self._loop.time()
        waits = [suspect.due - now for suspect in self._suspects.values()]
        return min([longest, *(wait for wait in waits if wait > 0)])

    async def publish(self, waiting: Sequence[Waiting]) -> Outcome:
        """Each channel's events in order, up to the first that has a fault or that Redis refuses.

        Raises as `Publisher.publish`, but `CommandRefused` only if Redis accepts no events at all.
        """
        channels = _by_channel(waiting)
        suspects = {name: channels.pop(name) for name in list(channels) if name in self._suspects}
        outcome = await self._publish_some(channels)
        for name, events in suspects.items():
            outcome += await self._publish_one_by_one(name, events)
        return outcome

    async def _publish_some(self, channels: Mapping[Channel, Sequence[Waiting]]) -> Outcome:
        """Publish all that Redis accepts."""
        if not channels:
            return Outcome([], None)
        try:
            return await self._publisher.publish(channels)
        except CommandRefused as refusal:
            await self._excuse(refusal)
        names = list(channels)
        if len(names) == 1:
            return await self._publish_one_by_one(names[0], channels[names[0]])
        half = len(names) // 2
        first = await self._publish_some({name: channels[name] for name in names[:half]})
        return first + await self._publish_some({name: channels[name] for name in names[half:]})

    async def _publish_one_by_one(self, channel: Channel, events: Sequence[Waiting]) -> Outcome:
        """Publish a channel's events, up to the first that Redis refuses."""
        outcome = Outcome([], None)
        for event in events:
            try:
                # Without a refill: something else among the refilled events might be refused.
                outcome += await self._publisher.publish({channel: [event]}, restart=True)
            except CommandRefused as refusal:
                await self._excuse(refusal)
                await self._suspect(event, str(refusal))
                return outcome
        self._suspects.pop(channel, None)
        self._stops.end_channel(channel)
        return outcome

    async def _excuse(self, refusal: CommandRefused) -> None:
        """Raise the refusal, unless it was about what was sent and Redis accepts other events."""
        if not blames_what_was_sent(refusal):
            raise refusal
        await self._log.rehearse()

    async def _suspect(self, event: Waiting, refusal: str) -> None:
        """Try again later, or give up."""
        if event.recorded_at:
            self._stops.begin_channel(event.channel, datetime.fromisoformat(event.recorded_at), refusal)
        known = self._suspects.get(event.channel)
        attempts = known.attempts + 1 if known and known.position == event.position else 1
        if attempts == self._pace.attempts - 1:
            # The channel's keys may be at fault, not the event.
            await self._log.forget(event.channel)
        self._suspects[event.channel] = _Suspect(
            event.position, attempts, due=self._loop.time() + self._pace.backoff(attempts)
        )
        logger.debug("redis refuses an event", position=event.position, attempts=attempts, reason=refusal)
        if attempts >= self._pace.attempts and await self.give_up([event.position], refusal):
            del self._suspects[event.channel]
            self._stops.end_channel(event.channel)
            self._wake()

    async def give_up(self, positions: Sequence[int], refusal: str = "") -> bool:
        """Replace them by tombstones, which the next turn finds; False if that has to wait."""
        work = partial(dead_letters.give_up, positions=positions, now=self._clock(), refusal=refusal)
        try:
            given_up = await self._database.write(work)
        except DatabaseError as error:  # their channels wait, the others do not
            logger.debug("dead letters cannot be stored now", reason=str(error))
            return False
        for dead in given_up:
            metrics.dead_letters.labels(dead.fault.value).inc()
            logger.error(
                "an event can't be published; a tombstone takes its place",
                cursor=str(dead.cursor),
                reason=dead.fault.value,
                detail=refusal,
            )
        return True


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A channel's refused event, how often it was refused, and when it is due again (loop time)."""

    position: int
    attempts: int
    due: float


def _by_channel(waiting: Sequence[Waiting]) -> dict[Channel, list[Waiting]]:
    """Each channel's events in order of seq, up to the first that has a fault."""
    in_order = sorted(waiting, key=lambda event: (event.channel, event.entry.place))
    channels = groupby(in_order, key=lambda event: event.channel)
    sound = {
        channel: list(takewhile(lambda event: event.fault is None, events)) for channel, events in channels
    }
    return {channel: events for channel, events in sound.items() if events}
