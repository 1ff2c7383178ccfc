"""What alembic runs: our connection, our transaction, no files beside the versions."""

from alembic import context

from sender.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
