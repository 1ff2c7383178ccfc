"""One safeguard switched off: a proof that it is needed, and that our tests see it.

In a process of its own, for runs under load:

    python -m tests.chaos.without repeat-dropping receiver --port 0

Each changes one thing of the real classes and nothing else; the services themselves have no such switch.
tests/failures/test_without.py shows what goes wrong without each. `patch` is `setattr`, or a test's.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Patch = Callable[[object, str, object], None]


async def _nothing(*_: object, **__: object) -> None:
    pass


async def _never(*_: object) -> None:
    await asyncio.Event().wait()


def _script(patch: Patch, old: str, new: str) -> None:
    from shared import log

    assert old in log._PUBLISH
    patch(log, "_PUBLISH", log._PUBLISH.replace(old, new))


def gap_answer(patch: Patch) -> None:
    """The script appends behind a gap."""
    _script(patch, "if seq ~= last + 1 then", "if false then")


def dup_answer(patch: Patch) -> None:
    """The script appends what is there already."""
    _script(patch, "if seq > last then", "if true then")


def stale_answer(patch: Patch) -> None:
    """The script takes events of an epoch that is over."""
    _script(patch, "if head_epoch > epoch then", "if false then")


def script_reload(patch: Patch) -> None:
    """Redis is believed to know the scripts."""
    from shared.log import LogWriter, _prepared

    async def run(self: LogWriter, script: str, calls: Any) -> list[Any]:
        _, digest = _prepared(script, self._pipelines.publish_command)
        return await self._pipelines.execute([("EVALSHA", digest, *call) for call in calls])

    patch(LogWriter, "_run", run)


def refill(patch: Patch) -> None:
    """A log with a gap begins anew behind it."""
    from sender import relay

    def newest_alone(known: Any, last: Any) -> range:
        return range(last.seq - 1, last.seq)

    patch(relay, "_hole", newest_alone)


def sweep(patch: Patch) -> None:
    from sender.sweep import Sweep

    patch(Sweep, "run", _never)
    newest_check(patch)  # gateways would pull what Redis lacks, and Redis would lack it still


def tombstones(patch: Patch) -> None:
    """No text is judged."""
    from sender.tombstones import Row

    patch(Row, "fault", lambda self: None)


def epoch_reset(patch: Patch) -> None:
    """A cursor of another epoch is taken for one of this."""
    from sender.history import Reset, State

    check = State.check

    def check_all_but_the_epoch(self: State, place: Any) -> Reset | None:
        return check(self, place._replace(epoch=self.head.epoch))

    patch(State, "check", check_all_but_the_epoch)


def _reset_none(patch: Patch, reason: str) -> None:
    from sender.history import Reset, State

    check = State.check

    def check_the_others(self: State, place: Any) -> Reset | None:
        reset = check(self, place)
        return None if reset is Reset[reason] else reset

    patch(State, "check", check_the_others)


def future_reset(patch: Patch) -> None:
    """A cursor that no event had yet is believed."""
    _reset_none(patch, "FUTURE")


def pruned_reset(patch: Patch) -> None:
    """What follows a cursor is given, whatever of it is kept no longer."""
    _reset_none(patch, "PRUNED")


def database_comparison(patch: Patch) -> None:
    """The database is believed to have all that Redis knows."""
    from sender.relay import Relay

    async def compare_nothing(self: Relay) -> None:
        self._compared = True

    patch(Relay, "_compare", compare_nothing)


def heartbeat(patch: Patch) -> None:
    """Who says nothing is believed to be there."""
    from receiver.heartbeat import Heartbeat

    patch(Heartbeat, "_beat", lambda self, slot, wall_clock: None)


def frame_limit(patch: Patch) -> None:
    """A browser may send as many frames as it likes."""
    from receiver import connection, heartbeat

    for module in (connection, heartbeat):
        patch(module, "FRAMES_PER_HEARTBEAT", 10**9)


def gap_repair(patch: Patch) -> None:
    """What comes behind a gap is handed over."""
    from receiver.hub import Feed

    def hear(self: Feed, event: Any) -> bool:
        if self.place is not None and event.place > self.place:
            self.deliver(*event)
        return True

    patch(Feed, "hear", hear)
    position_check(patch)  # it would mend it, a little later
    pull_mode(patch)  # it might have read it meanwhile


def repeat_dropping(patch: Patch) -> None:
    """What comes again is handed over again."""
    from receiver.hub import Feed

    hear = Feed.hear

    def hear_all(self: Feed, event: Any) -> bool:
        if self.place is not None and event.place <= self.place:
            for subscriber in self.live:
                subscriber.tell(event.text)
        return hear(self, event)

    patch(Feed, "hear", hear_all)


def position_check(patch: Patch) -> None:
    from receiver.repair import Repair

    patch(Repair, "_check_heads", _nothing)


def newest_check(patch: Patch) -> None:
    """A Redis that answers is believed to be the senders'."""
    from receiver.repair import Repair

    patch(Repair, "_note_behind", lambda self, *, behind: None)


def pull_mode(patch: Patch) -> None:
    from receiver.repair import Repair

    patch(Repair, "_pull", lambda self: None)


def resubscription_catch_up(patch: Patch) -> None:
    """A channel that is subscribed again is believed to have missed nothing; nor is it looked after."""
    from receiver.gateway import Gateway

    confirmed = Gateway.confirmed

    def confirmed_first(self: Gateway, channel: Any) -> None:
        feed = self.hub.get(channel)
        if feed is not None and feed.place is None:
            confirmed(self, channel)

    patch(Gateway, "confirmed", confirmed_first)
    position_check(patch)  # it would mend it, a little later
    pull_mode(patch)  # it might have read it meanwhile


def probe(patch: Patch) -> None:
    """A connection that stays open is believed to be heard."""
    from receiver.subscription import Subscription

    async def until_lost(self: Subscription) -> str:
        return await self._lost

    patch(Subscription, "_wait_until_silent", until_lost)


def log_check(patch: Patch) -> None:
    """The log is believed, whatever it lacks; the history is asked only where there is none."""
    from receiver import catch_up
    from receiver.history import Found

    def follows(place: Any, read: Any) -> Found | None:
        return Found(place, read.entries, read.head) if read.head else None

    patch(catch_up, "follows", follows)


def place_comparison(patch: Patch) -> None:
    """A connection joins after one look at what it missed, wherever its feed is by then."""
    from receiver.catch_up import CatchUp

    async def join(self: CatchUp, connection: Any, feed: Any, place: Any) -> None:
        for entry in (await self.read(feed.channel, place)).entries:
            connection.tell(entry.text)
        feed.join(connection)

    patch(CatchUp, "join", join)


def slow_close(patch: Patch) -> None:
    """What a slow reader has no room for is dropped, and its connection kept."""
    from receiver.connection import Connection

    patch(Connection, "write", lambda self, frame: None if self.paused else self.writer.write(frame))


def epoch_learning(patch: Patch) -> None:
    """A new epoch is noticed only where an event of it comes."""
    from receiver.repair import Repair

    patch(Repair, "learn_epoch", lambda self, epoch: None)


def heard_comparison(patch: Patch) -> None:
    """What was read is believed to be all, whatever was heard of."""
    from receiver import catch_up

    patch(catch_up, "_short", lambda feed, found: False)


def alignment(patch: Patch) -> None:
    """A feed that is behind one of its connections is left there."""
    from receiver.catch_up import CatchUp

    patch(CatchUp, "_align", _nothing)


def drain(patch: Patch) -> None:
    """Everybody is cut off in the same moment, without a word."""
    from receiver.gateway import Gateway

    async def abort_all(self: Gateway, seconds: float) -> None:
        for connection in self.heartbeat.connections:
            connection.abort(1006, "gone")

    patch(Gateway, "drain", abort_all)


def crash_on_signal(patch: Patch) -> None:
    """No safeguard is off: after SIGUSR1 the sender dies before its next publish, as by kill -9."""
    from sender.relay import Relay

    publish, crashing = Relay._publish, False

    def crash(*_: object) -> None:
        nonlocal crashing
        crashing = True

    async def publish_or_die(self: Relay, *args: Any, **kwargs: Any) -> object:
        if crashing:
            os.kill(os.getpid(), signal.SIGKILL)
        return await publish(self, *args, **kwargs)

    patch(Relay, "_publish", publish_or_die)
    signal.signal(signal.SIGUSR1, crash)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_before_commit(patch: Patch) -> None:
    """No safeguard is off: the sender dies when a completion is written and not committed."""
    _crash_at_completion(patch, "_run_groups")


def crash_after_commit(patch: Patch) -> None:
    """No safeguard is off: the sender dies when a completion is committed and not answered."""
    _crash_at_completion(patch, "_run")


def _crash_at_completion(patch: Patch, function: str) -> None:
    """When that function of the SQLite writer has done its part, and there is an event."""
    from sender import sqlite

    do = getattr(sqlite, function)

    def do_and_die(connection: Any, jobs: Any) -> object:
        outcomes: object = do(connection, jobs)
        (events,) = sqlite._driver(connection).execute("SELECT count(*) FROM events").fetchone()
        if events:
            _die()
        return outcomes

    patch(sqlite, function, do_and_die)


def crash_before_mark(patch: Patch) -> None:
    """No safeguard is off: the sender dies when Redis has an event and the outbox does not know it yet."""
    from sender import outbox

    patch(outbox, "mark_published", _die)


SAFEGUARDS: dict[str, Callable[[Patch], None]] = {
    change.__name__.replace("_", "-"): change
    for change in (
        gap_answer,
        dup_answer,
        stale_answer,
        script_reload,
        refill,
        sweep,
        tombstones,
        epoch_reset,
        future_reset,
        pruned_reset,
        database_comparison,
        heartbeat,
        frame_limit,
        gap_repair,
        repeat_dropping,
        position_check,
        newest_check,
        pull_mode,
        resubscription_catch_up,
        probe,
        log_check,
        place_comparison,
        slow_close,
        epoch_learning,
        heard_comparison,
        alignment,
        drain,
        crash_on_signal,
        crash_before_commit,
        crash_after_commit,
        crash_before_mark,
    )
}


def main() -> None:
    _, safeguard, service, *arguments = sys.argv
    SAFEGUARDS[safeguard](setattr)
    sys.argv = [service, *arguments]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
