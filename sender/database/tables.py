"""The tables of the sender's database, the same on SQLite and PostgreSQL.

Times are RFC 3339 texts, in UTC with milliseconds: they sort in order of time, and need no conversion on the
way out.

`events` is the history, `outbox` names those of its rows that wait to be published. One transaction writes
both, so nothing can be in one and missing in the other; publishing deletes from `outbox` and touches no row
of `events`, which is large. (One table was both until migration 0007: every event was written twice, with all
its indexes.) An event that can't be published is kept in `dead_letters`; a tombstone (sender/tombstones.py)
replaces it in `events`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
)
from sqlalchemy.dialects import postgresql, sqlite

from shared.channels import MAX_CHANNEL, MAX_NAME
from shared.extents import MAX_RANGES_TEXT

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_index",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "pk": "%(table_name)s_pkey",
    }
)

# SQLite numbers rows by itself only if the type is exactly INTEGER.
_Position = BigInteger().with_variant(Integer, "sqlite")
_Time = String(24)
_Name = String(MAX_NAME)
_Channel = String(MAX_CHANNEL)  # in its encoded form, so with plain characters only
_Digest = String(32)

channels = Table(
    "channels",
    metadata,
    Column("channel", _Channel, primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of its newest event; its row lock orders the channel
    Column("pruned_seq", BigInteger, nullable=False, server_default="0"),  # deleted up to here
    # The epoch of its newest event. If that epoch is over, all of the channel's events count as deleted.
    Column("epoch", BigInteger, nullable=False, server_default="1"),
    Column("seen_epoch", BigInteger, nullable=False, server_default="0"),  # 0: never reported
    Column("seen_seq", BigInteger, nullable=False, server_default="0"),
    # What was seen beyond it, as `+42+45-47` (shared/extents.py), while earlier alerts still wait elsewhere.
    Column("seen_beyond", String(MAX_RANGES_TEXT), nullable=False, server_default=""),
    Column("read_seq", BigInteger, nullable=False, server_default="0"),  # all up to here was read
)

events = Table(
    "events",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=True),
    Column("channel", _Channel, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("identity", _Digest, nullable=False),  # of source and id, which may be long
    # Of what the caller posted: distinguishes a repetition from a clash.
    Column("content_digest", _Digest, nullable=False),
    Column("recorded_at", _Time, nullable=False),
    # The name of the API key it came with, empty if that has none. Not null: a ninth column that may be null
    # would cost each row of PostgreSQL 8 bytes.
    Column("accepted_by", String(32), nullable=False, server_default=""),
    Column("text", Text, nullable=False),  # the event's final JSON; last, as it may fill pages of its own
    UniqueConstraint("channel", "seq"),
)
# An identity is unique: on SQLite its column is, on PostgreSQL this, in half the bytes (migration 0008).
IDENTITY_AS_UUID = "CAST(lpad(identity, 32, '0') AS uuid)"

# When a new epoch begins, events that still wait move into it, in both tables.
outbox = Table(
    "outbox",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=False),  # of a row of `events`
    Column("epoch", BigInteger, nullable=False),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=False),  # as in `events`
    Column("channel", _Channel, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("identity", _Digest, nullable=False),
    Column("recorded_at", _Time, nullable=False),
    Column("given_up_at", _Time, nullable=False),
    Column("reason", String(16), nullable=False),  # a sender.tombstones.Fault
    Column("detail", Text, nullable=False),  # Redis' error, if it was Redis that refused
    Column("text", Text, nullable=False),  # unchanged from `events`, whatever it is
)
Index("dead_letters_given_up_at_index", dead_letters.c.given_up_at)
Index("dead_letters_channel_index", dead_letters.c.channel)  # for an erasure

# What became of single alerts, where their channel's row does not say it: see sender/alerts.py.
alert_states = Table(
    "alert_states",
    metadata,
    Column("channel", _Channel, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String(12)),  # a sender.alerts.Mark; null while it only waits for its expiry
    Column("by_seq", BigInteger),  # of the event that changed it
    Column("expires_at", _Time),
)
_EXPIRES = (alert_states.c.state.is_(None), alert_states.c.expires_at.is_not(None))
Index(
    "alert_states_expires_at_index",
    alert_states.c.expires_at,
    sqlite_where=and_(*_EXPIRES),
    postgresql_where=and_(*_EXPIRES),
)

orders = Table(
    "orders",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=True),
    Column("order_id", _Name, nullable=False, unique=True),
    Column("customer_id", _Name, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("completed_at", _Time),
    Column("cancelled_at", _Time),  # whatever its status; a cancelled order is no longer open
    Column("seq", BigInteger),  # of its event, in its customer's channel
    Column("data", Text, nullable=False),  # JSON as the caller gave it
    CheckConstraint("status IN ('open', 'completed')", name="status"),
)
# An order is in the two indexes of what it is, and moves when that changes. So a page of orders costs the
# same, whatever the others are. Few are open or cancelled: those indexes stay small.
OPEN = orders.c.status == literal_column("'open'")
COMPLETED = and_(orders.c.status == literal_column("'completed'"), orders.c.cancelled_at.is_(None))
CANCELLED = orders.c.cancelled_at.is_not(None)
for _name, _which in (("open", OPEN), ("completed", COMPLETED), ("cancelled", CANCELLED)):
    for _prefix, _columns in (
        ("orders", (orders.c.position,)),
        ("orders_customer_id", (orders.c.customer_id, orders.c.position)),
    ):
        Index(f"{_prefix}_{_name}_index", *_columns, sqlite_where=_which, postgresql_where=_which)

idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", _Digest, primary_key=True),  # digest of API key, method, path and Idempotency-Key
    Column("body", _Digest, nullable=False),  # digest of the request's body, as it was sent
    Column("created_at", _Time, nullable=False),
    Column("status", Integer),  # null if the answer is not kept but computed again
    Column("answer", Text),
    Column("content", _Digest),  # digest of the body's content; null if an older version stored it
)
Index("idempotency_created_at_index", idempotency.c.created_at)

revocations = Table(
    "revocations",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),  # token or customer
    Column("name", String(256), nullable=False),  # the token's jti or the customer's id
    Column("issued_before", Float(53)),  # of a customer; seconds since 1970, as a token's iat
    Column("revoked_at", _Time, nullable=False),
    Column("kept_until", Float(53), nullable=False),  # seconds since 1970; what it means has ended then
    UniqueConstraint("kind", "name"),
)
Index("revocations_kept_until_index", revocations.c.kept_until)

# Times in which a sender published nothing, or nothing of one channel; see sender/publishing/stops.py.
stops = Table(
    "stops",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=True),
    Column("began_at", _Time, nullable=False),
    Column("ended_at", _Time, nullable=False),
    Column("sender", String(64), nullable=False),
    Column("channel", _Channel),  # null: all channels
    Column("cause", String(16), nullable=False),  # a sender.publishing.stops.Cause
    Column("detail", Text, nullable=False),
)
Index("stops_ended_at_index", stops.c.ended_at)

# The senders of this database and what they announce of their settings: see sender/peers.py.
senders = Table(
    "senders",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("settings", Text, nullable=False),  # shared.agreement.announced
    Column("beat", BigInteger, nullable=False),  # grows while the sender runs
)

# Reports to the shop's own server, sender/webhooks; without ORDERBELL_WEBHOOK_URL there are none. At most one
# of each kind for an alert. Either `due_at` is set, or it has ended.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("channel", _Channel, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(24), primary_key=True),  # a sender.webhooks.message.Kind
    Column("noted_at", _Time, nullable=False),
    Column("due_at", _Time),  # the next attempt; while one is made, when another sender may take over
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("ended_at", _Time),
    Column("outcome", String(12)),  # a sender.webhooks.deliveries.Outcome; null as long as it is due
    Column("detail", Text, nullable=False, server_default=""),  # why the last attempt failed
)
for _column in (webhook_deliveries.c.due_at, webhook_deliveries.c.ended_at):
    Index(
        f"webhook_deliveries_{_column.name}_index",
        _column,
        sqlite_where=_column.is_not(None),
        postgresql_where=_column.is_not(None),
    )

# Up to which position of `events` alerts that no device has shown in time were looked for.
webhook_search = Table(
    "webhook_search",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

generation = Table(
    "generation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),  # grows when the database itself went back
    Column("installation", String(32)),  # the id of this database; null until a sender mints it
    # A channel without a row begins after this seq: no removed one was beyond (sender/beginnings.py).
    Column("begin_after", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("id = 1", name="one_row"),
)


Insert = sqlite.Insert | postgresql.Insert
DIALECTS = ("sqlite", "postgresql")


def insert_into(dialect: str, table: Table) -> Insert:
    """An INSERT with ON CONFLICT, which both databases have and the standard lacks."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
