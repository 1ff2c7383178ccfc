"""The one server of both services: uvicorn, behind our edge, with a shutdown that loses no client.

What uvicorn 0.54 does otherwise:

* it resets clients that wait to be accepted when it ends: they are accepted first;
* it waits without end for connections that don't close: `timeout_graceful_shutdown`;
* after a clean shutdown it raises the signal again, so the exit status shows that it was killed;
* under overload its loop accepts connections in order, also of clients that have left: `backlog.py`;
* it wakes up ten times a second to look for a signal, most of what an idle process does: `main_loop`.

Rests on these of `uvicorn.Server` (pinned by tests/test_server.py): `startup`, `main_loop`, `shutdown`,
`capture_signals`, `servers`, `should_exit`, `force_exit`, `server_state.default_headers`, and the setting
`http` as a callable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import structlog
import uvicorn

from shared.process.answer import format_refusal
from shared.process.backlog import Backlog
from shared.process.date import date_now
from shared.process.door import Door
from shared.process.edge import OVERLOADED
from shared.process.forwarded import Forwarded, Proxies
from shared.process.limits import Limits
from shared.process.listening import BACKLOG, url_of
from shared.process.request_ids import RequestIds
from shared.process.sampled import Sampled
from shared.process.security_headers import SecurityHeaders
from shared.process.unfinished import Unfinished

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from starlette.types import ASGIApp

    from shared.process.edge import Edge
    from shared.process.head import Head

IDLE_SECONDS = 0.5  # that idle connections stay open at the end, so that the next answer closes them
POLL_SECONDS = 0.05
QUEUE_SECONDS = 1.0  # for what is queued when we stop listening: thousands are accepted in half of it
_FILES_BESIDE = 100  # listening sockets, Redis, the database, logs

logger = structlog.get_logger(__name__)


async def _nothing() -> None:
    """The drain of a service that has no connections to end."""


@dataclass(frozen=True)
class Service:
    """The differences between the services."""

    app: ASGIApp
    trusted_proxies: Sequence[str]
    refused: Callable[[str], None]  # counts what the edge refuses, by kind
    limits: Limits = field(default_factory=Limits)
    take: Callable[[Head, Edge], bool] | None = None  # see `shared.process.door.Door`
    root_path: str = ""
    hsts_seconds: int = 31_536_000  # see `shared.process.security_headers`
    leaving: Callable[[], None] = lambda: None  # called once when the signal comes, to be no longer ready
    ready_delay_seconds: float = 0.0  # between that and the end of the listener
    closed: Callable[[], None] = lambda: None  # called when no connection is accepted any more
    drain: Callable[[], Awaitable[None]] = _nothing  # ends what was taken over; a second SIGINT cancels it
    grace_seconds: float = 5.0  # for plain requests that are under way when the drain is over
    alive: Callable[[], None] = lambda: None  # called once a second, while the loop turns
    successor: bool = False  # another process listens on the same socket and takes the queue over


class Server(uvicorn.Server):
    """Serves until SIGTERM, SIGINT or SIGHUP, and returns. A second SIGINT skips the drain."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sampled = Sampled(logger)
        proxies = Proxies(service.trusted_proxies)
        app = SecurityHeaders(Unfinished(service.app), hsts_seconds=service.hsts_seconds)
        self._door = Door(
            service.limits,
            proxies,
            self._refused,
            take=service.take,
            root_path=service.root_path,
        )
        self._backlog = Backlog(
            self._admit, lambda: self._refused(OVERLOADED[0]), lambda: format_refusal(503, *OVERLOADED)
        )
        self._door.left_unanswered = self._backlog.note_left
        super().__init__(
            uvicorn.Config(
                Forwarded(RequestIds(app), proxies),
                http=cast("Any", self._door.protocol),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # The edge ends idle connections. uvicorn's own clock does not know of a half head.
                timeout_keep_alive=int(service.limits.idle_seconds + service.limits.head_seconds) + 5,
                timeout_graceful_shutdown=max(1, round(service.grace_seconds)),
                backlog=BACKLOG,
            )
        )
        # It warns of each request its parser refuses, which the edge samples; an app's failure is an error.
        logging.getLogger("uvicorn.error.protocol").setLevel("ERROR")
        self._leave = asyncio.Event()  # a signal came
        self._hurry = asyncio.Event()  # a second SIGINT came
        self._clock: asyncio.TimerHandle | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tick()
        self._backlog.watch(sockets or [])
        for listening in sockets or []:
            logger.info("listening", url=url_of(listening))

    async def main_loop(self) -> None:
        await self._leave.wait()

    def _tick(self) -> None:
        """Once a second, until the last connection has ended."""
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self._service.limits.tick_seconds, self._tick)
        self._door.tick(loop.time())
        self._service.alive()
        self.server_state.default_headers = [date_now()]

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own method raises each signal again at its end.
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # of nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._take_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if self._clock is not None:
                self._clock.cancel()

    def stop(self) -> None:
        """Ends the server as a signal does."""
        self.should_exit = True
        self._leave.set()

    def _take_signal(self, number: signal.Signals) -> None:
        if self.should_exit and number is signal.SIGINT:
            self.force_exit = True
            self._hurry.set()
        self.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.leaving()
        await self._unless_hurried(asyncio.sleep(self._service.ready_delay_seconds))
        await self._close_listeners(sockets or [])
        self._service.closed()
        self._door.leaving = True
        self._door.for_each(lambda edge: edge.leave())
        await self._unless_hurried(self._service.drain())
        await self._unless_hurried(self._wait_idle())
        await self._unless_hurried(self._wait_whole())
        await super().shutdown(None)

    async def _unless_hurried(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _wait_idle(self) -> None:
        """Wait a moment, in which busy connections end with an answer that closes them."""
        if self._door.edges:
            await asyncio.sleep(IDLE_SECONDS)

    async def _wait_whole(self) -> None:
        """Let clients finish what they are sending; refuse what is half sent after that: no fault of ours."""
        deadline = asyncio.get_running_loop().time() + self._service.limits.leave_seconds
        while self._half_sent() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_SECONDS)
        if half_sent := self._half_sent():
            logger.info("requests that were never sent whole are given up", count=len(half_sent))
            self._door.for_each(lambda edge: edge.give_up())
            await asyncio.sleep(IDLE_SECONDS)  # closing at once would reset them, and lose their answers

    def _half_sent(self) -> list[Edge]:
        return [edge for edge in self._door.edges if edge.half_sent]

    async def _close_listeners(self, sockets: Sequence[socket.socket]) -> None:
        """Accept what is queued, and little after it: closing a queue resets every connection in it."""
        self._backlog.close()
        waiting = [] if self._service.successor else [listening.dup() for listening in sockets]
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()
        for queue in waiting:
            with queue:
                await self._accept_all(queue)

    async def _accept_all(self, queue: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        queue.setblocking(False)
        queue.listen(0)  # so that new connections are not even queued, but try again elsewhere
        # One is queued nevertheless, and where many try, another one always is: this must end by itself.
        deadline = loop.time() + QUEUE_SECONDS
        while loop.time() < deadline:
            try:
                accepted, _ = queue.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.warning("the connections still queued could not be accepted", reason=str(error))
                return
            await self._connect(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(accepted))
        self.server_state.tasks.add(task)  # its owner: uvicorn waits for it at the end
        task.add_done_callback(self.server_state.tasks.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # gone already
            await asyncio.get_running_loop().connect_accepted_socket(self._new_protocol, accepted)

    def _new_protocol(self) -> Edge:
        return self._door.protocol(self.config, self.server_state, {})

    def _refused(self, kind: str) -> None:
        self._service.refused(kind)
        self._sampled.warning("requests are refused", kind=kind)


def raise_file_limit(needed: int) -> int:
    """Raise the limit of open files as far as allowed; returns how many of them connections may use.

    A limit below what is needed is logged.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS reports no limit and allows less
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft != resource.RLIM_INFINITY and soft < needed + _FILES_BESIDE:
        logger.warning("the limit of open files is too low", limit=soft, needed=needed + _FILES_BESIDE)
    return max(soft - _FILES_BESIDE, _FILES_BESIDE) if soft != resource.RLIM_INFINITY else 2**31
