"""Webhooks: what is to be delivered, and how far alerts that nobody has seen were looked for."""

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"


def upgrade() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("channel", sa.String(length=1545), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("noted_at", sa.String(length=24), nullable=False),
        sa.Column("due_at", sa.String(length=24), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ended_at", sa.String(length=24), nullable=True),
        sa.Column("outcome", sa.String(length=12), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("channel", "seq", "kind", name=op.f("webhook_deliveries_pkey")),
    )
    for column in ("due_at", "ended_at"):
        is_set = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"webhook_deliveries_{column}_index",
            "webhook_deliveries",
            [column],
            unique=False,
            sqlite_where=is_set,
            postgresql_where=is_set,
        )
    op.create_table(
        "webhook_search",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("webhook_search_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_search_pkey")),
    )
