"""An alert's life: what was read, retracted, replaced or has expired; and cancelled orders."""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"


def upgrade() -> None:
    op.add_column("channels", sa.Column("read_seq", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("orders", sa.Column("cancelled_at", sa.String(length=24), nullable=True))
    op.create_table(
        "alert_states",
        sa.Column("channel", sa.String(length=1545), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=True),
        sa.Column("by_seq", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.String(length=24), nullable=True),
        sa.PrimaryKeyConstraint("channel", "seq", name=op.f("alert_states_pkey")),
    )
    waits = sa.text("state IS NULL AND expires_at IS NOT NULL")
    op.create_index(
        "alert_states_expires_at_index",
        "alert_states",
        ["expires_at"],
        unique=False,
        sqlite_where=waits,
        postgresql_where=waits,
    )
