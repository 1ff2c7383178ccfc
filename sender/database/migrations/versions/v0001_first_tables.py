"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None


def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("channel", sa.String(length=160), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("pruned_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seen_epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seen_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("channel", name=op.f("channels_pkey")),
    )
    op.create_table(
        "events",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("channel", sa.String(length=160), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("identity", sa.String(length=32), nullable=False),
        sa.Column("content", sa.String(length=32), nullable=False),
        sa.Column("recorded_at", sa.String(length=24), nullable=False),
        sa.Column("published_at", sa.String(length=24), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("events_pkey")),
        sa.UniqueConstraint("channel", "seq", name=op.f("events_channel_seq_key")),
        sa.UniqueConstraint("identity", name=op.f("events_identity_key")),
    )
    op.create_index(
        "events_unpublished_index",
        "events",
        ["position"],
        unique=False,
        sqlite_where=sa.text("published_at IS NULL"),
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("generation_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("generation_pkey")),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.String(length=32), nullable=False),
        sa.Column("body", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("scope", name=op.f("idempotency_pkey")),
    )
    op.create_index("idempotency_created_at_index", "idempotency", ["created_at"], unique=False)
    op.create_table(
        "orders",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("order_id", sa.String(length=128), nullable=False),
        sa.Column("customer_id", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=24), nullable=False),
        sa.Column("completed_at", sa.String(length=24), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.CheckConstraint("status IN ('open', 'completed')", name=op.f("orders_status_check")),
        sa.PrimaryKeyConstraint("position", name=op.f("orders_pkey")),
        sa.UniqueConstraint("order_id", name=op.f("orders_order_id_key")),
    )
    op.create_index(
        "orders_customer_id_status_index", "orders", ["customer_id", "status", "position"], unique=False
    )
    op.create_index("orders_status_index", "orders", ["status", "position"], unique=False)
    op.execute("INSERT INTO generation (id, epoch) VALUES (1, 1)")
