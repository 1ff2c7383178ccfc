"""Room for names that are percent-encoded in channels: 128 characters of up to 12 bytes."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return  # it ignores a text's declared length
    # PostgreSQL changes only its catalog for this: no row is rewritten, no index rebuilt.
    for table in ("channels", "events", "dead_letters"):
        op.alter_column(table, "channel", type_=sa.String(length=1545), existing_nullable=False)
