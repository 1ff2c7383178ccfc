"""What is remembered of connections that have ended, in bounded memory.

Support asks for it, see receiver/inquiries.py.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

from shared.channels import customer_channel

if TYPE_CHECKING:
    from receiver.connections.connection import Connection
    from shared.channels import Channel

ENDED = 5_000  # connections; about a megabyte
REFUSED = 500


class Ended(NamedTuple):
    """A connection or a handshake that has ended. Times are seconds since 1970."""

    channel: Channel | None  # its customer's own; None if the client never authenticated
    transport: str
    opened_at: float
    ended_at: float
    code: str
    reason: str
    requests: int = 0  # of a client that polls, together
    id: str = ""  # of the connection, as in the log; of the last one of a client that polls


class Register:
    """The newest endings. A flood of refused handshakes pushes out earlier refusals only.

    The requests of a customer that polls are one ending: they would soon have pushed out all others.
    """

    def __init__(self, now: float, *, ended: int = ENDED, refused: int = REFUSED) -> None:
        self._ended: deque[Ended] = deque(maxlen=ended)
        self._refused: deque[Ended] = deque(maxlen=refused)
        self._polls: OrderedDict[tuple[Channel, str], Ended] = OrderedDict()  # the latest last
        self._max_polls = ended
        self._started_at = now

    def note_ending(self, connection: Connection, id: str, *, lasted: float, now: float) -> None:
        code, reason = connection.ending
        identity = connection.identity
        channel = customer_channel(identity.customer) if identity is not None and identity.customer else None
        ended = Ended(channel, connection.transport, now - lasted, now, str(code), reason, id=id)
        if connection.passing and channel is not None:
            self._note_poll(channel, ended)
        else:
            (self._refused if identity is None else self._ended).append(ended)

    def _note_poll(self, channel: Channel, ended: Ended) -> None:
        key = channel, ended.transport
        before = self._polls.get(key)
        since, requests = (before.opened_at, before.requests) if before else (ended.opened_at, 0)
        self._polls[key] = ended._replace(opened_at=since, requests=requests + 1)
        self._polls.move_to_end(key)
        if len(self._polls) > self._max_polls:
            self._polls.popitem(last=False)

    def note_refusal(self, transport: str, kind: str, reason: str, *, now: float) -> None:
        """A handshake that was refused before it was accepted."""
        self._refused.append(Ended(None, transport, now, now, kind, reason))

    def ended_of(self, channel: Channel) -> list[Ended]:
        """The oldest first."""
        polls = [one for one in self._polls.values() if one.channel == channel]
        return sorted([*polls, *(one for one in self._ended if one.channel == channel)], key=_ended_at)

    @property
    def refused(self) -> list[Ended]:
        """The oldest first."""
        return list(self._refused)

    @property
    def remembers_since(self) -> float:
        """Earlier endings may be forgotten; seconds since 1970."""
        full = [kept[0].ended_at for kept in (self._ended, self._refused) if len(kept) == kept.maxlen]
        return max(full, default=self._started_at)


def _ended_at(one: Ended) -> float:
    return one.ended_at
