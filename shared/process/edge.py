"""The edge: what stands between a client's bytes and uvicorn, for both services.

A connection is an `Edge`. It reads each request's head, bounded in bytes, lines and seconds, and then either
a transport takes the connection (`take_over`: a WebSocket's 101 or a stream's 200), or the request goes to an
uvicorn `HttpToolsProtocol`, whose protocol's side and transport the edge stands between.

What uvicorn 0.54 leaves open is decided here (each with a test in tests/test_edge.py):

* unbounded heads and bodies, half requests that are held for ever: 431, 413, 408;
* an `Upgrade` that no transport takes must be ignored (RFC 9110 7.8), and in HTTP/1.0 always. llhttp ends the
  message where it sees one, so a body beside `Upgrade: h2c` is lost. It is taken out of the head;
* HTTP/1.1 needs exactly one Host (RFC 9112 3.2), and an absolute target counts more than it (3.2.2);
* a client that is refused while it still sends would be reset and never see the answer: the socket lingers;
* a client that shuts down its own side after its request may still read: it gets its answer, if that is
  soon. After a moment it counts as having left, as nearly all have that end their side; see
  `shared.process.caller`;
* every answer during shutdown has `Connection: close`, so no client sends into a closing socket.

Rests on these of uvicorn (pinned by tests/test_edge.py): the constructor's four arguments, `data_received`,
`connection_made`, `connection_lost`, `shutdown`, `send_400_response`, `logger` and `cycle.response_complete`.

No timer belongs to a connection: the server's clock calls `tick` once a second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, cast

from shared.errors import CallerError
from shared.process.answer import format_answer, format_refusal
from shared.process.caller import Caller
from shared.process.framing import InvalidBody, body_of, too_large
from shared.process.head import (
    RequestRefused,
    check_fields,
    close_after,
    end_of_head,
    format_head,
    is_last,
    normalise,
    parse_head,
    strip_upgrade,
)
from shared.process.inner import Answers, Inner

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from shared.process.door import Door
    from shared.process.framing import Body
    from shared.process.head import Head, Header

HALF_CLOSED_SECONDS = 0.1  # after which a client that has ended its side counts as having left
_LOCAL = ("127.0.0.1", 0)  # what a peer on a Unix socket counts as; the file's mode decides who may connect


class NotAlone(CallerError):
    """A connection can't be taken over while other requests on it are unanswered."""


OVERLOADED = ("overloaded", "This server is overloaded; send the request again in a moment.")


class Taking(Protocol):
    """What may take a connection over: an `asyncio.Protocol`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...


class Edge(asyncio.Protocol):
    """One connection until it ends or is taken over."""

    __slots__ = (
        "_app_state",
        "_body",
        "_body_bytes",
        "_closing",
        "_config",
        "_deaf",
        "_door",
        "_ends_after_answer",
        "_head_bytes",
        "_held",
        "_inner",
        "_loop",
        "_paused",
        "_pending",
        "_pipelined",
        "_queued",
        "_server_state",
        "_shut",
        "_since",
        "_transport",
        "_unanswered",
        "_unwritten",
        "_unwritten_since",
        "caller",
        "head",
    )

    def __init__(
        self, door: Door, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._door = door
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._inner: Inner | None = None
        self.head: Head | None = None  # of the request that is being answered
        self.caller = Caller()
        self._pending = b""  # read and not yet passed on
        self._head_bytes = 0
        self._body: Body | None = None  # of the request that is being read
        self._body_bytes = 0
        self._since = self._loop.time()  # of the state: of the head's or body's first byte, of being idle
        self._paused = False  # uvicorn accepts no more for now
        self._queued = False  # its request waits for its turn (shared/process/turns.py)
        self._held = False  # its owner will answer or take over later; nothing is read until then
        self._shut = False  # the client has ended its side
        self._deaf = False  # what else the client sends is dropped
        self._pipelined = False  # a request was read before the one before it was answered
        self._unanswered = False  # nothing was written since the last request was passed on
        self._closing = False  # nothing more is passed on, either way
        self._ends_after_answer = False  # of what has taken the socket over
        self._unwritten = 0  # bytes that waited to be sent at the last tick
        self._unwritten_since = 0.0

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's don't subclass it
        self._door.edges.add(self)
        self._server_state.connections.add(self)  # type: ignore[arg-type] # uvicorn lists only its own classes
        if len(self._door.edges) > self._door.limits.connections:
            self._refuse(503, "too-many-connections", "Try again in a moment.")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self._door.left_unanswered()
        self._closing = True
        self.caller.leave()
        self._forget()
        self._end_inner()
        self._pending = b""

    def eof_received(self) -> bool:
        """The client has ended its side. Returns whether ours stays open until the answer."""
        if self._waits:
            self._door.left_unanswered()
            if self._queued:
                self._refuse_late()
        if not self._waits or self._pending or self._body is not None:
            return False
        self._shut = True
        self.leave()
        self._loop.call_later(HALF_CLOSED_SECONDS, self.caller.leave)
        return True

    def data_received(self, data: bytes) -> None:
        if not (self._closing or self._deaf):
            self._pending = self._pending + data if self._pending else bytes(data)
            if self._queued and len(self._pending) > self._door.limits.head_bytes:
                self.pause()
            self._pass_on()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # The server's side.

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        inner = self._inner
        return inner is None or inner.cycle is None or inner.cycle.response_complete  # type: ignore[redundant-expr]

    @property
    def _waits(self) -> bool:
        """A request was sent, and nothing of its answer was written."""
        return not self._closing and (self._queued or (self._unanswered and not self.idle))

    @property
    def more(self) -> bool:
        """The client has sent more than the request being handled."""
        return bool(self._pending)

    @property
    def _may_answer(self) -> bool:
        """Nothing was answered yet to the request read last, and no earlier one waits for its answer."""
        unanswered = self._unanswered and not self._pipelined
        # An app may answer before it has read the body; a second answer would count for the next request.
        return unanswered if self._body is not None else self.idle or unanswered

    @property
    def half_sent(self) -> bool:
        """A request has begun and is not complete. (Of one that waits for its turn, at least the head is.)"""
        if self._closing or self._queued:
            return False
        return self._body is not None or (bool(self._pending) and not self._paused)

    def give_up(self) -> None:
        """Refuse a request that is still not whole; the server can't wait for it."""
        if self.half_sent:
            self._refuse(503, "leaving", "This server is ending; send the request again.")

    def leave(self) -> None:
        """Answer what was asked, then end. An idle connection stays open until `shutdown`."""
        if self._inner is not None and not self.idle:
            self._inner.shutdown()

    def shutdown(self) -> None:
        """As `leave`, but an idle connection ends now. uvicorn calls it on all connections when it ends."""
        if self._closing:  # it lingers, and has had its time
            self._transport.abort()
        elif self.idle and not self._pending and self._body is None:
            self._close()
        else:
            self.leave()

    def abort(self) -> None:
        """End at once, whatever is under way."""
        self._closing = True
        self._transport.abort()

    def tick(self, now: float) -> None:
        limits = self._door.limits
        taken = now - self._since
        if self._closing:
            if taken > limits.linger_seconds:
                self._transport.abort()
        elif self._stalls(now):
            self._door.refused("stalled-answer")
            self._transport.abort()
        elif self._queued:  # it waits for us
            if taken > limits.turn_seconds:
                self._refuse_late()
        elif self._held:
            self._since = now  # its owner has a time-out of its own
        elif self._body is not None:
            if self._paused:
                self._since += limits.tick_seconds  # the client waits for us
            elif taken > limits.body_seconds or self._body_is_slow(taken):
                self._refuse(408, "slow-body", "The body came too slowly.")
        elif self._pending and not self._paused:
            if taken > limits.head_seconds:
                self._refuse(408, "slow-head", "The request's head came too slowly.")
        elif not self.idle:
            self._since = now
        elif taken > (limits.idle_seconds if self._inner is not None else limits.head_seconds):
            self._close()

    def _stalls(self, now: float) -> bool:
        """The client has read nothing of what waits for it, for too long."""
        waiting = self._transport.get_write_buffer_size()
        if not waiting or waiting != self._unwritten:
            self._unwritten = waiting
            self._unwritten_since = now
        return waiting > 0 and now - self._unwritten_since > self._door.limits.stall_seconds

    def _body_is_slow(self, taken: float) -> bool:
        limits = self._door.limits
        counted = taken - limits.body_grace_seconds
        return counted > 0 and self._body_bytes < counted * limits.body_bytes_per_second

    # Reading.

    def _pass_on(self) -> None:
        """Handles all pending bytes, as far as they are whole and uvicorn accepts them."""
        if self._transport.is_closing():
            return  # the client has left while its request waited; nothing can be taken over any more
        try:
            while self._pending and not (self._paused or self._closing or self._queued):
                if self._body is not None:
                    self._pass_body(self._body)
                elif not self._pass_head():
                    break
        except RequestRefused as refused:
            self._refuse(refused.status, refused.kind, str(refused))
        except InvalidBody as error:
            self._refuse(400, "bad-body", str(error))

    def _pass_head(self) -> bool:
        """False while it is not whole. Raises `RequestRefused`."""
        if self._pending[0] in b"\r\n":  # RFC 9112 2.2: empty lines before a request are ignored
            stripped = self._pending.lstrip(b"\r\n")
            self._head_bytes += len(self._pending) - len(stripped)
            self._pending = stripped
        if not self._head_bytes:
            self._since = self._loop.time()
        whole = end_of_head(self._pending)
        end = whole or len(self._pending)
        limits = self._door.limits
        lines = self._pending.count(b"\n", 0, end)
        if self._head_bytes + end > limits.head_bytes or lines > limits.head_lines:
            raise RequestRefused(431, "head-too-large", f"A head has at most {limits.head_bytes} bytes.")
        if not whole:
            if self._pending and not self._pending[:1].isalpha():
                raise RequestRefused(400, "bad-request", "This is not HTTP.")
            self._head_bytes = max(1, self._head_bytes)
            return False
        if not self._door.turns.take(self):
            self._queued = True
            return False
        raw, self._pending = self._pending[:end], self._pending[end:]
        self._head_bytes = 0
        self._begin(raw)
        return True

    def _begin(self, raw: bytes) -> None:
        head = parse_head(raw)
        body = body_of(head, self._door.limits.body_bytes)
        check_fields(head)
        rewritten = normalise(head, self._door.root_path)
        peername = self._transport.get_extra_info("peername")
        if peername is None:
            # Reset behind this request: it has no address, and must not count as a proxy on our machine.
            return self.abort()
        if not head.path:
            return self._redirect(self._door.root_path + b"/" + head.target)
        if head.upgrade:
            if self._takes(head, body, peername):
                return None
            rewritten = True
            strip_upgrade(head)
        if self._door.leaving:
            rewritten = True
            close_after(head)
        self._body, self._body_bytes, self._since = body, 0, self._loop.time()
        self._pass_to_inner(head, format_head(head) if rewritten else raw)
        return None

    def _takes(self, head: Head, body: Body | None, peername: Any) -> bool:
        """Whether the upgrade is ours. RFC 9110 7.8: it must be ignored in HTTP/1.0, and may be elsewhere, as
        it is behind a request that is still unanswered.
        """
        if self._door.take is None or head.version != "1.1" or body is not None or not self.idle:
            return False
        head.peer = self._door.proxies.peer(*_address(peername), head.headers)
        return self._door.take(head, self)

    def _pass_to_inner(self, head: Head, raw: bytes) -> None:
        self._pipelined = not self.idle
        if not self._pipelined:
            self.head = head
        self._unanswered = True
        if self._inner is None:
            self._inner = Inner(self, self._config, self._server_state, self._app_state, self._loop)
            self._inner.connection_made(cast("asyncio.Transport", Answers(self)))
            self._server_state.connections.discard(self._inner)  # we are listed in its place
        self._inner.data_received(raw)

    def _pass_body(self, body: Body) -> None:
        """Raises `RequestRefused` and `InvalidBody`."""
        taken = body.take(self._pending)
        piece, self._pending = self._pending[:taken], self._pending[taken:]
        self._body_bytes += taken
        if self._body_bytes > self._door.limits.body_bytes:
            raise too_large(self._door.limits.body_bytes)
        if body.done:
            self._body = None
            self._since = self._loop.time()
        if self._inner is not None:
            self._inner.data_received(piece)

    def go_on(self) -> None:
        """Its turn has come."""
        self._queued = False
        if self._paused and not self._closing:
            self._paused = False
            self._transport.resume_reading()
        self._pass_on()

    # Answering.

    def hold(self) -> None:
        """Read nothing until `answer` or `take_over`: what took the request needs time to decide."""
        self._held = True
        self.pause()

    def answer(self, status: int, headers: Sequence[Header], body: bytes = b"") -> None:
        """Answer in the app's place, and end the connection."""
        self._transport.write(format_answer(status, [*headers, (b"connection", b"close")], body))
        self._close()

    def take_over(self, protocol: Taking) -> asyncio.Transport:
        """Hand the socket to `protocol`; its `connection_made` is called at once, and nothing was written.

        What the client sent behind its request is dropped. Raises `NotAlone` where another request came on
        this connection and is not answered, and `OSError` where the connection is gone.
        """
        if self._closing or self._shut or self._transport.is_closing():
            raise OSError("the connection is gone")
        if self._body is not None or not self._may_answer:
            raise NotAlone
        self._ends_after_answer = self._deaf or bool(self._pending) or is_last(self.head)
        self._closing = True
        self._forget()
        self._end_inner()
        if self._paused:
            self._transport.resume_reading()
        self._pending, self.head = b"", None
        self._transport.set_protocol(cast("asyncio.Protocol", protocol))
        protocol.connection_made(self._transport)
        return self._transport

    @property
    def ends_after_answer(self) -> bool:
        """Whether an answer to the request that was taken over must have `Connection: close`."""
        return self._ends_after_answer or self._door.leaving

    def take_back(self, answer: bytes, ahead: bytes) -> None:
        """What took the socket over answers its request with that, and leaves the socket to us.

        `ahead` is what the client has sent meanwhile.
        """
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            return
        self._closing = self._paused = self._pipelined = self._unanswered = False
        self._since = self._loop.time()
        self._unwritten = 0
        self._door.edges.add(self)
        self._server_state.connections.add(self)  # type: ignore[arg-type] # as in connection_made
        self._transport.resume_reading()
        self._transport.write(answer)
        if self.ends_after_answer:
            self._pending = ahead
            self._close()
        elif ahead:
            self.data_received(ahead)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that the server owns: at its end it waits for the task, and finally cancels it."""
        task = self._loop.create_task(work)
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)
        return task

    def _refuse(self, status: int, kind: str, detail: str) -> None:
        """Refuse the request that is read, or whose body is."""
        self._door.refused(kind)
        if self._body is None and not self.idle:
            self._drop_rest()
        else:
            self._end_with(status, kind, detail)

    def _drop_rest(self) -> None:
        """Another request on this connection is still being answered: the client would take a refusal for its
        answer, and send again what has taken effect. So the connection ends after that answer, without one.
        """
        self._deaf, self._queued = True, False
        self._pending, self._head_bytes = b"", 0
        self.leave()

    def _end_with(self, status: int, kind: str, detail: str) -> None:
        if self._may_answer:
            self._transport.write(format_refusal(status, kind, detail))
        self._linger()
        self._end_inner()

    def _refuse_late(self) -> None:
        self._refuse(503, *OVERLOADED)

    def refuse_parsed(self) -> None:
        """uvicorn's parser refuses what the edge has passed on, such as a chunk's malformed extension."""
        self._door.refused("bad-body")
        self._end_with(400, "bad-body", "The request does not conform to RFC 9112.")

    def _redirect(self, location: bytes) -> None:
        if not self.idle:
            return self._drop_rest()
        self._transport.write(format_answer(308, [(b"location", location), (b"connection", b"close")], b""))
        self._linger()
        return None

    def _close(self) -> None:
        """End once everything written is sent; a client that is still sending gets time to read it."""
        if self._body is not None or self._pending or self._deaf:
            self._linger()
        else:
            self._closing = True
            self._transport.close()

    def _linger(self) -> None:
        """Close our side and discard what the client still sends: to close at once would reset."""
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        self._pending = b""
        self._since = self._loop.time()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        try:
            self._transport.write_eof()
        except OSError:  # the client has left already
            self._transport.abort()

    def _end_inner(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            # Always None: with an error uvicorn keeps its timer.
            inner.connection_lost(None)

    def _forget(self) -> None:
        self._door.edges.discard(self)
        self._server_state.connections.discard(self)

    # uvicorn's side, see `Answers`.

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._unanswered = self._unanswered and data.startswith(b"HTTP/1.1 100 ")
            self._transport.write(data)

    def end(self) -> None:
        """uvicorn closes: it has answered, or has no answer."""
        if not self._closing:
            self._close()

    def pause(self) -> None:
        if not (self._paused or self._closing):
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._transport.resume_reading()
            if self._pending:
                self._loop.call_soon(self._pass_on)

    @property
    def ended(self) -> bool:
        return self._closing or self._transport.is_closing()

    def extra_info(self, name: str) -> Any:
        found = self._transport.get_extra_info(name) if name in ("peername", "sockname") else None
        return None if found is None else _address(found)


def _address(name: Any) -> tuple[str, int]:
    """Host and port, as uvicorn wants them; an IPv4 address that came through an IPv6 socket is one."""
    if not isinstance(name, tuple) or len(name) < 2:
        return _LOCAL
    host = str(name[0])
    return (host[7:] if host.startswith("::ffff:") and "." in host else host), int(name[1])
