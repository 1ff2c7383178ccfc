"""The ledger: what was accepted, what each device was sent and showed, what was done to the system.

One line of JSON an entry. Each process writes a file of its own; times are those of the machine's
monotonic clock, which all its processes share.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType


class Post(msgspec.Struct, frozen=True, tag="post"):
    """A completion on its way to the sender. Invoked and never answered, it may exist or not."""

    at: float
    order_id: str
    customer: str
    phase: Literal["invoke", "ok", "refused"]


class Stored(msgspec.Struct, frozen=True, tag="stored"):
    """An event as the sender's history gave it in the end."""

    channel: str
    epoch: int
    seq: int
    order_id: str


class StoredChange(msgspec.Struct, frozen=True, tag="stored-change"):
    """An event of the system, as the history gave it: a retraction, an expiry, a mark as read."""

    channel: str
    epoch: int
    seq: int
    kind: str  # the event's type


class Change(msgspec.Struct, frozen=True, tag="change"):
    """A retraction of an order's alert, or a mark as read, on its way to the sender."""

    at: float
    order_id: str
    what: Literal["retract", "read"]
    phase: Literal["invoke", "ok", "refused"]


class Expiring(msgspec.Struct, frozen=True, tag="expiring"):
    """An order is completed with an alert that expires then."""

    order_id: str
    expires: float


class Show(msgspec.Struct, frozen=True, tag="show"):
    """A device showed an event."""

    at: float
    device: str
    customer: str  # whose device it is
    channel: str
    epoch: int
    seq: int
    order_id: str


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """A device was sent an event of the system that has a place in a channel."""

    at: float
    device: str
    channel: str
    epoch: int
    seq: int
    kind: str  # the event's type
    orders: list[str]  # whose alerts a retraction takes back; of other types none


class PopUp(msgspec.Struct, frozen=True, tag="pop-up"):
    """An alert came onto a device's screen, a moment after the device had it."""

    at: float
    device: str
    order_id: str


class Screen(msgspec.Struct, frozen=True, tag="screen"):
    """What a device makes of its customer's alerts in the end."""

    device: str
    unread: int | None  # None if no server sent it a count
    states: dict[str, str]  # by order: unread, read, expired, retracted


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """A customer's alerts as a server lists them."""

    at: float
    channel: str
    server: str
    as_of: str  # a place
    unread: int
    states: dict[str, str]  # by order: unseen, seen, read, expired, retracted
    whole: bool = True  # no page is missing
    final: bool = False


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A connection of a device is there."""

    at: float
    device: str
    gateway: int


class End(msgspec.Struct, frozen=True, tag="end"):
    """A connection of a device has ended, or never came about."""

    at: float
    device: str
    gateway: int
    code: int
    bye: bool = False


class Misplaced(msgspec.Struct, frozen=True, tag="misplaced"):
    """A gateway sent, on one connection, an event that does not follow the one before it."""

    at: float
    device: str
    after: str  # places
    got: str


class Reset(msgspec.Struct, frozen=True, tag="reset"):
    """A gateway notified a device that its cursor can't be honoured; with `given_up`, the device gave up
    itself.
    """

    at: float
    device: str
    reason: str
    place: str
    given_up: bool = False


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """What was done to the system. A fault without a duration ended when it began."""

    kind: str
    began: float
    ended: float
    what: str = ""


Entry = (
    Post
    | Change
    | Expiring
    | Stored
    | StoredChange
    | Show
    | Heard
    | PopUp
    | Screen
    | Listed
    | Hello
    | End
    | Misplaced
    | Reset
    | Fault
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def now() -> float:
    return time.monotonic()


class LedgerWriter:
    """Appends entries to a file; they are in it when it is closed, or after `flush`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, entry: Entry) -> None:
        self._file.write(_encode(entry) + b"\n")

    def flush(self) -> None:
        self._file.flush()


def read(paths: Iterable[Path]) -> Iterator[Entry]:
    for path in paths:
        with path.open("rb") as lines:
            yield from map(_decode, lines)
