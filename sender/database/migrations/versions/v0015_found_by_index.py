"""Indexes for what was looked for in all rows: cancelled and completed orders, revocations that have ended,
dead letters of a channel.

An order is in the indexes of what it is: open, completed or cancelled. Together they replace the index of all
orders of a customer. PostgreSQL's are built as in version 0006.
"""

import sqlalchemy as sa
from alembic import context, op

revision: str = "0015"
down_revision: str | None = "0014"

_COMPLETED = "WHERE status = 'completed' AND cancelled_at IS NULL"
_CANCELLED = "WHERE cancelled_at IS NOT NULL"
_INDEXES = {
    "orders_completed_index": f"orders (position) {_COMPLETED}",
    "orders_cancelled_index": f"orders (position) {_CANCELLED}",
    "orders_customer_id_completed_index": f"orders (customer_id, position) {_COMPLETED}",
    "orders_customer_id_cancelled_index": f"orders (customer_id, position) {_CANCELLED}",
    "revocations_kept_until_index": "revocations (kept_until)",
    "dead_letters_channel_index": "dead_letters (channel)",
}
_REPLACED = "orders_customer_id_position_index"
_IS_EMPTY = """
    SELECT NOT EXISTS (SELECT FROM orders) AND NOT EXISTS (SELECT FROM revocations)
        AND NOT EXISTS (SELECT FROM dead_letters)
"""


def upgrade() -> None:
    if context.is_offline_mode() and op.get_context().dialect.name == "postgresql":
        schema = context.config.attributes["schema"]
        with op.get_context().autocommit_block():  # the search path is not ours there
            for name, what in _INDEXES.items():
                op.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{name}')
                op.execute(f'CREATE INDEX CONCURRENTLY {name} ON "{schema}".{what}')
            op.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{_REPLACED}')
        return
    if op.get_context().dialect.name == "postgresql":
        if not op.get_bind().execute(sa.text(_IS_EMPTY)).scalar_one():
            return
    for name, what in _INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {what}")
    # It may never have been built: a table that has no rows now had some when version 0006 came.
    op.execute(f"DROP INDEX IF EXISTS {_REPLACED}")
