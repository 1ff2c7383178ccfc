"""A client that reads slowly, or nothing at all, and keeps its connection as long as it can."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_SMALL_BUFFER = 4_096  # bytes in the kernel, so that what isn't read is soon the gateway's


class SlowReader:
    def __init__(self, port: int, token: str, *, bytes_per_second: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        self._socket.connect(("127.0.0.1", port))
        lines = [
            "GET /events HTTP/1.1",
            "host: 127.0.0.1",
            "upgrade: websocket",
            "connection: Upgrade",
            f"sec-websocket-key: {base64.b64encode(os.urandom(16)).decode()}",
            "sec-websocket-version: 13",
            "sec-websocket-protocol: cloudevents.json",
            f"authorization: Bearer {token}",
        ]
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        assert self._socket.recv(12) == b"HTTP/1.1 101"
        self._socket.settimeout(0.1)
        self._speed = bytes_per_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> SlowReader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._over.wait(0.25):
            with contextlib.suppress(OSError):  # nothing there, or nobody any more
                if self._speed:
                    self._socket.recv(self._speed // 4)
