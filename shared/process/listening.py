"""Listening: sockets that are bound before anything else starts, or one clear line why not."""

from __future__ import annotations

import errno
import socket
import sys

BACKLOG = 4096  # connections that wait to be accepted: a gateway's browsers may all come at once
USER_TIMEOUT_MS = 20_000


def listen(host: str, port: int) -> socket.socket:
    """The bound socket. A port in use, or an address that is not ours, is one line and exit code 2."""
    try:
        return _listen(host, port)
    except OSError as error:
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or error
        print(f"orderbell: cannot listen on {host} port {port}: {why}", file=sys.stderr)
        raise SystemExit(2) from None


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets on one port, each with a queue of its own. Linux spreads connections evenly over them.

    Faults end the process as those of `listen` do.
    """
    # The first asks for the port alone: with SO_REUSEPORT from the start it would quietly share that of
    # another program of ours. Whoever joins must find the option set, whenever that was done.
    first = listen(host, port)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    address = first.getsockname()
    return [first, *(join(address) for _ in range(count - 1))]


def join(address: tuple[str, int]) -> socket.socket:
    """One more socket beside those of `listen_together`. Raises `OSError`."""
    return _listen(*address[:2], reuse_port=True)


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port)
    # Linux ends a connection whose other end acknowledges nothing for so long, also one that closed its
    # window. Every accepted connection inherits it.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listening.setsockopt(socket.IPPROTO_TCP, option, USER_TIMEOUT_MS)
    return listening
