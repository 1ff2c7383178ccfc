"""A browser's connection, whatever its transport."""
