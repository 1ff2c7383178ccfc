"""`orderbell migrate`: brings the database's schema to this release, for senders that may not change tables.

A sender does so at every start. If its role may not change tables, an owner runs this first, with the owner's
`ORDERBELL_DATABASE_URL` and `--role` for the role that the sender runs as.
"""

from __future__ import annotations

import subprocess

import orderbell_start


def run(*, sql: bool, role: str | None) -> int:
    """Returns the exit code. The sender's package does the work, in a process of its own."""
    arguments = [*(["--sql"] if sql else []), *(["--role", role] if role else [])]
    return subprocess.run([*orderbell_start.command("sender.database.migrate"), *arguments]).returncode
