"""A client that polls, as a connection: what it has not fetched yet, and its cursor.

It collects events and notices in pages, one for each answer. In an answer notices come before events, so a
reset after events begins a new page; so does an event that would make the answer too large.

Without a session it lives for one request. With one it stays in its feeds between two requests, for some
seconds: events and notices wait here meanwhile, and the subscription stays. With the cursor alone, the client
would get the events again, but not the notices. Backpressure: catching up pauses after one answer's worth,
and a session for which too much waits is ended. Its client continues with its cursor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from receiver.connections.connection import Connection, End, Ending
from receiver.connections.notices import Ended, Hello, Reset
from shared.cursors import Cursor, format_cursors, parse_cursors

if TYPE_CHECKING:
    from receiver.access.identity import Identity
    from receiver.connections.life import Life
    from receiver.connections.notices import Notice
    from receiver.transports.polling.sessions import Sessions
    from shared.channels import Channel
    from shared.cursors import Place


@dataclass(frozen=True)
class Limits:
    answer_bytes: int = 128 * 1024  # of the events in one answer, which has at least one
    buffer_bytes: int = 384 * 1024  # of events that wait for the requests of a session
    linger_seconds: float = 30.0  # that a session waits for its client's next request
    farewell_seconds: float = 2.0  # for a client's next request to get the reason why its session has ended
    longest_wait_seconds: float = 55.0  # of a request: proxies end it after 60


LIMITS = Limits()


class Page:
    """The content of one answer."""

    __slots__ = ("events", "notices", "places", "size")

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.events: list[bytes] = []
        self.size = 0  # bytes of events
        self.places: dict[Channel, Place] = {}  # the places after it, of channels that moved


class Request(Protocol):
    """A request that waits for its answer."""

    def answer_now(self) -> None:
        """Answer with what there is."""

    def give_way(self) -> None:
        """Answer with nothing, because a newer request of the same client has come."""


class Poll(Connection):
    __slots__ = (
        "_catching_up",
        "_due",
        "_life",
        "_limits",
        "_lost",
        "_pages",
        "_ready",
        "_room",
        "_sessions",
        "_timer",
        "_waiting",
        "cursor",
        "final",
        "session",
        "turn",
    )

    transport = "polling"

    def __init__(
        self, life: Life, sessions: Sessions, identity: Identity, session: str = "", limits: Limits = LIMITS
    ) -> None:
        """`session` is the client's name for it, empty for a request on its own."""
        super().__init__()
        self._life = life
        self._sessions = sessions
        self._limits = limits
        self.identity = identity
        self.session = session
        self.cursor = ""  # the client has everything up to here
        self.turn = 0  # the number of the newest request
        self.final: End | None = None  # why it ended, until the client has been informed
        self._waiting: Request | None = None
        self._pages: list[Page] = []
        self._catching_up = True
        self._due = False  # something has come for a waiting request
        self._lost = False  # `Life.lost` was called
        self._ready: asyncio.Event | None = None  # for requests that wait for the first answer
        self._room: asyncio.Future[None] | None = None  # of the task that catches up
        self._timer: asyncio.TimerHandle | None = None  # of the waiting request, or for the next one
        if session:
            sessions.add(identity, self)

    @property
    def passing(self) -> bool:
        return not self.session

    # The gateway's side.

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        if self.closed:
            return
        page = self._page_for(len(text))
        page.events.append(text)
        page.size += len(text)
        page.places[channel] = place
        if self._waits() > self._limits.buffer_bytes:
            self.end(End.SLOW, "too slow")
        else:
            self._note_due()

    def _waits(self) -> int:
        return sum(page.size for page in self._pages)

    def _page_for(self, size: int) -> Page:
        if not self._pages or (
            self._pages[-1].size and self._pages[-1].size + size > self._limits.answer_bytes
        ):
            self._pages.append(Page())
        return self._pages[-1]

    def notify(self, notice: Notice) -> None:
        if self.closed:
            return
        page = self._page_for(0)
        if isinstance(notice, Reset) and page.events:
            page = Page()
            self._pages.append(page)
        page.notices.append(notice)
        if isinstance(notice, (Hello, Reset)):
            page.places |= parse_cursors(notice.cursor)
        # Notices during catching up only describe the present state, so they don't end a wait; a client
        # without a session would get them again with its next request.
        if isinstance(notice, Reset) or (self.session and not self._catching_up):
            self._note_due()

    def beat(self, now: float) -> None:
        """Sends nothing while a request waits, because the request's time-out is well within what proxies
        allow.
        """

    def end(self, end: End, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self.ending = Ending(end.value, reason)
        if end is End.SLOW:
            self._pages.clear()  # the client gets them again by its cursor
        elif self._pages:
            self._pages[-1].notices.append(Ended(end.value, reason))
        self.final = end
        self._close()

    async def wait_writable(self) -> None:
        """A request without a session gets one page; the next request gets the following one."""
        while not self.closed and self._waits() >= self._limits.answer_bytes:
            if not self.session:
                self.leave("answered")
                return
            self._make_ready()
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    # The requests' side.

    @property
    def has_news(self) -> bool:
        """Whether there is anything for a waiting request."""
        if not self._pages:
            return False
        # A session gets hello once, and at once; without a session every answer has a hello.
        return bool(self._due or self._pages[0].events or (self.session and not self._catching_up))

    @property
    def is_empty(self) -> bool:
        return not self._pages

    async def wait_ready(self) -> None:
        """Wait until there is something to answer with, or everything is caught up."""
        if self._catching_up and not self.closed and not self.has_news:
            self._ready = self._ready or asyncio.Event()
            await self._ready.wait()

    def caught_up(self) -> None:
        self._catching_up = False
        self._make_ready()

    def take(self) -> Page:
        """The next answer's content. Moves the cursor past it."""
        page = self._pages.pop(0) if self._pages else Page()
        self._due = bool(self._pages)
        if page.places:
            places = parse_cursors(self.cursor) | page.places
            self.cursor = format_cursors(Cursor(*item) for item in places.items())
        self._make_room()
        return page

    def next_turn(self) -> int:
        """A request has come: returns its number. An earlier one that still waits gives way to it."""
        self._set_timer(None)
        self.turn += 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.give_way()
        return self.turn

    def wait(self, request: Request, seconds: float) -> None:
        """Answer the request as soon as there is something to answer with, or after that time."""
        self._waiting = request
        self._set_timer(seconds)

    def answered(self) -> None:
        """The request was answered: wait for the next one, or leave if none will come."""
        if self.closed and (self.is_empty or not self.session):
            self._be_lost()
        elif self.closed:
            self._set_timer(self._limits.farewell_seconds)
        elif self.session:
            self._set_timer(self._limits.linger_seconds)
        else:
            self.leave("answered")

    def leave(self, reason: str) -> None:
        """The client has gone, or has its answer: there is nothing left to report."""
        if not self.closed:
            self.closed = True
            self.ending = Ending("left", reason)
        self._be_lost()

    def _close(self) -> None:
        """Nothing comes any more, but the client still has to get the reason."""
        self._life.leave(self)
        self._make_room()
        self._make_ready()
        if self._waiting is not None:
            self._answer_waiting()
        elif self.session and self.final is not End.SLOW:
            self._set_timer(self._limits.farewell_seconds)
        elif self.session:
            self._be_lost()

    def _be_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._set_timer(None)
            self._sessions.forget(self)
            self._make_room()
            self._make_ready()
            self._life.lost(self)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._time_out) if seconds is not None else None

    def _time_out(self) -> None:
        if self._waiting is not None:
            self._answer_waiting()
        else:
            self.leave("did not come back")

    def _note_due(self) -> None:
        """Answers in the next turn of the loop, so that what was heard together leaves in one answer."""
        self._due = True
        self._make_ready()
        if self._waiting is not None:
            asyncio.get_running_loop().call_soon(self._answer_waiting)

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.answer_now()

    def _make_ready(self) -> None:
        if self._ready is not None:
            self._ready.set()
            self._ready = None

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None


class LongPoll(Poll):
    __slots__ = ()

    transport = "long-polling"
