"""`orderbell migrate`: brings the database's schema to this release, for services that may not.

The sender does it at every start. Where its role may not change tables, an owner runs this before: with the
owner's `ORDERBELL_DATABASE_URL`, and `--role` for the role that the sender runs as.
"""

from __future__ import annotations

import subprocess

import orderbell_start


def run(*, sql: bool, role: str | None) -> int:
    """The exit code. The work is the sender's, which shared commands don't import."""
    arguments = [*(["--sql"] if sql else []), *(["--role", role] if role else [])]
    return subprocess.run([*orderbell_start.command("sender.database.migrate"), *arguments]).returncode
