"""A real PgBouncer in front of a PostgreSQL, with its defaults except where a test overrides them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from shared.commands.embedded import free_port
from tests.postgres_servers import _answers as answers
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = "not run: no pgbouncer on this machine"


def binary() -> str | None:
    return shutil.which("pgbouncer") or next(
        (path for path in ("/usr/sbin/pgbouncer",) if os.access(path, os.X_OK)), None
    )


def require() -> str:
    """Skips the test if there is none, and fails it in CI."""
    found = binary()
    if found is not None:
        return found
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(NONE, pytrace=False)
    pytest.skip(NONE)


@contextlib.contextmanager
def pgbouncer(database_url: str, process_group: int, **settings: str | int) -> Iterator[str]:
    """The URL of the same database, through PgBouncer."""
    directory = Path(tempfile.mkdtemp(prefix="orderbell-pgbouncer-"))
    server, port = urlsplit(database_url), free_port()
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "logfile": directory / "log",
        "max_client_conn": 200,
        **settings,
    }
    name = server.path.removeprefix("/")
    target = f"{name} = host={server.hostname} port={server.port} user={server.username}"
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n{target}\n[pgbouncer]\n"
        + "".join(f"{key} = {value}\n" for key, value in lines.items())
    )
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # as which it refuses to run
        entry = pwd.getpwnam("postgres")
        as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        for path in (directory, directory / "pgbouncer.ini"):
            shutil.chown(path, entry.pw_uid, entry.pw_gid)
    process = subprocess.Popen(
        [require(), directory / "pgbouncer.ini"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=process_group,
        **as_user,
    )
    url = server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
    try:
        wait_until(lambda: process.poll() is not None or answers(url), timeout=10)
        assert process.poll() is None, (directory / "log").read_text()
        yield url
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)
