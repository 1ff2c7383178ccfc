"""uvicorn's side of a connection: a protocol, with the edge as its transport (shared/process/edge.py).

The edge owns the socket. uvicorn parses what the edge passes on and runs the app; what it writes, and whether
it wants to read, come back to the edge.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from shared.process.edge import Edge

_logger = logging.getLogger("uvicorn.error.protocol")  # its level is set in shared/process/server.py


class Inner(HttpToolsProtocol):
    """Leaves what its parser refuses to the edge, which answers, counts and logs it like its own refusals."""

    def __init__(
        self,
        edge: Edge,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "edge": edge}, loop)
        self._edge = edge
        self.logger = _logger

    def send_400_response(self, msg: str) -> None:
        self._edge.refuse_parsed()


class Answers:
    """The transport that uvicorn gets: only the methods that it uses."""

    __slots__ = ("close", "get_extra_info", "is_closing", "pause_reading", "resume_reading", "write")

    def __init__(self, edge: Edge) -> None:
        self.write = edge.write
        self.close = edge.end
        self.pause_reading = edge.pause
        self.resume_reading = edge.resume
        self.is_closing = lambda: edge.ended
        # No "socket": uvloop would make one, and keep it as long as the connection lives.
        self.get_extra_info = edge.extra_info
