"""The id of this database: it distinguishes installations that share a Redis."""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    # Minted by a sender, not here: the same SQL may be applied to several databases.
    op.add_column("generation", sa.Column("installation", sa.String(length=32), nullable=True))
