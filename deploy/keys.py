"""Makes the secrets of one installation, once: each is a file that the services read by `…_FILE`.

Existing files are kept, so every start of an installation finds the same keys. Only `users.acl`, the users of
Valkey, is written each time: from deploy/users.acl, which a new version may have changed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import urlsplit

USERS = ("sender", "gateway")  # of Valkey


def make_keys(directory: Path) -> None:
    password = _keep(directory / "postgres_password", secrets.token_hex(32))
    _keep(directory / "database_url", f"postgresql+asyncpg://orderbell:{password}@postgres:5432/orderbell")
    _keep(directory / "api_keys", secrets.token_hex(32))
    _keep(directory / "jwt_secret", secrets.token_hex(32))
    _keep(directory / "live_keys", f"1:{secrets.token_hex(32)}")
    digests = {}
    for user in USERS:
        url = f"redis://{user}:{secrets.token_hex(32)}@valkey:6379/0"
        known = urlsplit(_keep(directory / f"{user}_redis_url", url)).password or ""
        digests[user] = hashlib.sha256(known.encode()).hexdigest()
    acl = Path(__file__).with_name("users.acl").read_text(encoding="utf-8")
    prefix = os.environ.get("ORDERBELL_KEY_PREFIX") or "ob"
    _write(directory / "users.acl", users_acl(acl, digests, prefix=prefix))


def users_acl(template: str, digests: dict[str, str], *, prefix: str = "ob") -> str:
    """The users of deploy/users.acl with their passwords, as SHA-256, and with the prefix of our keys."""
    for user, digest in digests.items():
        template = template.replace(f"user {user} on ", f"user {user} on #{digest} ")
    return template.replace("~ob:", f"~{prefix}:").replace("&ob:", f"&{prefix}:")


def _keep(path: Path, text: str) -> str:
    """The content of the file, which is made with the text if it is missing."""
    if not path.exists():
        _write(path, text)
        print(f"made {path}")
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o444)  # PostgreSQL and Valkey read theirs as other users
    os.replace(new, path)  # never half a key, whenever this is stopped


if __name__ == "__main__":
    make_keys(Path(sys.argv[1]))
