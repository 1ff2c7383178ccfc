"""Tokens that were revoked."""

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"


def upgrade() -> None:
    op.create_table(
        "revocations",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("issued_before", sa.Float(53), nullable=True),
        sa.Column("revoked_at", sa.String(length=24), nullable=False),
        sa.Column("kept_until", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("revocations_pkey")),
        sa.UniqueConstraint("kind", "name", name=op.f("revocations_kind_name_key")),
    )
