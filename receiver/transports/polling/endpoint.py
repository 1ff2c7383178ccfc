"""`GET /events?wait=25`: long polling; `?wait=0`: polling.

The cursor of one answer is the `after` of the next request; with that alone no event is lost, at any gateway.
A client that also names its `session`, a random text of its own, gets the notices that come between two
requests, too: the gateway keeps its place in the feeds for some seconds. At another gateway, or later, the
same request begins a new session, with hello.

If a session's request comes while an earlier one still waits, the earlier one is answered at once, with
nothing: its client has probably given it up. `DELETE /events?session=…` ends a session early.
"""

from __future__ import annotations

import logging
import math
import re
import time
from typing import TYPE_CHECKING

from starlette.responses import Response

from receiver import metrics
from receiver.connections.connection import End
from receiver.transports.http import answer_head, cursors_of, headers_of, quality, take_over
from receiver.transports.polling.answer import answer_to, nothing
from receiver.transports.polling.poll import LIMITS, LongPoll, Poll
from receiver.transports.polling.sessions import Sessions
from receiver.transports.polling.waiting import Waiting
from shared.cursors import Cursor, InvalidCursor, format_cursors, parse_cursors
from shared.problems import Problem
from shared.quota import Quota

if TYPE_CHECKING:
    from starlette.requests import Request

    from receiver.access.doorkeeper import Doorkeeper
    from receiver.access.identity import Identity
    from receiver.gateway import Gateway
    from receiver.transports.polling.answer import Answer
    from receiver.transports.polling.poll import Limits
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.process.edge import Edge

PER_MINUTE = 1_200  # plain polls of one customer; long polls wait, so they need no such limit
_SHORTEST_WAIT = 1.0  # seconds; a request that waits less, or begins a session, counts as a plain poll
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SESSION = re.compile(r"[A-Za-z0-9._~-]{1,64}")

logger = logging.getLogger(__name__)


class PollingTransport:
    name = Poll.transport

    def __init__(
        self,
        gateway: Gateway,
        doorkeeper: Doorkeeper,
        limits: Limits = LIMITS,
        *,
        per_minute: int = PER_MINUTE,
    ) -> None:
        """`per_minute`: plain polls of each customer; as many may come at once."""
        self._gateway = gateway
        self._life = gateway.life
        self._doorkeeper = doorkeeper
        self._limits = limits
        self._quota = Quota(per_minute)
        self._sessions = Sessions()

    def wants(self, request: Request) -> bool:
        """Whether the client says how long it waits, or asks for JSON."""
        return "wait" in request.query_params or quality(request, "application/json") > 0

    async def endpoint(self, request: Request) -> Response:
        """Raises `Problem` if refused. A request that waits is answered later, on its socket."""
        identity = await self._doorkeeper.identify(request)
        try:
            seconds, session = _wait_of(request), _session_of(request)
            cursors = cursors_of(request)
        except (InvalidCursor, ValueError) as error:
            raise Problem(400, End.BAD_MESSAGE.value, str(error)) from None
        waits = seconds >= _SHORTEST_WAIT
        if not waits:
            self._spend(identity)
        if request.method == "HEAD":
            return answer_head([(b"content-type", b"application/json")])
        poll = self._find(identity, session, cursors)
        if poll is None:
            if waits and session:  # a new session is answered with hello at once
                self._spend(identity)
            poll = self._begin(identity, session, seconds, cursors)
        done = False
        try:
            given = await self._ask(request, poll, seconds, cursors)
            done = True
        finally:
            if not done:
                poll.leave("the request failed")
        if given is None:
            return Response()  # never sent: the waiting request has the socket
        return Response(given.body, given.status, {n.decode(): v.decode() for n, v in given.headers})

    async def end_session(self, request: Request) -> Response:
        """Answers 204, whether there was a session or not. Raises `Problem`."""
        identity = await self._doorkeeper.identify(request)
        try:
            poll = self._sessions.find(identity, _session_of(request))
        except ValueError as error:
            raise Problem(400, End.BAD_MESSAGE.value, str(error)) from None
        if poll is not None:
            poll.next_turn()
            poll.leave("ended by the client")
        return Response(status_code=204)

    def _spend(self, identity: Identity) -> None:
        """Count a request that does not wait. Raises `Problem` if there were too many."""
        if later := self._quota.spend(identity.customer):
            metrics.requests_refused.labels("too-many-polls").inc()
            headers = {"retry-after": str(math.ceil(later))}
            raise Problem(429, End.TOO_FAST.value, "Poll less often, or wait.", headers)

    async def _ask(
        self, request: Request, poll: Poll, seconds: float, cursors: dict[Channel, Place]
    ) -> Answer | None:
        """The answer to a request; None if it waits for one."""
        turn = poll.next_turn()
        await poll.wait_ready()
        if poll.turn != turn:  # a later request of the session has come, so this one was given up
            return nothing(format_cursors(Cursor(*item) for item in cursors.items()))
        if not seconds:
            return answer_to(poll, ",".join(request.headers.getlist("if-none-match")))
        if poll.has_news or poll.closed:
            return answer_to(poll)
        edge: Edge = request.scope["state"]["edge"]
        waiting = Waiting(poll, edge, headers_of(request))
        take_over(request, waiting)
        poll.wait(waiting, min(seconds, self._limits.longest_wait_seconds))
        return None

    def _find(self, identity: Identity, session: str, cursors: dict[Channel, Place]) -> Poll | None:
        """The session that this request continues, if the cursors agree."""
        poll = self._sessions.find(identity, session)
        if poll is None:
            return None
        if not self._continues(poll, identity, cursors):
            self._sessions.forget(poll)
            poll.next_turn()
            poll.leave("began anew")
            return None
        poll.identity = identity  # its token may be a newer one
        if self._gateway.draining:
            self._life.say_goodbye(poll)  # now: the client may be unable to connect again
        return poll

    def _continues(self, poll: Poll, identity: Identity, cursors: dict[Channel, Place]) -> bool:
        of = poll.identity
        if of is None or of.channels != identity.channels or parse_cursors(poll.cursor) != cursors:
            return False
        if not poll.closed:
            return True
        # It has ended and still has to report the reason; not if its token expired, because this request has
        # a new one.
        return not (poll.final is End.UNAUTHENTICATED and of.expires_at < time.time())

    def _begin(self, identity: Identity, session: str, seconds: float, cursors: dict[Channel, Place]) -> Poll:
        if self._gateway.draining or self._gateway.full:
            kind = "draining" if self._gateway.draining else "overloaded"
            raise Problem(503, kind, "Try again in a moment.", {"retry-after": "2"})
        kind_of = LongPoll if seconds else Poll
        poll = kind_of(self._life, self._sessions, identity, session, self._limits)
        poll.identity = identity  # it is authenticated
        self._life.open(poll)
        self._life.start(poll, self._serve(poll, identity, cursors))
        return poll

    async def _serve(self, poll: Poll, identity: Identity, cursors: dict[Channel, Place]) -> None:
        try:
            await self._life.serve(poll, identity, cursors)
        finally:
            poll.caught_up()


def _wait_of(request: Request) -> float:
    """Seconds. Raises `ValueError`."""
    text = request.query_params.get("wait", "0")
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"wait is a number of seconds, not {text[:40]!r}")
    return float(text)


def _session_of(request: Request) -> str:
    """Raises `ValueError`."""
    text = request.query_params.get("session", "")
    if text and not _SESSION.fullmatch(text):
        raise ValueError("session has 1 to 64 letters, digits and . _ ~ -")
    return text
