"""For support: which API key an event came with, and when senders could not publish."""

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"


def upgrade() -> None:
    # A constant default: no row is rewritten, on either database.
    op.add_column("events", sa.Column("accepted_by", sa.String(length=32), nullable=False, server_default=""))
    op.create_table(
        "stops",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("began_at", sa.String(length=24), nullable=False),
        sa.Column("ended_at", sa.String(length=24), nullable=False),
        sa.Column("sender", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=1545), nullable=True),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("stops_pkey")),
    )
    op.create_index(op.f("stops_ended_at_index"), "stops", ["ended_at"], unique=False)
