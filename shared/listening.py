"""Listening: a socket that is bound before anything else starts, or one clear line why not."""

from __future__ import annotations

import errno
import socket
import sys

BACKLOG = 4096  # connections that wait to be accepted: a gateway's browsers may all come at once


def listen(host: str, port: int) -> socket.socket:
    """The bound socket. A port in use, or an address that is not ours, is one line and exit code 2."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or error
        print(f"orderbell: cannot listen on {host} port {port}: {why}", file=sys.stderr)
        raise SystemExit(2) from None


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
