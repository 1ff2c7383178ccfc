"""A channel's own epoch, so that a new one rewrites nothing; and the indexes that lists of orders need.

The column's default is the current epoch: no row is touched. Where there are orders, PostgreSQL's indexes are
built afterwards, beside the senders' work (sender/database/postgres_indexes.py); as SQL, here.
"""

import sqlalchemy as sa
from alembic import context, op

revision: str = "0006"
down_revision: str | None = "0005"

_INDEXES = {
    "orders_customer_id_position_index": "(customer_id, position)",
    "orders_open_index": "(position) WHERE status = 'open'",
    "orders_customer_id_open_index": "(customer_id, position) WHERE status = 'open'",
}
_IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM orders)"
_REPLACED = ("orders_customer_id_status_index", "orders_status_index")


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        (epoch,) = op.get_bind().execute(sa.text("SELECT epoch FROM generation")).one()
        op.add_column(
            "channels", sa.Column("epoch", sa.BigInteger(), nullable=False, server_default=str(epoch))
        )
        for name, what in _INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON orders {what}")
        for name in _REPLACED:
            op.drop_index(name, "orders")
        return
    schema = context.config.attributes["schema"]
    op.execute(
        """
        DO $orderbell$ BEGIN
          EXECUTE 'ALTER TABLE channels ADD COLUMN IF NOT EXISTS epoch bigint NOT NULL DEFAULT '
                  || (SELECT epoch FROM generation);
        END $orderbell$
        """
    )
    if not context.is_offline_mode():
        if not op.get_bind().execute(sa.text(_IS_EMPTY)).scalar_one():
            return
        for name, what in _INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON orders {what}")
        for name in _REPLACED:
            op.execute(f"DROP INDEX {name}")
        return
    with op.get_context().autocommit_block():  # the search path is not ours there
        for name, what in _INDEXES.items():
            op.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{name}')
            op.execute(f'CREATE INDEX CONCURRENTLY {name} ON "{schema}".orders {what}')
        for name in _REPLACED:
            op.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{name}')
