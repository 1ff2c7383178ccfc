"""Where channels begin, so that the rows of those that have nothing left can be removed."""

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"


def upgrade() -> None:
    op.add_column("generation", sa.Column("begin_after", sa.BigInteger(), nullable=False, server_default="0"))
