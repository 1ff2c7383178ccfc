"""The supervisor: several gateways on one port, each in its own process; one that dies is replaced.

Every worker is a whole gateway. Each has its own listening socket, and they share the port by SO_REUSEPORT.
Measured against one socket that all inherit (uvloop, two cores, connections to each worker):

                              own sockets            one socket
    2,000 at once, 2 workers  1016 984               1066 934
    2,000 at once, 4 workers  520 502 491 487        633 568 476 323
    one by one,    4 workers  271 253 239 237        425 356 208 11

On an inherited socket, the first worker to wake takes all waiting connections. They last for hours, so an
uneven distribution stays uneven. With SO_REUSEPORT the kernel chooses by a hash of the addresses.

The known drawback of SO_REUSEPORT: the queue belongs to the socket, so when its process dies, connections
that wait in it are reset. Here, the supervisor owns the sockets, which listen before any worker starts, and
workers inherit them: the queue of a worker that dies or drains waits for its successor on the same socket.
Only connections that the dead worker had accepted are reset, and those browsers come back with their cursors.
If a worker dies again and again, its socket is closed, and the kernel spreads new connections over the
others, so that not every n-th waits for a gateway that does not come.

Workers are new processes, not forks: nothing is shared by mistake, and no copied memory fills up. If the
supervisor is killed, a guard ends them (shared/process/guard.py); its process group also keeps Ctrl-C from
reaching them twice.

Workers keep their counts in files that all of them read (prometheus_client's multiprocess mode), in a
directory of the supervisor's. Figures of the process (CPU, memory, files) and of Python exist only for a
single gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import structlog
from prometheus_client.multiprocess import mark_process_dead

import orderbell_start
from receiver.serving.worker import ALIVE, LEAVING
from shared.process.children import outcome_of
from shared.process.guard import Guard
from shared.process.listening import join, listen_together, url_of
from shared.process.logs import USUAL, VERBOSE, change_level, configure_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.settings import ReceiverSettings

LIVED_SECONDS = 30.0  # a worker that lived longer did not die at once
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 30.0
HOLD_SECONDS = 2.0  # that a queue waits for its successor's start, which takes another one or two
END_SECONDS = 15.0  # beyond the drain; a worker needs less than ten
BEGIN_SECONDS = 60.0  # for a worker's first report; on a busy machine a start takes many
HANG_SECONDS = 15.0  # for the next report; a worker reports every second

logger = structlog.get_logger(__name__)


class BackOff:
    """How long to wait before starting a successor: at first not at all, then longer after each that dies at
    once.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait after a worker that lived so long."""
        if lived_seconds >= LIVED_SECONDS:
            self._next = 0.0
        delay = self._next
        self._next = min(max(2 * delay, FIRST_DELAY_SECONDS), MAX_DELAY_SECONDS)
        return delay


class Seat:
    """Where one worker listens: the socket, which outlives the worker, and how long its successors have to
    wait.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._address = listening.getsockname()
        self._back_off = BackOff()

    def open(self) -> socket.socket:
        """The socket; a new one if it had to be closed. Raises `OSError` if another program has the port."""
        if self.closed:
            self._listening = join(self._address)
        return self._listening

    def vacate(self, lived_seconds: float) -> float:
        """Its worker has died: returns the seconds to wait, and closes the socket if they are too long for
        its queue.
        """
        delay = self._back_off.after(lived_seconds)
        if delay > HOLD_SECONDS:
            self.close()
        return delay

    @property
    def closed(self) -> bool:
        return self._listening.fileno() == -1

    def close(self) -> None:
        self._listening.close()


class Worker:
    """One process; `number` is unique while it runs."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self.number = number
        self.process = process
        self.left = asyncio.Event()  # it accepts no more connections, because it drains, hangs or is dead
        self.drains = False
        self.hung = False
        self._line = line
        self.ended: asyncio.Task[None]

    async def watch(self, begin_seconds: float, hang_seconds: float) -> None:
        """Until it has ended. A worker that does not report that it is alive is killed."""
        patience = begin_seconds
        with self._line:
            while said := await self._hear(patience):
                patience = hang_seconds if ALIVE in said else patience
                if LEAVING in said:
                    self.drains = True
                    self.left.set()
        self.left.set()

    async def _hear(self, seconds: float) -> bytes:
        """What it reports within that time; empty if it is dead, or is killed for its silence."""
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().sock_recv(self._line, 100)
        except TimeoutError:
            # If a report has come after all, our own loop did not turn in time.
            with contextlib.suppress(BlockingIOError):
                return self._line.recv(100)
        except OSError:
            return b""
        self.hung = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return b""

    @property
    def outcome(self) -> str:
        hung = " after it hung" if self.hung else ""
        return f"worker {self.number} {outcome_of(self.process)}{hung}"


class Supervisor:
    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        process_group: int,
        directory: str,
        drain_seconds: float,
        hang_seconds: float = HANG_SECONDS,
        log_level: str = "INFO",
    ) -> None:
        """`directory` is for what workers count."""
        self._seats = [Seat(listening) for listening in sockets]
        self._process_group = process_group
        self._directory = directory
        self._drain_seconds = drain_seconds
        self._hang_seconds = hang_seconds
        self._log_level = self._level_now = log_level
        self._workers: set[Worker] = set()
        self._numbers: set[int] = set()  # of workers that run or are about to
        self._ending = asyncio.Event()
        self._failed = False
        self._tasks: asyncio.TaskGroup

    async def run(self) -> int:
        """Until a signal has ended all workers; the exit code."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # of nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._take_signal, number)
        for number, level in ((VERBOSE, "DEBUG"), (USUAL, self._log_level)):
            asyncio.get_running_loop().add_signal_handler(number, self._change_level, number, level)
        async with asyncio.TaskGroup() as self._tasks:
            for seat in self._seats:
                self._tasks.create_task(self._keep(seat))
        return 1 if self._failed else 0

    async def _keep(self, seat: Seat) -> None:
        """Keep a worker in this seat: a successor starts once the last one accepts no more connections."""
        loop = asyncio.get_running_loop()
        while not self._ending.is_set():
            started_at = loop.time()
            why = await self._run_worker(seat)
            if why and not self._ending.is_set():
                lived = loop.time() - started_at
                delay = seat.vacate(lived)
                logger.warning("a worker died", reason=why, seconds=round(lived, 1), restart_in_seconds=delay)
                await self._wait_ending(delay)

    async def _run_worker(self, seat: Seat) -> str | None:
        """Until it accepts no more connections. Returns why it died; None if it drains."""
        try:
            worker = await self._start(seat.open())
        except OSError as error:  # no memory, too many processes, the port taken meanwhile
            return f"it can't be started: {error}"
        await worker.left.wait()
        if worker.drains:
            return None
        await worker.ended
        return worker.outcome

    async def _start(self, listening: socket.socket) -> Worker:
        """Raises `OSError`."""
        number = next(n for n in itertools.count(1) if n not in self._numbers)
        self._numbers.add(number)
        try:
            worker = await self._spawn(number, listening)
        except OSError:
            self._numbers.discard(number)
            raise
        self._workers.add(worker)
        worker.ended = self._tasks.create_task(self._attend(worker))
        if self._ending.is_set():  # the signal came while it was starting, and missed it
            self._send(signal.SIGTERM)
        return worker

    async def _spawn(self, number: int, listening: socket.socket) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            inherited = (listening.fileno(), theirs.fileno())
            try:
                process = await asyncio.create_subprocess_exec(
                    *orderbell_start.command("receiver.serving.worker"),
                    *map(str, (number, *inherited)),
                    self._level_now,  # a signal may have changed it before this worker was there to hear it
                    env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._directory},
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=inherited,
                    process_group=self._process_group,
                )
            except OSError:
                ours.close()
                raise
        return Worker(number, process, ours)

    async def _attend(self, worker: Worker) -> None:
        """Until it has ended."""
        await worker.watch(BEGIN_SECONDS, self._hang_seconds)
        code = await worker.process.wait()
        mark_process_dead(worker.number, self._directory)  # type: ignore[no-untyped-call]
        self._numbers.discard(worker.number)
        self._workers.discard(worker)
        if self._ending.is_set() and code not in (
            0,
            -signal.SIGTERM,
        ):  # ended before it began
            self._failed = True
            logger.warning("a worker did not drain", reason=worker.outcome)

    async def _wait_ending(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    def _take_signal(self, number: signal.Signals) -> None:
        """The first signal drains. A second SIGINT skips the rest of the drain, as with a single gateway."""
        if not self._ending.is_set():
            self._ending.set()
            for seat in self._seats:  # our sockets first, so that nothing listens once the workers stop
                seat.close()
            self._send(signal.SIGTERM)
            asyncio.get_running_loop().call_later(self._drain_seconds + END_SECONDS, self._kill)
        elif number is signal.SIGINT:
            self._send(signal.SIGINT)

    def _change_level(self, number: signal.Signals, level: str) -> None:
        self._level_now = level
        change_level(level)
        self._send(number)

    def _kill(self) -> None:
        logger.warning("workers did not end in time and are killed", workers=len(self._workers))
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)


def supervise(settings: ReceiverSettings, host: str, port: int, count: int) -> int:
    """Run the workers until SIGTERM or SIGINT. Returns the exit code."""
    sockets = listen_together(host, port, count)
    configure_logs(settings.log_format, settings.log_level, "receiver", channels=settings.log_channels)
    logger.info("starting workers", url=url_of(sockets[0]), workers=count)
    try:
        directory = tempfile.TemporaryDirectory(prefix="orderbell-metrics-")
    except OSError as error:
        print(f"orderbell: --workers needs a directory for temporary files: {error}", file=sys.stderr)
        return 2
    with directory as path, Guard(settings.drain_seconds + END_SECONDS) as guard:
        supervisor = Supervisor(
            sockets,
            process_group=guard.group,
            directory=path,
            drain_seconds=settings.drain_seconds,
            log_level=settings.log_level,
        )
        return asyncio.run(supervisor.run())
