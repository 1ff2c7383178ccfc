"""The order board: the open orders and those that changed last, kept up to date for back office pages.

Nothing is published about orders that are placed or cancelled, and several senders share a database. So while
anybody watches, the board reads the database twice a second, and at once after this sender's own changes;
otherwise it does nothing. Each watcher is handed what differs from what it had, however slowly it
reads: no queue grows. Redis takes no part, so the board also works while Redis is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from sender import orders
from sender.database.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sender.database.protocol import Database

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 0.5
    least_seconds: float = 0.1  # between two looks, however often it is woken


@dataclass(frozen=True)
class Limits:
    watchers: int = 100  # of one sender
    open: int = 200  # open orders, the newest
    recent: int = 30  # completed and cancelled ones


USUAL = Pace()
LIMITS = Limits()


class Changes(NamedTuple):
    """What differs from what a watcher had: orders, oldest first, and ids that are no longer on the board."""

    orders: list[msgspec.Raw]
    gone: list[str]
    more: bool  # whether there are more open orders


class Board:
    """`run` by its owner as a task; `wake` it after each change of an order."""

    def __init__(self, database: Database, pace: Pace = USUAL, limits: Limits = LIMITS) -> None:
        self._database = database
        self._pace = pace
        self._limits = limits
        self._shown: dict[str, bytes] = {}  # JSON by order id, oldest first; empty while nobody watches
        self._more = False
        self._version = 0  # of what is shown
        self._watchers = 0
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()  # another one for each change
        self._ended = False

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._watchers:
                await self._look()
                await asyncio.sleep(self._pace.least_seconds)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pace.every_seconds - self._pace.least_seconds):
                        await self._woken.wait()
                self._woken.clear()

    def end(self) -> None:
        """End all watching: the sender is about to leave."""
        self._ended = True
        self._notify()

    @property
    def is_full(self) -> bool:
        return self._watchers >= self._limits.watchers

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watcher]:
        self._watchers += 1
        self.wake()
        try:
            yield Watcher(self)
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._version, self._shown = 0, {}

    async def _look(self) -> None:
        try:
            found = await self._database.read(self._read())
        except DatabaseError as error:
            logger.debug("the order board can't be read now", reason=str(error))
            return
        shown = {order.order_id: msgspec.json.encode(order) for order in found.orders}
        if not self._watchers or (self._version and (shown, found.more) == (self._shown, self._more)):
            return
        self._shown, self._more = shown, found.more
        self._version += 1
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _read(self) -> partial[orders.OnBoard]:
        most = self._limits
        return partial(orders.board, known=list(self._shown), open_most=most.open, recent_most=most.recent)

    async def wait_newer(self, version: int) -> int | None:
        """The board's version, once it is another than that; None when watching ends."""
        while not self._ended and self._version in (0, version):
            await self._changed.wait()
        return None if self._ended else self._version

    def changes(self, had: dict[str, bytes]) -> Changes:
        """What is on the board and not the same in `had`; `had` is brought up to date."""
        new = [msgspec.Raw(text) for order_id, text in self._shown.items() if had.get(order_id) != text]
        gone = [order_id for order_id in had if order_id not in self._shown]
        had.clear()
        had.update(self._shown)
        return Changes(new, gone, self._more)


class Watcher:
    """What one page has of the board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._had: dict[str, bytes] = {}
        self._version = 0

    async def next(self, within_seconds: float) -> Changes | None:
        """What has changed; the first time everything. None when watching ends.

        Raises `TimeoutError` if nothing has changed within that time.
        """
        async with asyncio.timeout(within_seconds):
            version = await self._board.wait_newer(self._version)
        if version is None:
            return None
        self._version = version
        return self._board.changes(self._had)
