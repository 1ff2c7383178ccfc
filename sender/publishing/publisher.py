"""Publishing: sends events of some channels to Redis, and before them whatever Redis has lost.

The publish script (`shared.redis.channel_log`) answers for each channel:

* OK, DUP: Redis has them.
* GAP: something before them is missing, because Redis lost it. The database has it: publish that first.
* STALE: Redis knows a newer epoch than our events have. Either a new epoch has begun meanwhile; then they
  have moved into it and are read again. Or this database is an old copy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sender import history, metrics
from sender.generation import current_epoch
from shared.redis.channel_log import PublishAnswer, Published

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sender.database.protocol import Database
    from sender.outbox import Waiting
    from sender.publishing.pace import Pace
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.events import Entry
    from shared.redis.channel_log import LogWriter

_THERE = (PublishAnswer.OK, PublishAnswer.DUP)  # Redis has what was sent


class Outcome(NamedTuple):
    """What Redis has now; and, if Redis knows more than the database, the newest epoch in which it does."""

    published: list[Waiting]
    newer: int | None

    def __add__(self, other: Outcome) -> Outcome:  # type: ignore[override] # which would concatenate tuples
        newer = [epoch for epoch in (self.newer, other.newer) if epoch is not None]
        return Outcome([*self.published, *other.published], max(newer, default=None))


class Publisher:
    """Calls `answered` whenever Redis has answered."""

    def __init__(self, database: Database, log: LogWriter, pace: Pace, answered: Callable[[], None]) -> None:
        self._database = database
        self._log = log
        self._pace = pace
        self._answered = answered

    async def publish(
        self, channels: Mapping[Channel, Sequence[Waiting]], *, restart: bool = False
    ) -> Outcome:
        """Publish each channel's events in order. With `restart`, a log with a gap before them begins anew.

        Raises `CommandRefused` if Redis refuses any of it, and redis-py's other errors if Redis is away;
        then any part may have been published.
        """
        batches = [(channel, [event.entry for event in events]) for channel, events in channels.items()]
        answers = dict(zip(channels, await self._send(batches, restart=restart), strict=True))
        gaps = {name: head for name, (answer, head) in answers.items() if answer is PublishAnswer.GAP}
        if gaps:
            answers |= await self._refill(gaps, {name: channels[name][-1].entry.place for name in gaps})
        ahead = await self._ahead(channels, answers)
        published = [
            event
            for channel, (answer, _) in answers.items()
            if answer in _THERE and channel not in ahead
            for event in channels[channel]
        ]
        return Outcome(published, max(ahead.values(), default=None))

    async def _ahead(
        self, channels: Mapping[Channel, Sequence[Waiting]], answers: Mapping[Channel, Published]
    ) -> dict[Channel, int]:
        """Channels in which Redis knows more than the database, and in which epoch."""
        stale = {
            name: head.epoch for name, (answer, head) in answers.items() if answer is PublishAnswer.STALE
        }
        # Usually another sender has begun that epoch since we read, and our events have moved into it.
        epoch = await self._database.read(current_epoch) if stale else 0
        ahead = {name: newer for name, newer in stale.items() if newer > epoch}
        # A head beyond what we published usually comes from another relay, and is in the database.
        beyond = {name: head for name, (_, head) in answers.items() if head > channels[name][-1].entry.place}
        states = await self._database.read(partial(history.states, names=list(beyond))) if beyond else {}
        return ahead | {name: head.epoch for name, head in beyond.items() if head > states[name].head}

    async def _send(
        self, batches: Sequence[tuple[Channel, Sequence[Entry]]], *, restart: bool = False
    ) -> list[Published]:
        answers = await self._log.publish(batches, restart=restart)
        self._answered()
        for published in answers:
            metrics.published.labels(published.answer.value).inc()
        return answers

    async def _refill(
        self, known: Mapping[Channel, Place], last: Mapping[Channel, Place]
    ) -> dict[Channel, Published]:
        """Publish all that Redis lacks of some channels, up to `last`; of a large hole the newest ones.

        Many channels together: an emptied Redis lacks all of them at once.
        """
        answers = {name: Published(PublishAnswer.GAP, place) for name, place in known.items()}
        holes = {name: _hole(known[name], last[name], self._pace.refill_length) for name in known}
        while holes:
            found = await self._database.read(
                partial(history.read_some, wanted=holes, at_once=self._pace.refill_at_once)
            )
            # Holes without events were closed by retention or a new epoch; what still waits is read again.
            batches = [(name, entries) for name, entries in found.items() if entries]
            replies = await self._send(batches, restart=True) if batches else []
            metrics.refilled.inc(sum(len(entries) for _, entries in batches))
            for name in found:
                del holes[name]
            for (name, _), published in zip(batches, replies, strict=True):
                answers[name] = published
                if published.answer in _THERE and published.head < last[name]:
                    holes[name] = range(published.head.seq, last[name].seq)
                    answers[name] = Published(
                        PublishAnswer.GAP, published.head
                    )  # until the rest is there, too
        return answers


def _hole(known: Place, last: Place, length: int) -> range:
    """Seqs to publish again: those after `known` up to `last`, at most the newest `length`."""
    return range(max(known.seq, last.seq - length), last.seq)
