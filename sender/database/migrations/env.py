"""What alembic runs: our connection, no files beside the versions.

On SQLite the caller has begun the transaction, which is also the lock. On PostgreSQL each version has its
own, so that an index can be built concurrently, which is impossible inside a transaction.
"""

from alembic import context

from sender.database.tables import metadata

attributes = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name=attributes["dialect"], target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (connection := attributes["connection"]).dialect.name == "sqlite":
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()
else:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
