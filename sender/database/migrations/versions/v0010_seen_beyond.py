"""What customers have seen beyond their seen place: a later alert may be seen before an earlier one.

A constant default: neither database rewrites a row.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    op.add_column(
        "channels", sa.Column("seen_beyond", sa.String(length=2176), nullable=False, server_default="")
    )
