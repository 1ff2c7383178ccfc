"""A PostgreSQL of our own, as durable as its defaults make it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.commands.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_SECONDS = 30.0


def find_binaries() -> Path | None:
    """The newest on PATH or where Debian keeps it; None where it could not run either."""
    if os.geteuid() == 0 and _unprivileged_user() is None:
        return None
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return debian[-1].parent if debian else None


@contextlib.contextmanager
def running_postgres(
    binaries: Path, directory: Path, group: int, *more: str, data: Path | None = None
) -> Iterator[str]:
    """The URL of a database, empty or begun with a copy of `data`, the directory of a server that has ended.

    `more` settings; what it logs is in the file `log` in that directory.
    """
    user = _unprivileged_user() or {}
    directory.mkdir(parents=True)
    # PostgreSQL refuses to run as root, so its directory and the way to it must be another user's.
    if user:
        shutil.chown(directory, user["user"], user["group"])
    if data is None:
        command: list[str | Path] = [binaries / "initdb", "-D", directory / "data"]
        command += ["-U", "orderbell", "-A", "trust", "-E", "UTF8", "--locale=C"]
    else:
        command = ["cp", "-a", data, directory / "data"]
    subprocess.run(command, check=True, capture_output=True, cwd=directory, **({} if data else user))
    port = free_port()
    settings = [
        f"port={port}",
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=100",
        *more,
    ]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                str(binaries / "postgres"),
                "-D",
                str(directory / "data"),
                *(w for s in settings for w in ("-c", s)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=group,
            cwd=directory,
            **user,
        )
    try:
        _wait_ready(binaries, port, server)
        yield f"postgresql+asyncpg://orderbell@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # its "fast" shutdown
        server.wait()


def _wait_ready(binaries: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    asked = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(asked, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise OSError("PostgreSQL did not get ready")
        time.sleep(0.05)


def _unprivileged_user() -> dict[str, Any] | None:
    """Popen's arguments for a user that PostgreSQL accepts; none are needed where we are no root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        return None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
