"""The sender's database: SQLite or PostgreSQL, tables, migrations."""
