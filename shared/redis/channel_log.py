"""The Redis side of a channel: its log of recent events, its head, what was seen. Writer and reader.

Redis only carries what the database holds, so everything here may be deleted at any time:

* `ob:log:{<channel>}`   stream, ids `<seq>-0`, field `e`: the event's JSON, `s`: its signature, if signed
* `ob:head:{<channel>}`  hash `epoch`, `seq`: the newest event published
* `ob:live:{<channel>}`  Pub/Sub, sharded in a cluster: `<epoch> <seq> <JSON>`, `seen <epoch> <seq>`,
  `seen <epoch> <seq>+<ranges>`, `erased` (signed: `erased <ms since 1970>`); a signature stands in front
  (shared/redis/signatures.py)
* `ob:seen:{<channel>}`  text `<epoch>.<seq>+<ranges>`: what the customer has seen (shared/extents.py); a
  signature stands behind
* `ob:generation`        hash `epoch`, `position`, `identity`: of the newest event that any sender has
  published; it shows which of Redis and the database went back. And `installation`: whose events these are
* `ob:owner:{ob:generation}`  text, for some seconds: the installation whose senders publish now

The braces keep a channel's keys in one slot of a cluster. Only commands of Redis 6.2 are used, and in a
cluster those of sharded Pub/Sub.
"""

from __future__ import annotations

import enum
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from redis.exceptions import RedisError

from shared.channels import Channel
from shared.cursors import Place
from shared.errors import OperatorError
from shared.events import Entry
from shared.redis.live import ERASED, extent_of, message_of, number_of, place_of
from shared.redis.scripts import Script
from shared.redis.signatures import NO_SIGNATURES, Kind
from shared.redis.wire import CommandRefused, accepted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.extents import Extent, Seen
    from shared.redis.connect import AnyPipelines
    from shared.redis.keys import Names
    from shared.redis.signatures import Signatures
    from shared.redis.wire import Command

logger = structlog.get_logger(__name__)

LOG_LENGTH = 1_000  # events a channel keeps in Redis; older ones are read from the database
LOG_SECONDS = 24 * 3600
HEAD_SECONDS = 7 * 24 * 3600  # outlives the log, or its first event after a quiet day would look like a gap

PUBLISH = Script.read("publish")
SEE = Script.read("see")
ADVANCE = Script.read("advance")
CLAIM = Script.read("claim")

# Redis' errors about its own state. Redis 6 puts them behind the script's own error, later versions in front.
_STATE = re.compile(
    r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|NOSCRIPT|NOPERM|NOAUTH|WRONGPASS|DENIED|NOREPLICAS|MASTERDOWN"
    r"|CLUSTERDOWN|CROSSSLOT|MOVED|ASK|TRYAGAIN|UNKILLABLE|EXECABORT|INPROG)\b"
)


class Memory(NamedTuple):
    """Of Redis, in bytes."""

    used: int
    limit: int  # 0: none


class PublishAnswer(enum.Enum):
    """What became of a publish."""

    OK = "OK"
    DUP = "DUP"  # all of it was already there
    GAP = "GAP"  # something before it is missing; nothing after `last` was published
    STALE = "STALE"  # a newer epoch has begun: this publisher's is old


class AnotherInstallation(OperatorError, RedisError):
    """Another installation uses these names: events published or read here would mix with its own."""


class Claim(NamedTuple):
    owner: str  # the installation that has the names; empty: none
    left_seconds: float
    noted: str  # the installation whose events are in Redis, if noted


class Published(NamedTuple):
    answer: PublishAnswer
    head: Place


class NewestEvent(NamedTuple):
    """The newest event that was recorded or published: its epoch, and its position among all events.

    They compare in their order. A database that went back counts the same positions again, so the
    event's identity is kept, too.
    """

    epoch: int
    position: int
    identity: str = ""


class Known(NamedTuple):
    """What Redis knows of a channel; either may be None."""

    head: Place | None
    seen: Extent | None


@dataclass(frozen=True, slots=True)
class LogRead:
    """The result of one look at a channel's log: its head, if Redis knows one, and the events asked for."""

    head: Place | None
    entries: tuple[Entry, ...]


class LogWriter:
    """Publishes into channels' logs. One process may have several; many processes may.

    Methods raise redis-py's errors and `TimeoutError`. Any part may then have been done; repeating is
    harmless.
    """

    def __init__(self, pipelines: AnyPipelines, names: Names, signatures: Signatures = NO_SIGNATURES) -> None:
        self._pipelines = pipelines
        self._names = names
        self._signatures = signatures
        self.barred = ""  # why nothing may be written; empty if it may

    @property
    def reader(self) -> LogReader:
        """A reader of the same logs."""
        return LogReader(self._pipelines, self._names, self._signatures)

    async def claim(self, installation: str, seconds: int, *, take: bool, settle: bool = False) -> Claim:
        """Claim or keep the names for that long; 0 releases them. Without `take`, free names are not claimed.

        `settle` notes that the events in Redis are this installation's.
        """
        words = (installation, seconds, "take" if take else "keep", "settle" if settle else "")
        call: Command = (2, self._names.newest(), self._names.owner(), *words)
        try:
            [(owner, left, noted)] = await self._evaluate(CLAIM, [call])
        except CommandRefused as refusal:
            if not blames_what_was_sent(refusal):
                raise
            logger.warning("redis' record of the owner is malformed; it is written anew", reason=str(refusal))
            await self._pipelines.execute([("DEL", self._names.newest()), ("DEL", self._names.owner())])
            [(owner, left, noted)] = await self._evaluate(CLAIM, [call])
        return Claim(owner.decode(errors="replace"), left / 1000, noted.decode(errors="replace"))

    async def publish(
        self, batches: Sequence[tuple[Channel, Sequence[Entry]]], *, restart: bool = False
    ) -> list[Published]:
        """Publish each channel's entries, in order of seq and of one epoch, in one round trip.

        `restart` accepts a gap: the channel's log starts anew after it.
        """
        calls: list[Command] = []
        for channel, entries in batches:
            call: list[str | bytes | int] = [self._names.log(channel), self._names.head(channel)]
            call += [entries[0].place.epoch, LOG_LENGTH, LOG_SECONDS, HEAD_SECONDS]
            live = self._names.live(channel)
            call += [live, "restart" if restart else "refuse"]
            for entry in entries:
                call += [entry.place.seq, entry.text, self._sign(live, message_of(entry))]
            calls.append((2, *call))
        replies = await self._run(PUBLISH, calls)
        return [Published(PublishAnswer(r[0].decode()), Place(int(r[1]), int(r[2]))) for r in replies]

    async def see(self, seen: Sequence[Seen], *, notify: bool = True) -> None:
        """Add to what was seen; with `notify`, the customer's other devices are notified."""
        calls: list[Command] = []
        for channel, extent in seen:
            key, live = self._names.seen(channel), self._names.live(channel) if notify else ""
            place = b"seen %d %d" % extent.place
            signatures = (
                self._signatures.sign(Kind.SEEN, key.encode(), str(extent).encode()),
                self._sign(live, place),
                self._sign(live, place + extent.ranges_text().encode()),
            )
            calls.append((1, key, str(extent), HEAD_SECONDS, live, *signatures))
        await self._run(SEE, calls)

    def _sign(self, live: str, message: bytes) -> bytes:
        """The signature of a live message, which is also the event's in the log."""
        return self._signatures.sign(Kind.LIVE, live.encode(), message)

    async def advance(self, newest: NewestEvent) -> NewestEvent:
        """Note the newest event published; returns what Redis knew before, zeros if it knew nothing.

        The record never goes back: Redis may know a newer one. A value that no sender of ours wrote is
        replaced; otherwise nothing more would be published.
        """
        try:
            return await self._advance(newest)
        except CommandRefused as refusal:
            if not blames_what_was_sent(refusal):
                raise
            logger.warning(
                "redis' record of the newest event is malformed; it is written anew", reason=str(refusal)
            )
        await self._pipelines.execute([("DEL", self._names.newest())])
        return await self._advance(newest)

    async def used_memory(self) -> Memory | None:
        """None if Redis does not report it. In a cluster, one node's."""
        [info] = await self._pipelines.ask([("INFO", "memory")])
        if not isinstance(info, bytes):
            return None
        found = dict(re.findall(rb"(used_memory|maxmemory):(\d+)", info))
        return Memory(int(found.get(b"used_memory", 0)), int(found.get(b"maxmemory", 0)))

    async def maxmemory_policy(self) -> str | None:
        """None if Redis does not report it. In a cluster, one node's."""
        [info] = await self._pipelines.ask([("INFO", "memory")])
        found = re.search(rb"maxmemory_policy:(\S+)", info) if isinstance(info, bytes) else None
        return found[1].decode() if found else None

    async def rehearse(self) -> None:
        """Publish an event that nothing hears, in a channel deleted at once. Raises as `publish` does."""
        channel = Channel(f"rehearsal:{secrets.token_hex(8)}")
        keys = (self._names.log(channel), self._names.head(channel))
        await self._run(PUBLISH, [(2, *keys, 1, 1, 1, 1, self._names.live(channel), "refuse", 1, b"{}", b"")])

    async def forget(self, channel: Channel) -> None:
        """Make Redis forget the channel, as if nothing had been published: readers then ask the history."""
        self._check_barred()
        await self._pipelines.execute([("DEL", self._names.log(channel), self._names.head(channel))])

    async def erase(self, channel: Channel, *, end: bool) -> None:
        """Delete all that is known of the channel; with `end`, connections to it are ended."""
        self._check_barred()
        names = self._names
        commands: list[Command] = [("DEL", names.log(channel), names.head(channel), names.seen(channel))]
        if end:
            live = names.live(channel)
            notice = b"%b %d" % (ERASED, time.time() * 1000) if self._signatures else ERASED
            sealed = self._signatures.seal(Kind.LIVE, live.encode(), notice)
            commands.append((self._pipelines.publish_command, live, sealed))
        await self._pipelines.execute(commands)

    async def _advance(self, newest: NewestEvent) -> NewestEvent:
        [(epoch, position, identity)] = await self._evaluate(ADVANCE, [(1, self._names.newest(), *newest)])
        return NewestEvent(int(epoch), int(position), identity.decode(errors="replace"))

    async def _run(self, script: Script, calls: Sequence[Command]) -> list[Any]:
        """As `_evaluate`, unless writing is barred. Raises `AnotherInstallation`."""
        self._check_barred()
        return await self._evaluate(script, calls)

    def _check_barred(self) -> None:
        if self.barred:
            raise AnotherInstallation(self.barred)

    async def _evaluate(self, script: Script, calls: Sequence[Command]) -> list[Any]:
        """Run the script once for each call: its number of keys, keys and arguments."""
        text, digest = script.using(self._pipelines.publish_command)
        commands: list[Command] = [("EVALSHA", digest, *call) for call in calls]
        try:
            return await self._pipelines.execute(commands)
        except RedisError as error:
            if "NOSCRIPT" not in str(error):  # a restarted server knows no scripts
                raise
        # Each call with the whole script, because in a cluster any node may lack it.
        return await self._pipelines.execute([("EVAL", text, *call) for call in calls])


class LogReader:
    """Reads channels' logs. Many channels in one call cost one round trip.

    A key of a wrong type, or a value with a wrong signature, gives nothing for its channel and does not
    affect other channels' answers.
    Methods raise redis-py's errors and `TimeoutError`: Redis is away, or refuses to be read.
    """

    def __init__(self, pipelines: AnyPipelines, names: Names, signatures: Signatures = NO_SIGNATURES) -> None:
        self._pipelines = pipelines
        self._names = names
        self._signatures = signatures

    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        commands = [("HMGET", self._names.head(channel), "epoch", "seq") for channel in channels]
        return [_head(reply) for reply in await self._ask(commands)]

    async def known(self, channels: Sequence[Channel]) -> list[Known]:
        """Each channel's head and what was seen of it, if Redis knows them."""
        commands: list[Command] = []
        for channel in channels:
            commands.append(("HMGET", self._names.head(channel), "epoch", "seq"))
            commands.append(("GET", self._names.seen(channel)))
        replies = await self._ask(commands)
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [
            Known(_head(head), self._seen(channel, seen))
            for channel, (head, seen) in zip(channels, pairs, strict=True)
        ]

    async def newest(self) -> NewestEvent:
        """The newest event that a sender has published; zeros if Redis does not know."""
        [reply] = await self._ask([("HMGET", self._names.newest(), "epoch", "position")])
        known = place_of(*reply) if reply else None
        return NewestEvent(*known) if known else NewestEvent(0, 0)

    async def owner(self) -> tuple[str, int]:
        """The installation whose events these are (empty if Redis does not know), and its epoch."""
        [reply] = await self._ask([("HMGET", self._names.newest(), "installation", "epoch")])
        installation, epoch = reply or (None, None)
        return (installation or b"").decode(errors="replace"), number_of(epoch) or 0

    async def seen(self, channels: Sequence[Channel]) -> list[Extent | None]:
        """What each customer has seen; None if Redis does not know."""
        replies = await self._ask([("GET", self._names.seen(channel)) for channel in channels])
        return [self._seen(channel, reply) for channel, reply in zip(channels, replies, strict=True)]

    async def read(self, channels: Sequence[tuple[Channel, int]], *, limit: int) -> list[LogRead]:
        """Each channel's head and its entries after the given seq, `limit` at most, oldest first."""
        commands: list[Command] = []
        for channel, seq in channels:
            commands.append(("HMGET", self._names.head(channel), "epoch", "seq"))
            commands.append(("XRANGE", self._names.log(channel), f"{seq + 1}-0", "+", "COUNT", limit))
        replies = await self._ask(commands)
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [
            self._log_read(channel, head, entries)
            for (channel, _), (head, entries) in zip(channels, pairs, strict=True)
        ]

    def _seen(self, channel: Channel, reply: bytes | None) -> Extent | None:
        if not reply:
            return None
        text, _, signature = reply.partition(b" ")
        epoch, _, rest = text.partition(b".")
        seq, plus, ranges = rest.partition(b"+")
        found = extent_of(epoch, seq, plus + ranges)
        if found is None or not self._signatures:
            return found
        name = self._names.seen(channel).encode()
        return found if self._signatures.check(Kind.SEEN, name, text, signature) else None

    def _log_read(
        self,
        channel: Channel,
        head_reply: list[bytes | None] | None,
        entries: list[tuple[bytes, list[bytes]]] | None,
    ) -> LogRead:
        head = _head(head_reply)
        if head is None or entries is None:  # without its head, a log's epoch is unknown
            return LogRead(None, ())
        try:
            read = [_log_entry(head.epoch, id, fields) for id, fields in entries]
        except ValueError:  # one of them is not ours
            return LogRead(None, ())
        if self._signatures:
            name = self._names.live(channel).encode()
            for entry, signature in read:
                if not self._signatures.check(Kind.LIVE, name, message_of(entry), signature):
                    return LogRead(None, ())
        return LogRead(head, tuple(entry for entry, _ in read))

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """A reply for each; None for a key of another kind."""
        replies = await self._pipelines.ask(commands)
        try:
            return accepted(replies)
        except RedisError:
            return accepted([None if _is_of_another_kind(reply) else reply for reply in replies])


def blames_what_was_sent(refusal: CommandRefused) -> bool:
    """Whether Redis refused the command because of its content, not of its own state."""
    text = str(refusal)
    return text.startswith(("ERR", "WRONGTYPE")) and not _STATE.search(text)


def _is_of_another_kind(reply: object) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith("WRONGTYPE")


def _head(reply: list[bytes | None] | None) -> Place | None:
    return place_of(*reply) if reply else None


def _log_entry(epoch: int, id: bytes, fields: Sequence[bytes]) -> tuple[Entry, bytes]:
    """An entry and its signature: the field `e` has the text, `s` the signature. Raises `ValueError`."""
    if len(fields) != 2 and (len(fields) != 4 or fields[2] != b"s"):
        raise ValueError("not an entry of ours")
    signature = fields[3] if len(fields) == 4 else b""
    return Entry(Place(epoch, int(id[:-2])), fields[1]), signature
