"""`/metrics` at an address of its own, `ORDERBELL_METRICS_LISTEN`, for monitoring alone.

A few lines of HTTP, bounded in bytes, seconds and connections: it serves `GET /metrics` alone, and each
connection ends with its answer. Several workers may share the address: any of them shows all figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

from shared.process.answer import format_answer
from shared.process.listening import listen, split_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shared.process.exposition import Exposition

_HEAD_BYTES = 8 * 1024
_SECONDS = 5.0  # for a request, and for its answer to be read
_CONNECTIONS = 16  # at a time
_ACCEPT = re.compile(rb"^accept: *([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class MetricsListener:
    def __init__(self, exposition: Callable[[str], Awaitable[Exposition]]) -> None:
        """`exposition` is given the request's `Accept`."""
        self._exposition = exposition
        self._count = 0

    @contextlib.asynccontextmanager
    async def serve(self, address: str | None, *, shared: bool = False) -> AsyncIterator[None]:
        """Serves while this is entered; not at all without an address. `shared`: other workers listen there,
        too.

        A port in use ends the process with 2.
        """
        if address is None:
            yield
            return
        host, port = split_address(address)
        listening = listen(host, port, shared=shared)
        server = await asyncio.start_server(self._serve, sock=listening, limit=_HEAD_BYTES)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        try:
            async with asyncio.timeout(_SECONDS):
                if self._count <= _CONNECTIONS:
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a fault of this connection ends it, and nothing else
        finally:
            self._count -= 1
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD") or target != b"/metrics":
            return format_answer(404, [(b"connection", b"close")])
        accepted = _ACCEPT.search(head)
        found = await self._exposition(accepted[1].decode("latin-1") if accepted else "")
        headers = [(b"content-type", found.media_type.encode()), (b"connection", b"close")]
        answer = format_answer(200, headers, found.text)
        return answer if method == b"GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
