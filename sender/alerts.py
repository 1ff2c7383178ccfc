"""An alert's life after it was recorded: seen, read, retracted, replaced, expired; and how many are unread.

Every event of a customer's own channel is an alert, except the system's (`orderbell.…`). Recording an alert
writes nothing here. Each later change of its state is an event of the same channel with a seq of its own,
recorded in the same transaction: so changes are ordered, devices catch up with them as with any event, and
each count belongs to a place.

Counting does not read the events, because seqs have no holes: the count is the number of seqs since the last
one that was read or pruned, without those that have a row in `alert_states`. Rows are few: one for each alert
that was read alone, retracted, replaced or has expired (or will), and one for each event of the system.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Select, bindparam, cast, delete, func, select, text, update

from sender import history, recording
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, alert_states, channels, insert_into
from shared.channels import Channel, is_private
from shared.cursors import Cursor, Place
from shared.errors import CallerError
from shared.events import EXPIRED, READ, SOURCE, SYSTEM, system_event
from shared.extents import Range
from shared.times import format_time, is_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.sql.dml import Insert

    from shared.events import Draft, Entry

MAX_IDS = 100  # of alerts, in one request
MAX_LIST = 200  # alerts on one page
MAX_READ_ALONE = 1_000  # unread alerts among which an id is looked for, the newest
MAX_SUBJECTS = 200  # events before a replacement among which its subject is looked for
_ROUND = 100  # events read at a time
_MAX_ROUNDS = 10  # of one page: a long row of other events ends it early
_MAX_PAGE_BYTES = 4 * 2**20
_EXPIRE_AT_ONCE = 500
_LOOK_AT_ONCE = 1_000
_GATHER_AT_ONCE = 500


class State(StrEnum):
    """An alert's state in its customer's list."""

    UNSEEN = "unseen"
    SEEN = "seen"
    READ = "read"
    RETRACTED = "retracted"
    REPLACED = "replaced"
    EXPIRED = "expired"


class Mark(StrEnum):
    """Why a seq does not count as unread. The last three are final."""

    SYSTEM = "system"  # the event is not an alert
    READ = "read"
    EXPIRED = "expired"
    REPLACED = "replaced"
    RETRACTED = "retracted"


class NoAlerts(CallerError):
    """Raised for topics: only a customer's own channel has alerts that can be read."""


class Unread(NamedTuple):
    """How many alerts are unread, and the place where that is true."""

    channel: Channel
    unread: int
    as_of: Place


class Alert(NamedTuple):
    """An alert in a list."""

    place: Place
    state: State
    text: bytes


class Page(NamedTuple):
    """Alerts, newest first, and the count from the same snapshot."""

    alerts: list[Alert]
    before: Cursor | None  # for the next page; None after the oldest
    unread: Unread


class Row(NamedTuple):
    """The key of an alert's state."""

    channel: str
    seq: int


FIRST_ROW = Row("", 0)


class Looked(NamedTuple):
    """Some consecutive rows of states."""

    last: Row | None  # None if no others follow
    gone: list[Row]  # of each channel the last of those that the history no longer has


class Head(msgspec.Struct):
    """What is read of an event's text."""

    id: str
    source: str
    type: str
    subject: str = ""
    expirytime: str = ""


read_head = msgspec.json.Decoder(Head).decode


def count(connection: Connection, names: Sequence[Channel], *, now: datetime) -> list[Unread]:
    """The unread alerts of each channel, in the order given."""
    states = history.states(connection, names)
    given = {"channels": list(names), "now": format_time(now)}
    dialect = connection.dialect.name
    read = {row.channel: row.read_seq for row in connection.execute(_READ_SEQS[dialect], given)}
    marked = {row.channel: row.marked for row in connection.execute(_MARKED[dialect], given)}
    return [
        Unread(
            channel,
            # A channel of a past epoch has only marks that no longer count.
            max(0, state.head.seq - max(state.pruned_seq, read.get(channel, 0)) - marked.get(channel, 0)),
            state.head,
        )
        for channel, state in ((channel, states[channel]) for channel in names)
    ]


def page(
    connection: Connection, channel: Channel, *, before: Place | None, limit: int, now: datetime
) -> Page:
    """The newest alerts before a place, without those that were replaced."""
    state = history.states(connection, [channel])[channel]
    end = state.head.seq if before is None else min(before.seq - 1, state.head.seq)
    if before is not None and before.epoch != state.head.epoch:
        end = state.pruned_seq  # nothing is left before a place of another epoch
    found: list[Alert] = []
    size, rounds = 0, 0
    while end > state.pruned_seq and len(found) < limit and size < _MAX_PAGE_BYTES and rounds < _MAX_ROUNDS:
        start = max(state.pruned_seq, end - _ROUND)
        for entry in reversed(_read_between(connection, channel, start, end, now, state)):
            if len(found) == limit or size >= _MAX_PAGE_BYTES:
                break
            end = entry.place.seq - 1
            if entry.state is not State.REPLACED:
                found.append(entry)
                size += len(entry.text)
        else:
            end = start
        rounds += 1
    rest = Cursor(channel, Place(state.head.epoch, end + 1)) if end > state.pruned_seq else None
    (unread,) = count(connection, [channel], now=now)
    return Page(found, rest, unread)


def state_of(connection: Connection, channel: Channel, seq: int, *, now: datetime) -> State | None:
    """What became of the alert; None if the event is not an alert, or is no longer kept."""
    state = history.states(connection, [channel])[channel]
    found = _read_between(connection, channel, seq - 1, seq, now, state)
    return found[0].state if found else None


def lineage(connection: Connection, channel: Channel, seq: int) -> list[int]:
    """The alert's seq, then that of what has replaced it, and so on; all but the last were replaced."""
    return list(connection.execute(_LINEAGE, {"of": channel, "at": seq}).scalars())


def lineage_of_order(connection: Connection, channel: Channel, seq: int, order_id: str) -> list[int]:
    """The same from an order's alert, or from what is left of it: one sent again outlives the first."""
    state = history.states(connection, [channel])[channel]
    if seq > state.pruned_seq:
        return lineage(connection, channel, seq)
    start = max(state.pruned_seq, state.head.seq - MAX_READ_ALONE)
    left = [
        later
        for later, head in _backwards(connection, channel, start, state.head.seq)
        if (head.source, head.subject) == (SOURCE, order_id) and not head.type.startswith(SYSTEM)
    ]
    return lineage(connection, channel, left[-1]) if left else [seq]


def retracted(connection: Connection, places: Iterable[tuple[Channel, int]]) -> set[tuple[Channel, int]]:
    """Those of these alerts, by channel and seq, that were taken back, or whose replacement was."""
    found = set()
    lasts = {place: place for place in places}  # by the alert's place, that of what has replaced it
    while lasts:
        given = {
            "channels": list({channel for channel, _ in lasts.values()}),
            "seqs": list({seq for _, seq in lasts.values()}),
        }
        rows = connection.execute(_FINAL_MARKS[connection.dialect.name], given)
        marks = {(row.channel, row.seq): row for row in rows}
        found |= {
            place for place, last in lasts.items() if last in marks and marks[last].state == Mark.RETRACTED
        }
        lasts = {
            place: (last[0], marks[last].by_seq)
            for place, last in lasts.items()
            if last in marks and marks[last].state == Mark.REPLACED and marks[last].by_seq > last[1]
        }
    return found


def read(
    connection: Connection,
    channel: Channel,
    *,
    up_to: Place | None = None,
    ids: Sequence[str] = (),
    now: datetime,
    on_read: Callable[[Connection, dict[Channel, list[Range]]], None] | None = None,
) -> tuple[Unread, bool]:
    """Mark alerts as read: all up to a place, and those with these ids. Returns the count, and if it changed.

    A place beyond the head or of another epoch marks nothing; nor does an unknown id. Raises `NoAlerts`.
    `on_read` gets what is to be marked, in the same transaction and before it is; some may be marked already.
    """
    if not is_private(channel):
        raise NoAlerts(f"{channel} has no alerts that can be read; only a customer's own channel has")
    lock(connection, channel)
    state = history.states(connection, [channel])[channel]
    (before,) = count(connection, [channel], now=now)
    seqs = _seqs_of(connection, channel, state, frozenset(ids)) if ids else []
    if up_to is not None and not (up_to.epoch == state.head.epoch and up_to.seq <= state.head.seq):
        up_to = None
    if on_read is not None:
        (read_seq,) = connection.execute(_READ_SEQ, {"of": channel}).scalars().all() or (0,)
        parts = [Range(seq, seq) for seq in seqs if seq > read_seq]
        if up_to is not None and up_to.seq > read_seq:
            parts.append(Range(max(read_seq, state.pruned_seq) + 1, up_to.seq))
        on_read(connection, {channel: parts})
    if up_to is not None:
        given = {"of": channel, "up_to": up_to.seq}
        if connection.execute(_MOVE_READ, given).rowcount:
            connection.execute(_FORGET_READ, given)
    for seq in seqs:
        mark(connection, channel, seq, Mark.READ)
    (after,) = count(connection, [channel], now=now)
    if after.unread == before.unread:
        return after, False  # also for expired alerts: read or not, they are listed as expired
    places = [str(Cursor(channel, Place(state.head.epoch, seq))) for seq in seqs]
    what = {"cursor": str(Cursor(channel, up_to)) if up_to else None, "alone": places}
    unread = record_change(connection, channel, READ, what, now=now)
    if seqs:
        _gather_read(connection, channel, state.pruned_seq)
    return unread, True


def _gather_read(connection: Connection, channel: Channel, pruned_seq: int) -> None:
    """Where no alert up to one is unread, the cursor covers them all, and the rows of those read are deleted.

    Otherwise a customer who reads alerts one by one would have two rows for each, and every count would read
    all of them.
    """
    (read_seq,) = connection.execute(_READ_SEQ, {"of": channel}).scalars().all() or (0,)
    up_to = begin = max(read_seq, pruned_seq)
    for seq in connection.execute(_NOT_UNREAD, {"of": channel, "after": begin}).scalars():
        if seq != up_to + 1:
            break
        up_to = seq
    if up_to > begin:
        given = {"of": channel, "up_to": up_to}
        connection.execute(_MOVE_READ, given)
        connection.execute(_FORGET_READ, given)


def record_change(
    connection: Connection,
    channel: Channel,
    event_type: str,
    data: dict[str, Any],
    *,
    now: datetime,
    subject: str = "",
    traceparent: str | None = None,
) -> Unread:
    """Record an event of the system in a locked channel; a private one's has the count in its data."""
    epoch, seq = history.states(connection, [channel])[channel].head
    place = Place(epoch, seq + 1)
    (before,) = count(connection, [channel], now=now)
    unread = Unread(channel, before.unread, place)  # not an alert, so it changes nothing itself
    mark(connection, channel, place.seq, Mark.SYSTEM)
    if is_private(channel):
        data = {**data, "unread": unread.unread, "as_of": str(Cursor(channel, place))}
    draft = system_event(event_type, channel, data, now=now, subject=subject, traceparent=traceparent)
    (recorded,) = recording.record(connection, [draft], now=now)
    assert recorded.place == place, "the channel was not locked"
    return unread


def lock(connection: Connection, channel: Channel) -> None:
    """No other transaction records an event of the channel until this one ends."""
    connection.execute(_LOCK, {"of": channel})


def mark(
    connection: Connection, channel: Channel, seq: int, what: Mark, *, by_seq: int | None = None
) -> None:
    """A final mark stays, except that any alert may still be retracted."""
    given = {"of": channel, "at": seq, "what": what.value, "by": by_seq}
    statements = _MARK_FINALLY if what is Mark.RETRACTED else _MARK
    connection.execute(statements[connection.dialect.name], given)


def note(connection: Connection, drafts: Sequence[tuple[Draft, Place]]) -> None:
    """Note when new events expire and which events they replace; most do neither."""
    for draft, place in drafts:
        if draft.expires and is_private(draft.channel):
            given = {"of": draft.channel, "at": place.seq, "moment": draft.expires}
            connection.execute(_EXPIRE_LATER[connection.dialect.name], given)
        if draft.replaces:
            for seq in _replaced(connection, draft, place):
                mark(connection, draft.channel, seq, Mark.REPLACED, by_seq=place.seq)


def is_any_due(connection: Connection, *, now: datetime) -> bool:
    """Whether `expire` has something to do."""
    return connection.execute(_DUE, {"now": format_time(now), "limit": 1}).first() is not None


def expire(connection: Connection, *, now: datetime) -> bool:
    """Record the expiry of some alerts that nobody has read; returns whether any were due."""
    due = connection.execute(_DUE, {"now": format_time(now), "limit": _EXPIRE_AT_ONCE}).all()
    by_channel: dict[Channel, list[int]] = {}
    for row in due:
        by_channel.setdefault(Channel(row.channel), []).append(row.seq)
    for channel, _ in sorted(by_channel.items()):  # by name, the order in which all code locks channels
        lock(connection, channel)
        state = history.states(connection, [channel])[channel]
        given = {"of": channel, "now": format_time(now)}
        seqs = connection.execute(_DUE_OF, given).scalars().all()
        for seq in seqs:
            mark(connection, channel, seq, Mark.EXPIRED)
        (read_seq,) = connection.execute(_READ_SEQ, {"of": channel}).scalars().all() or (0,)
        kept = [seq for seq in seqs if max(state.pruned_seq, read_seq) < seq <= state.head.seq]
        places = [str(Cursor(channel, Place(state.head.epoch, seq))) for seq in kept[:MAX_IDS]]
        if places:
            record_change(connection, channel, EXPIRED, {"alone": places}, now=now)
    return bool(due)


def look(connection: Connection, after: Row = FIRST_ROW) -> Looked:
    """Look at some rows after one, in order of channel and seq, for alerts that the history no longer has."""
    rows = connection.execute(_LOOK, {"of": after.channel, "at": after.seq, "limit": _LOOK_AT_ONCE}).all()
    gone = {row.channel: row.seq for row in rows if row.gone}  # the last of each channel
    last = Row(rows[-1].channel, rows[-1].seq) if len(rows) == _LOOK_AT_ONCE else None
    return Looked(last, [Row(channel, seq) for channel, seq in gone.items()])


def prune(connection: Connection, up_to: Sequence[Row]) -> int:
    """Delete the rows of these channels up to these seqs; returns how many."""
    return sum(
        connection.execute(_DELETE, {"of": channel, "at": seq}).rowcount for channel, seq in sorted(up_to)
    )


def _read_between(
    connection: Connection, channel: Channel, start: int, end: int, now: datetime, state: history.State
) -> list[Alert]:
    """The alerts after `start` up to `end`, oldest first."""
    marks = {row.seq: row for row in connection.execute(_MARKS, {"of": channel, "after": start, "last": end})}
    (read_seq,) = connection.execute(_READ_SEQ, {"of": channel}).scalars().all() or (0,)
    found = []
    for entry in history.between(connection, channel, start, end):
        head = _head(entry)
        if head is None or head.type.startswith(SYSTEM):
            continue
        seen = state.has_seen(entry.place)
        kind = _state(marks.get(entry.place.seq), head, now, read=entry.place.seq <= read_seq, seen=seen)
        found.append(Alert(entry.place, kind, entry.text))
    return found


def _state(row: Any, head: Head, now: datetime, *, read: bool, seen: bool) -> State:
    """What counts most comes first: what an expired alert says no longer holds, though it was read."""
    if row is not None and row.state in (Mark.RETRACTED, Mark.REPLACED):
        return State(row.state)
    if is_over(head, now):
        return State.EXPIRED
    if read or (row is not None and row.state == Mark.READ):
        return State.READ
    return State.SEEN if seen else State.UNSEEN


def is_over(head: Head, now: datetime) -> bool:
    return bool(head.expirytime) and is_time(head.expirytime) and parse_time(head.expirytime) <= now


def _head(entry: Entry) -> Head | None:
    try:
        return read_head(entry.text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _backwards(connection: Connection, channel: Channel, first: int, last: int) -> Iterator[tuple[int, Head]]:
    """The events from `last` back to the one after `first`: seq, and what is read of each."""
    while last > first:
        start = max(first, last - _ROUND)
        for entry in reversed(history.between(connection, channel, start, last)):
            if head := _head(entry):
                yield entry.place.seq, head
        last = start


def _seqs_of(
    connection: Connection, channel: Channel, state: history.State, ids: frozenset[str]
) -> list[int]:
    """The seqs of the alerts with these ids, among the newest."""
    start = max(state.pruned_seq, state.head.seq - MAX_READ_ALONE)
    left, found = set(ids), []
    for seq, head in _backwards(connection, channel, start, state.head.seq):
        if head.id in ids and not head.type.startswith(SYSTEM):
            found.append(seq)
            left.discard(head.id)
        if not left:
            break
    return sorted(found)


def _replaced(connection: Connection, draft: Draft, place: Place) -> list[int]:
    """The seqs of what an event replaces: an event of its source, or what has its subject."""
    if isinstance(draft.replaces, str):
        found = recording.find(connection, draft.source, draft.replaces)
        if found is None or found.channel != draft.channel or found.place >= place:
            return []
        return [found.place.seq]
    if not draft.subject:
        return []
    start = max(0, place.seq - 1 - MAX_SUBJECTS)
    earlier = _backwards(connection, draft.channel, start, place.seq - 1)
    mine = (draft.source, draft.subject)
    return [
        seq
        for seq, head in earlier
        if (head.source, head.subject) == mine and not head.type.startswith(SYSTEM)
    ]


def _each(make: Callable[[str], Insert]) -> dict[str, Insert]:
    return {dialect: make(dialect) for dialect in DIALECTS}


def _insert(dialect: str) -> Any:
    return insert_into(dialect, alert_states)


def _mark(dialect: str) -> Insert:
    statement = _insert(dialect).values(
        channel=bindparam("of"), seq=bindparam("at"), state=bindparam("what"), by_seq=bindparam("by")
    )
    final = (Mark.RETRACTED.value, Mark.REPLACED.value, Mark.SYSTEM.value)
    changed = {"state": statement.excluded.state, "by_seq": statement.excluded.by_seq}
    open_still = alert_states.c.state.is_(None) | alert_states.c.state.not_in(final)
    done: Insert = statement.on_conflict_do_update(index_elements=_KEY, set_=changed, where=open_still)
    return done


def _mark_finally(dialect: str) -> Insert:
    statement = _insert(dialect).values(
        channel=bindparam("of"), seq=bindparam("at"), state=bindparam("what"), by_seq=bindparam("by")
    )
    changed = {"state": statement.excluded.state, "by_seq": statement.excluded.by_seq}
    done: Insert = statement.on_conflict_do_update(index_elements=_KEY, set_=changed)
    return done


def _expire_later(dialect: str) -> Insert:
    statement = _insert(dialect).values(
        channel=bindparam("of"), seq=bindparam("at"), expires_at=bindparam("moment")
    )
    changed = {"expires_at": statement.excluded.expires_at}
    done: Insert = statement.on_conflict_do_update(index_elements=_KEY, set_=changed)
    return done


def _lineage() -> Select[int]:
    line = select(cast(bindparam("at"), BigInteger).label("seq")).cte("line", recursive=True)
    newer = (
        select(alert_states.c.by_seq)
        .join(line, alert_states.c.seq == line.c.seq)
        .where(
            alert_states.c.channel == bindparam("of"),
            alert_states.c.state == Mark.REPLACED.value,
            alert_states.c.by_seq > alert_states.c.seq,  # so it ends
        )
    )
    line = line.union_all(newer)
    return select(line.c.seq).order_by(line.c.seq)


_KEY = [alert_states.c.channel, alert_states.c.seq]
_LINEAGE = _lineage()
_MARK = _each(_mark)
_MARK_FINALLY = _each(_mark_finally)
_EXPIRE_LATER = _each(_expire_later)
_LOCK = select(channels.c.seq).where(channels.c.channel == bindparam("of")).with_for_update()
_READ_SEQ = select(channels.c.read_seq).where(channels.c.channel == bindparam("of"))
_READ_SEQS = {
    dialect: select(channels.c.channel, channels.c.read_seq).where(
        is_among(dialect, channels.c.channel, "channels")
    )
    for dialect in DIALECTS
}
_MARKED = {
    dialect: select(alert_states.c.channel, func.count().label("marked"))
    .join(channels, channels.c.channel == alert_states.c.channel)
    .where(
        is_among(dialect, alert_states.c.channel, "channels"),
        alert_states.c.seq > channels.c.read_seq,
        alert_states.c.seq > channels.c.pruned_seq,
        alert_states.c.state.is_not(None) | (alert_states.c.expires_at <= bindparam("now")),
    )
    .group_by(alert_states.c.channel)
    for dialect in DIALECTS
}
_MARKS = select(alert_states).where(
    alert_states.c.channel == bindparam("of"),
    alert_states.c.seq > bindparam("after"),
    alert_states.c.seq <= bindparam("last"),
)
_MOVE_READ = (
    update(channels)
    .where(channels.c.channel == bindparam("of"), channels.c.read_seq < bindparam("up_to"))
    .values(read_seq=bindparam("up_to"))
)
_FINAL_MARKS = {
    dialect: select(
        alert_states.c.channel, alert_states.c.seq, alert_states.c.state, alert_states.c.by_seq
    ).where(
        is_among(dialect, alert_states.c.channel, "channels"),
        is_among(dialect, alert_states.c.seq, "seqs"),
        alert_states.c.state.in_((Mark.RETRACTED.value, Mark.REPLACED.value)),
    )
    for dialect in DIALECTS
}
# The cursor now covers these, so their rows can go.
_FORGET_READ = delete(alert_states).where(
    alert_states.c.channel == bindparam("of"),
    alert_states.c.seq <= bindparam("up_to"),
    alert_states.c.state.in_((Mark.READ.value, Mark.SYSTEM.value)),
)
_NOT_UNREAD = (
    select(alert_states.c.seq)
    .where(
        alert_states.c.channel == bindparam("of"),
        alert_states.c.seq > bindparam("after"),
        alert_states.c.state.is_not(None),
    )
    .order_by(alert_states.c.seq)
    .limit(_GATHER_AT_ONCE)
)
# The channel is found for each row alone: joined, PostgreSQL might read all channels.
_LOOK = text(
    """
    SELECT channel, seq,
        (SELECT pruned_seq FROM channels WHERE channels.channel = looked.channel) >= seq AS gone
    FROM (
        SELECT channel, seq FROM alert_states WHERE (channel, seq) > (:of, :at)
        ORDER BY channel, seq LIMIT :limit) AS looked
    ORDER BY channel, seq
    """
)
_DELETE = delete(alert_states).where(
    alert_states.c.channel == bindparam("of"), alert_states.c.seq <= bindparam("at")
)
_WAITING = (alert_states.c.state.is_(None), alert_states.c.expires_at <= bindparam("now"))
_DUE = (
    select(alert_states.c.channel, alert_states.c.seq)
    .where(*_WAITING)
    .order_by(alert_states.c.expires_at)
    .limit(bindparam("limit"))
)
_DUE_OF = (
    select(alert_states.c.seq)
    .where(alert_states.c.channel == bindparam("of"), *_WAITING)
    .order_by(alert_states.c.seq)
    .limit(_EXPIRE_AT_ONCE)
)
