"""Safeguards of the sender, and of what it does in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.without.patches import never, nothing
from tests.chaos.without.receiver import newest_check

if TYPE_CHECKING:
    from shared.redis.scripts import Script
    from tests.chaos.without.patches import Patch


def _script(patch: Patch, old: str, new: str) -> None:
    from shared.redis import channel_log as log
    from shared.redis.scripts import Script

    assert old in log.PUBLISH.text
    patch(log, "PUBLISH", Script(log.PUBLISH.text.replace(old, new)))


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
    """Redis is assumed to know the scripts."""
    from shared.redis.channel_log import LogWriter

    async def run(self: LogWriter, script: Script, calls: Any) -> list[Any]:
        _, digest = script.using(self._pipelines.publish_command)
        return await self._pipelines.execute([("EVALSHA", digest, *call) for call in calls])

    patch(LogWriter, "_run", run)


def refill(patch: Patch) -> None:
    """A log with a gap begins anew behind it."""
    from sender.publishing import publisher

    def newest_alone(known: Any, last: Any, length: int) -> range:
        return range(last.seq - 1, last.seq)

    patch(publisher, "_hole", newest_alone)


def sweep(patch: Patch) -> None:
    from sender.publishing.sweep import Sweep

    patch(Sweep, "run", never)
    newest_check(patch)  # gateways would pull what Redis lacks


def outbox_poll(patch: Patch) -> None:
    """Only the sender that records an event looks for it."""
    from sender.publishing.relay import Relay

    longest_wait = Relay._longest_wait

    def until_woken(self: Relay) -> float:
        return longest_wait(self) if self._unmarked or self._failures else 3600.0

    patch(Relay, "_longest_wait", until_woken)


def poison_search(patch: Patch) -> None:
    """An event that Redis refuses is tried again together with all others, for ever."""
    from sender.publishing.poison import PoisonSearch

    async def raise_it(self: PoisonSearch, refusal: Exception) -> None:
        raise refusal

    patch(PoisonSearch, "_excuse", raise_it)


def rehearsal(patch: Patch) -> None:
    """An event is blamed for a refusal, whether or not Redis accepts another."""
    from shared.redis.channel_log import LogWriter

    patch(LogWriter, "rehearse", nothing)


def tombstones(patch: Patch) -> None:
    """Texts are not checked."""
    from sender.tombstones import Row

    patch(Row, "fault", lambda self: None)


def epoch_reset(patch: Patch) -> None:
    """A cursor of another epoch is taken for one of the current epoch."""
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
    """A cursor in the future is accepted."""
    _reset_none(patch, "FUTURE")


def pruned_reset(patch: Patch) -> None:
    """A cursor is accepted although events after it were deleted."""
    _reset_none(patch, "PRUNED")


def pruned_note(patch: Patch) -> None:
    """Events are deleted without noting up to where."""
    from sender import pruning

    def delete_alone(connection: Any, given: Any) -> int:
        deleted: int = connection.execute(pruning._DELETE_SQLITE, given).rowcount
        return deleted

    patch(pruning, "_delete_on_sqlite", delete_alone)


def database_comparison(patch: Patch) -> None:
    """The database is assumed to have everything that Redis knows."""
    from sender.publishing.relay import Relay

    async def compare_nothing(self: Relay) -> None:
        await self._ownership.settle()
        self._compared = True

    patch(Relay, "_compare", compare_nothing)


def idempotency_keys(patch: Patch) -> None:
    """A repeated request is carried out again."""
    from sender import idempotency

    patch(idempotency, "_known", lambda connection, claims: {})
    patch(idempotency, "_store", lambda connection, rows: None)


def channel_lock(patch: Patch) -> None:
    """Places come from a sequence, without waiting for the transaction that took the one before."""
    from collections import Counter

    from sender import recording
    from shared.cursors import Place

    taken: Counter[Any] = Counter()

    def take_places(connection: Any, counts: Counter[Any]) -> dict[Any, Place]:
        first = {channel: Place(1, taken[channel] + 1) for channel in counts}
        taken.update(counts)
        return first

    patch(recording, "_take_places", take_places)


def retraction_event(patch: Patch) -> None:
    """The database knows that an alert was taken back, but there is no event for it."""
    from sender import alerts
    from shared.events import RETRACTED

    record = alerts.record_change

    def record_nothing(connection: Any, channel: Any, event_type: str, *rest: Any, **others: Any) -> object:
        silent = "orderbell.nothing" if event_type == RETRACTED else event_type
        return record(connection, channel, silent, *rest, **others)

    patch(alerts, "record_change", record_nothing)


def expiry_event(patch: Patch) -> None:
    """Alerts expire, but no event brings the new count."""
    from sender.expiry import Expiry

    patch(Expiry, "sweep", nothing)


def final_mark(patch: Patch) -> None:
    """Any mark of an alert replaces the one before it."""
    from sender import alerts

    patch(alerts, "_MARK", alerts._MARK_FINALLY)


def read_maximum(patch: Patch) -> None:
    """The last report of what was read counts, even if it is lower."""
    from sqlalchemy import bindparam, update

    from sender import alerts
    from sender.database.tables import channels

    moved = update(channels).where(channels.c.channel == bindparam("of")).values(read_seq=bindparam("up_to"))
    patch(alerts, "_MOVE_READ", moved)


def unread_marks(patch: Patch) -> None:
    """Every event after the last one that was read counts as unread."""
    from sqlalchemy import false

    from sender import alerts

    unmarked = {dialect: statement.where(false()) for dialect, statement in alerts._MARKED.items()}
    patch(alerts, "_MARKED", unmarked)
