"""Makes the secrets of one installation, once: each is a file that the services read by `…_FILE`.

What is there stays as it is, so every start of the same installation finds the same keys.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path


def make_keys(directory: Path) -> None:
    password = _keep(directory / "postgres_password", secrets.token_hex(32))
    _keep(directory / "database_url", f"postgresql+asyncpg://orderbell:{password}@postgres:5432/orderbell")
    _keep(directory / "api_keys", secrets.token_hex(32))
    _keep(directory / "jwt_secret", secrets.token_hex(32))


def _keep(path: Path, text: str) -> str:
    """What the file holds; the text, where there was none."""
    if not path.exists():
        new = path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.chmod(0o444)  # PostgreSQL reads its password as another user
        os.replace(new, path)  # never half a key, whenever this is stopped
        print(f"made {path}")
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    make_keys(Path(sys.argv[1]))
