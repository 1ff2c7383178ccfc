"""The outbox becomes a table of its own, and tables get settings for vacuuming.

`events.content` gets another name so that a sender of before, which would record events without putting them
into the outbox, fails where it writes, and its callers try again.

On PostgreSQL no row of `events` is rewritten: columns are renamed and dropped in the catalogue. On SQLite the
column `published_at` stays where there are events, and is not used: dropping it would rewrite the file.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"

_HAS_EVENTS = "SELECT EXISTS (SELECT 1 FROM events)"
_ENTER = "INSERT INTO outbox (position, epoch) SELECT position, epoch FROM events WHERE published_at IS NULL"
# Rows of the outbox live for a moment; vacuuming is cheap where it comes early.
_VACUUM = {
    "outbox": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,"
    " autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0,"
    " autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0",
    "events": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,"
    " autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1",
    "channels": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05",
    "orders": "fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05",
    "idempotency": "autovacuum_vacuum_scale_factor = 0.05",
}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite()
        return
    op.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")  # at once: raising a weaker lock could deadlock
    op.execute(
        "CREATE TABLE outbox (position bigint NOT NULL, epoch bigint NOT NULL,"
        " CONSTRAINT outbox_pkey PRIMARY KEY (position))"
    )
    op.execute(_ENTER)
    op.execute("ALTER TABLE events RENAME COLUMN content TO content_digest")
    op.execute("ALTER TABLE events DROP COLUMN published_at")  # and its index with it
    for table, settings in _VACUUM.items():
        op.execute(f"ALTER TABLE {table} SET ({settings})")


def _upgrade_sqlite() -> None:
    op.create_table(
        "outbox",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("outbox_pkey")),
    )
    op.execute(_ENTER)
    op.drop_index("events_unpublished_index", "events")
    op.execute("ALTER TABLE events RENAME COLUMN content TO content_digest")
    if not op.get_bind().execute(sa.text(_HAS_EVENTS)).scalar_one():
        op.execute("ALTER TABLE events DROP COLUMN published_at")
