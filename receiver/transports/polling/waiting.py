"""A request that waits for its answer: a socket taken over from the edge, without a task or a request object.

Afterwards the edge gets the socket back, and the client's next request comes on it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from receiver.transports.polling.answer import answer_to, nothing
from shared.process.answer import format_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.transports.polling.answer import Answer
    from receiver.transports.polling.poll import Poll
    from shared.process.edge import Edge
    from shared.process.head import Header

_MAX_AHEAD = 16 * 1024  # bytes that a client may send before it is answered


class Waiting(asyncio.Protocol):
    __slots__ = ("_ahead", "_edge", "_headers", "_poll", "_transport")

    def __init__(self, poll: Poll, edge: Edge, headers: Sequence[Header]) -> None:
        """`headers` are added to the answer."""
        self._poll: Poll | None = poll
        self._edge = edge
        self._headers = headers
        self._ahead = b""
        self._transport: asyncio.Transport

    def answer_now(self) -> None:
        poll, self._poll = self._poll, None
        if poll is not None:
            self._answer(answer_to(poll))

    def give_way(self) -> None:
        poll, self._poll = self._poll, None
        if poll is not None:
            self._answer(nothing(poll.cursor))

    def _answer(self, answer: Answer) -> None:
        status, headers, body = answer
        ending = [(b"connection", b"close")] if self._edge.ends_after_answer else []
        self._edge.take_back(format_answer(status, [*headers, *self._headers, *ending], body), self._ahead)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's don't subclass it

    def data_received(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _MAX_AHEAD:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left without an answer."""
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.leave("closed by the client")
