"""PostgreSQL's index of identities has 16 bytes for each, half of their text.

Where there are events, it is built afterwards, beside the senders' work
(sender/database/postgres_indexes.py); as SQL, here. The old one goes when it is there: an identity is unique
at every moment.
"""

import sqlalchemy as sa
from alembic import context, op

revision: str = "0008"
down_revision: str | None = "0007"

_NAME = "events_identity_uuid_index"
_ON = "CAST(lpad(identity, 32, '0') AS uuid)"
_IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM events)"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return
    schema = context.config.attributes["schema"]
    if not context.is_offline_mode():
        if not op.get_bind().execute(sa.text(_IS_EMPTY)).scalar_one():
            return
        op.execute(f"CREATE UNIQUE INDEX {_NAME} ON events (({_ON}))")
    else:
        with op.get_context().autocommit_block():  # the search path is not ours there
            op.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{_NAME}')
            op.execute(f'CREATE UNIQUE INDEX CONCURRENTLY {_NAME} ON "{schema}".events (({_ON}))')
    op.execute(f'ALTER TABLE "{schema}".events DROP CONSTRAINT IF EXISTS events_identity_key')
