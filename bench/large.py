"""Statements that fill a database with channels, events and orders, as sets."""

from __future__ import annotations

MESSAGE = "m" * 150  # texts of events are then about 400 bytes long
LONG_AGO = "2026-01-01T00:00:00.000Z"
FRESH = 1_000  # events, the newest
# Retention trusts a clock that events of the day before confirm; a kept database grows old.
_FRESHEN = """
    UPDATE events SET recorded_at = {at} WHERE position > (SELECT max(position) - {count} FROM events)
"""

# `{series}` has a column n from 1 on, `{digest}` makes a digest of n.
_EVENT = (
    """'{{"specversion":"1.0","id":"' || n || '","source":"/filled","type":"order.completed","time":"'"""
    """ || {at}"""
    """ || '","datacontenttype":"application/json","channel":"customer:filled-' || {channel}"""
    """ || '","epoch":1,"seq":' || {seq} || ',"data":{{"message":"{message}"}}}}'"""
)
_CHANNELS = """
    INSERT INTO channels (channel, seq, pruned_seq, epoch)
    SELECT 'customer:filled-' || n, {each}, 0, 1 FROM {series}
"""
_EVENTS = """
    INSERT INTO events (channel, seq, epoch, identity, content_digest, recorded_at, text)
    SELECT 'customer:filled-' || {channel}, {seq}, 1, {digest}, '', {at}, {event} FROM {series}
"""
_ORDERS = """
    INSERT INTO orders (order_id, customer_id, status, created_at, completed_at, seq, data)
    SELECT 'filled-' || n, 'filled-' || {channel}, 'completed', {at}, {at}, {seq}, '{{}}' FROM {series}
"""


def statements(
    channels: int, events: int, at: str, *, digest: str, series: str, orders: bool = True
) -> list[str]:
    """`events` in all, evenly over the channels, in rounds; recorded at that moment, an SQL expression."""
    channel, seq = f"((n - 1) % {channels} + 1)", f"((n - 1) / {channels} + 1)"
    text = _EVENT.format(at=at, channel=channel, seq=seq, message=MESSAGE)
    own = {"channel": channel, "seq": seq, "at": at, "digest": digest, "event": text}
    rows = {"series": series.format(count=events), **own}
    return [
        _CHANNELS.format(series=series.format(count=channels), each=events // channels),
        _EVENTS.format(**rows),
        *([_ORDERS.format(**rows)] if orders else []),
    ]


def open_orders(count: int, channels: int, *, prefix: str, now: str, series: str) -> str:
    """Orders to be completed, of customers all over the table. `series` has a column n from 1 on."""
    return f"""
        INSERT INTO orders (order_id, customer_id, status, created_at, data)
        SELECT '{prefix}-' || n, 'filled-' || (CAST(n AS bigint) * 7919 % {channels} + 1), 'open', {now},
               '{{}}'
        FROM {series}
    """


def freshen(at: str) -> str:
    """The newest events are stamped with that moment, an SQL expression."""
    return _FRESHEN.format(at=at, count=FRESH)


def as_of_postgres(channels: int, events: int, at: str) -> list[str]:
    """`at` is an SQL expression; n counts the events."""
    return statements(
        channels, events, at, digest="md5(CAST(n AS text))", series="generate_series(1, {count}) AS n"
    )
