"""A gateway's process: its parts, its workers, its server."""
