"""The backlog: connections that the kernel has established and the loop has not accepted yet.

libuv accepts one connection in each turn of the loop. If turns are long, because the machine is busy or the
process was stopped, connections wait; their callers give up and come again, at the end of the queue. If they
are served in order, each is gone by the time its turn comes, as long as callers keep trying.

So when a client has left unanswered and many connections wait, they are accepted at once: those whose client
has ended its side already are answered with 503, which costs some system calls and no request.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONG = 16  # connections: fewer are accepted as usual
A_TURN = 256  # connections at most: some milliseconds
_TCP_ESTABLISHED = 1
_UNACKED = slice(24, 28)  # of struct tcp_info: of a listening socket, the length of its backlog

_TCP_INFO = getattr(socket, "TCP_INFO", None)  # Linux


class Backlog:
    """Belongs to the loop in which a client first leaves."""

    def __init__(
        self, admit: Callable[[socket.socket], None], refused: Callable[[], None], answer: Callable[[], bytes]
    ) -> None:
        """`admit` takes an accepted connection. `answer` is the whole answer to those that come too late."""
        self._admit = admit
        self._refused = refused
        self._answer = answer
        self._listening: Sequence[socket.socket] = ()
        self._due = False

    def watch(self, listening: Sequence[socket.socket]) -> None:
        """Unix sockets don't show whether a client has left."""
        if _TCP_INFO is not None:
            self._listening = [one for one in listening if one.family != socket.AF_UNIX]

    def close(self) -> None:
        self._listening = ()

    def note_left(self) -> None:
        """A client has left before it was answered."""
        if self._listening and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._sweep)

    def _sweep(self) -> None:
        self._due = False
        for listening in self._listening:
            if _length(listening) >= LONG and self._accept_some(listening):
                self.note_left()

    def _accept_some(self, listening: socket.socket) -> bool:
        """Returns whether a client among them has left."""
        left = False
        for _ in range(A_TURN):
            try:
                accepted, _ = listening.accept()
            except OSError:  # no connection waits any more, or no file descriptor is free
                break
            if _state(accepted) == _TCP_ESTABLISHED:
                self._admit(accepted)
            else:
                left = True
                self._refuse(accepted)
        return left

    def _refuse(self, accepted: socket.socket) -> None:
        """A client that has only shut down its own side reads the answer."""
        self._refused()
        with accepted:
            try:
                accepted.recv(2**16, socket.MSG_DONTWAIT)  # closing it with unread data would reset it
                accepted.send(self._answer(), socket.MSG_DONTWAIT)
            except OSError:
                return  # it was reset


def _length(listening: socket.socket) -> int:
    assert _TCP_INFO is not None
    return int.from_bytes(listening.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 28)[_UNACKED], "little")


def _state(connection: socket.socket) -> int:
    assert _TCP_INFO is not None
    return connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
