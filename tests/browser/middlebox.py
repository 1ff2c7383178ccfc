"""A proxy between a browser and a gateway that treats WebSockets and event streams as bad networks do."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from typing import TYPE_CHECKING

from tests.browser.services import Balancer

if TYPE_CHECKING:
    from collections.abc import Callable


class Upgrades(enum.Enum):
    """What happens to requests to upgrade."""

    PASS = b""
    BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
    FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
    LOGIN_PAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nLogin"
    BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
    UNANSWERED = b"unanswered"
    CUT = b"cut"  # as soon as the handshake has passed
    SILENT = b"silent"  # the handshake passes, nothing after it comes back


class Middlebox(Balancer):
    upgrades = Upgrades.PASS
    cut_seconds: float | None = None  # after which a WebSocket is cut
    holds_streams = False  # an event stream is buffered until it ends, which it does not

    def __init__(self, ports: list[int]) -> None:
        self.asked: list[str] = []  # for what: "websocket", "sse" or "poll"
        super().__init__(ports)

    def count(self, what: str) -> int:
        return self.asked.count(what)

    def _accept(self) -> None:
        while True:
            try:
                browser, _ = self._listener.accept()
            except OSError:
                return
            gateway = self._connect()
            if gateway is None:
                browser.close()
                continue
            passage = _Passage(self, browser, gateway)
            for work in (passage.up, passage.down):
                threading.Thread(target=work, daemon=True).start()


class _Passage:
    """One connection."""

    def __init__(self, box: Middlebox, browser: socket.socket, gateway: socket.socket) -> None:
        self._box = box
        self._browser = browser
        self._gateway = gateway
        self._answers = -1  # that may still come down; -1 is no limit
        self._held = False  # the browser is left waiting, whatever the gateway does

    def up(self) -> None:
        self._copy(self._browser, self._gateway, self._look)

    def down(self) -> None:
        self._copy(self._gateway, self._browser, self._may_come_down)

    def _look(self, data: bytes) -> bool:
        """Returns whether the gateway gets the request."""
        head = data.lower()
        if b"\r\nupgrade: websocket" in head:
            self._box.asked.append("websocket")
            return self._upgrade(self._box.upgrades)
        if b"\r\naccept: text/event-stream" in head:
            self._box.asked.append("sse")
            self._answers = 0 if self._box.holds_streams else -1
        elif head.startswith(b"get /events?") and b"wait=" in head:
            self._box.asked.append("poll")
        return True

    def _upgrade(self, how: Upgrades) -> bool:
        if how is Upgrades.SILENT:
            self._answers = 1
        elif how is Upgrades.UNANSWERED:
            self._held = True
            return False
        elif how is not Upgrades.PASS and how is not Upgrades.CUT:
            self._browser.sendall(how.value)
            self._end()
            return False
        if self._box.cut_seconds is not None:
            cut = threading.Timer(self._box.cut_seconds, self._end)
            cut.daemon = True
            cut.start()
        return True

    def _may_come_down(self, data: bytes) -> bool:
        if self._answers > 0:
            self._answers -= 1
            return True
        return self._answers < 0

    def _cuts_behind(self, data: bytes) -> bool:
        return self._box.upgrades is Upgrades.CUT and data.startswith(b"HTTP/1.1 101 ")

    def _copy(self, source: socket.socket, target: socket.socket, passes: Callable[[bytes], bool]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._cuts_behind(data):
                    target.sendall(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                    break
                if passes(data):
                    target.sendall(data)
        if not (self._held and source is self._gateway):
            self._end()

    def _end(self) -> None:
        for end in (self._browser, self._gateway):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()
