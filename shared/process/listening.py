"""Listening: binds sockets before anything else starts, or prints one line that says why it can't."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 4096  # connections that wait to be accepted: a gateway's browsers may all come at once
USER_TIMEOUT_MS = 20_000


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """The bound socket; `shared`: other processes of ours bind it, too.

    A port in use, or an address that is not ours, is one line and exit code 2.
    """
    if not 0 <= port <= 65535:
        _end(f"cannot listen on {host} port {port}: a port is a number up to 65535")
    try:
        return _listen(host, port, reuse_port=shared)
    except OSError as error:
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        _end(f"cannot listen on {host} port {port}: {why}")


@contextlib.contextmanager
def listening_on(host: str, port: int, uds: str | None = None) -> Iterator[socket.socket]:
    """As `listen`, or as `listen_unix` if `uds` is given; its file is removed at the end."""
    with listen(host, port) if uds is None else listen_unix(uds) as listening:
        try:
            yield listening
        finally:
            listening.close()
            if uds is not None:
                remove_unix(uds)


def listen_unix(path: str) -> socket.socket:
    """A bound Unix socket; a file that an earlier process left is replaced. Faults end as those of `listen`.

    Any local user may connect, as to a port on loopback; the directory's mode can restrict that.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_over(path):
            os.unlink(path)
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        in_use = error.errno == errno.EADDRINUSE
        why = "another process listens there" if in_use else error.strerror or str(error)
        _end(f"cannot listen on {path}: {why}")
    return listening


def remove_unix(path: str) -> None:
    """Remove the file of a closed socket, unless another process listens there by now."""
    with contextlib.suppress(OSError):
        if not _answers(path):
            os.unlink(path)


def _is_left_over(path: str) -> bool:
    """Whether an abandoned socket is there. Raises `OSError` if it is something else."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "a file there is not a socket")
    except FileNotFoundError:
        return False
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "in use")
    return True


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def _end(line: str) -> NoReturn:
    print(f"orderbell: {line}", file=sys.stderr)
    raise SystemExit(2)


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """That many sockets on one port, each with its own queue. Linux spreads connections evenly over them.

    Faults end the process as those of `listen` do.
    """
    # The first socket binds without SO_REUSEPORT, which would let it share the port of another program of
    # ours unnoticed. It gets the option afterwards, which is early enough for the others that join.
    first = listen(host, port)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    address = first.getsockname()
    return [first, *(join(address) for _ in range(count - 1))]


def join(address: tuple[str, int]) -> socket.socket:
    """One more socket beside those of `listen_together`. Raises `OSError`."""
    return _listen(*address[:2], reuse_port=True)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:9100` or `[::1]:9100`. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65535:
        raise ValueError(f"expected an address and a port, such as 127.0.0.1:9100, not {text!r}")
    return host, int(port)


def url_of(listening: socket.socket) -> str:
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server(
        (host, port),
        family=family,
        backlog=BACKLOG,
        reuse_port=reuse_port,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),  # "every address" includes IPv4
    )
    # Linux ends a connection whose peer acknowledges nothing for so long, also one that closed its
    # window. Every accepted connection inherits it.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listening.setsockopt(socket.IPPROTO_TCP, option, USER_TIMEOUT_MS)
    return listening
