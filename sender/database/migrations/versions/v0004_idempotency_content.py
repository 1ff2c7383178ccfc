"""A digest of the content of a request's body, beside that of its bytes."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    op.add_column("idempotency", sa.Column("content", sa.String(length=32), nullable=True))
