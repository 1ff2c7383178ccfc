"""The sender's history API, as a gateway asks it: many channels at once, events left as bytes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

from receiver import metrics
from receiver.access import revocations
from receiver.sender_line import SenderSilent
from shared import agreement
from shared.cursors import Cursor, Place, parse_cursor
from shared.events import Entry
from shared.extents import Extent, parse_seen
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from receiver.sender_line import Asking
    from shared.agreement import Agreement
    from shared.channels import Channel
    from shared.extents import Seen

MAX_CHANNELS = 500  # of one request
_EVENTS = 200  # of one channel in one answer
_NONE: Mapping[str, str] = {}


class HistoryUnavailable(revocations.RevocationsUnavailable):
    """The sender gave no usable answer; it may give one later."""


class HistoryRefused(HistoryUnavailable):
    """The sender refuses one of the questions as invalid, and therefore answers none of them."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What is known of a channel after a place.

    Either `entries` follow that place without a gap, or `reset` gives the reason why it can't be honoured.
    `head` is where the channel was when it was asked for; after a reset, go on there.
    """

    after: Place
    entries: tuple[Entry, ...]
    head: Place
    reset: str | None = None
    seen: Extent | None = None  # what the customer has seen; None for topics
    erased: bool | None = None  # whether the customer was erased; Redis' log does not say

    @property
    def complete(self) -> bool:
        """Whether there was nothing more to read."""
        last = self.entries[-1].place if self.entries else self.after
        return self.reset is None and last >= self.head

    @property
    def empty(self) -> bool:
        """Whether the answer reports more events but contains none."""
        return not (self.complete or self.entries or self.reset)


class _Channel(msgspec.Struct):
    channel: str
    after: str
    as_of: str
    events: list[msgspec.Raw]
    reset: str | None = None
    seen: str | None = None
    erased: bool | None = None  # earlier senders do not say


class _Body(msgspec.Struct):
    channels: list[_Channel]
    newest: str = "0.0"
    installation: str = ""
    sender: str = ""  # earlier senders do not say
    settings: str = ""


_decode = msgspec.json.Decoder(_Body).decode
_decode_revocations = msgspec.json.Decoder(revocations.Page).decode


class _Count(msgspec.Struct):
    unread: int
    as_of: str


class _Counts(msgspec.Struct):
    counts: list[_Count]


_decode_counts = msgspec.json.Decoder(_Counts).decode


class History:
    """A client of the sender, as far as gateways need it."""

    def __init__(self, sender: Asking) -> None:
        self._sender = sender
        self.installation = ""  # the id of the sender's database, once known
        self._gateway = ""
        self._hears: Callable[[], bool] = lambda: True
        self._settings = ""
        self._senders: Agreement | None = None

    def introduce(
        self, gateway: str, hears: Callable[[], bool], settings: str = "", senders: Agreement | None = None
    ) -> None:
        """The sender learns the gateway's name, and whether it hears Redis: else it can't be asked there.

        `settings` are announced to it, and `senders` compares what senders announce (shared/agreement.py).
        """
        self._gateway, self._hears = quote(gateway, safe=":/._-[]"), hears
        self._settings, self._senders = settings, senders

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = _EVENTS) -> list[Continuation]:
        """What follows each cursor; for a channel without one, what its customer has not seen.

        At most `MAX_CHANNELS`. Raises `HistoryUnavailable`, also as `HistoryRefused`.
        """
        answer = await self._post("/history", {"after": [str(one) for one in asked], "limit": limit})
        try:
            channels = self._decode(answer).channels
            if len(channels) != len(asked):
                raise HistoryUnavailable(f"asked for {len(asked)} channels, got {len(channels)}")
            return [_continuation(channel) for channel in channels]
        except (ValueError, RecursionError) as error:  # of the decoder, of cursors, of UTF-8
            raise HistoryUnavailable(f"unexpected answer from the sender: {error}") from error

    async def newest(self) -> NewestEvent:
        """The newest event that should be in Redis by now, as far as the sender knows.

        Raises `HistoryUnavailable`.
        """
        introduction = {"orderbell-gateway": self._gateway} if self._gateway else {}
        if not self._hears():
            introduction["orderbell-pulls"] = "true"
        if self._settings:
            introduction["orderbell-settings"] = self._settings
        answer = await self._post("/history", {"after": []}, introduction)
        try:
            body = self._decode(answer)
            epoch, position = body.newest.split(".")
            if self._senders is not None and body.sender:
                self._senders.note(body.sender, body.settings)
                agreement.show(metrics.settings_differ, agreement.ALL, self._senders)
            return NewestEvent(int(epoch), int(position))
        except (ValueError, RecursionError) as error:
            raise HistoryUnavailable(f"unexpected answer from the sender: {error}") from error

    async def ask_installation(self) -> None:
        """Find out `installation`, if the sender can be reached."""
        with contextlib.suppress(HistoryUnavailable):
            await self.newest()

    async def report_seen(self, seen: Sequence[Seen]) -> None:
        """Raises `HistoryUnavailable`, also as `HistoryRefused`; repeating is harmless."""
        await self._post("/seen", {"cursors": [str(one) for one in seen]})

    async def list_alerts(self, channel: Channel, before: Cursor | None, limit: int) -> bytes:
        """A page of a channel's alerts, as the sender has it. Raises `HistoryUnavailable`."""
        # Quoted once more: otherwise a `%` of the channel's own would be decoded on the way.
        query = {"limit": str(limit), **({"before": str(before)} if before is not None else {})}
        path = f"/channels/{quote(channel, safe='')}/alerts?{urlencode(query)}"
        return await self._ask("GET", path)

    async def count_unread(self, channels: Sequence[Channel]) -> list[tuple[int, str]]:
        """The unread alerts of each channel, and the cursor where that is true.

        Raises `HistoryUnavailable`.
        """
        counts = _counts(await self._post("/unread", {"channels": channels}))
        if len(counts) != len(channels):
            raise HistoryUnavailable(f"asked for {len(channels)} counts, got {len(counts)}")
        return counts

    async def mark_read(
        self, cursors: Sequence[Cursor], ids: Sequence[str], *, customer: str
    ) -> list[tuple[int, str]]:
        """Returns the counts afterwards, as `count_unread`: one for each cursor, and one for the ids."""
        body: dict[str, object] = {"cursors": [str(cursor) for cursor in cursors]}
        if ids:
            body |= {"ids": ids, "customer_id": customer}
        return _counts(await self._post("/read", body))

    async def revocations(self, after: int) -> revocations.Page | None:
        """What follows a position; None from a sender that has no list. Raises `HistoryUnavailable`."""
        try:
            response = await self._sender.request("GET", f"/revocations?after={after}")
        except SenderSilent as error:
            raise HistoryUnavailable(f"/revocations: {error}") from error
        if response.status_code in (404, 405):
            return None
        if response.status_code != 200:
            raise HistoryUnavailable(f"/revocations: the sender answered {response.status_code}")
        try:
            return _decode_revocations(response.content)
        except (ValueError, RecursionError) as error:
            raise HistoryUnavailable(f"unexpected answer from the sender: {error}") from error

    def _decode(self, answer: bytes) -> _Body:
        decoded = _decode(answer)
        self.installation = decoded.installation or self.installation
        return decoded

    async def _post(self, path: str, body: object, headers: Mapping[str, str] = _NONE) -> bytes:
        return await self._ask("POST", path, msgspec.json.encode(body), headers)

    async def _ask(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] = _NONE
    ) -> bytes:
        if content is not None:
            headers = {"content-type": "application/json", **headers}
        try:
            response = await self._sender.request(method, path, content=content, headers=headers)
        except SenderSilent as error:
            raise HistoryUnavailable(f"{path}: {error}") from error
        if response.status_code == 400:
            raise HistoryRefused(f"{path}: the sender answered 400")
        if response.status_code != 200:
            raise HistoryUnavailable(f"{path}: the sender answered {response.status_code}")
        return response.content


def _counts(answer: bytes) -> list[tuple[int, str]]:
    try:
        return [(one.unread, one.as_of) for one in _decode_counts(answer).counts]
    except (ValueError, RecursionError) as error:
        raise HistoryUnavailable(f"unexpected answer from the sender: {error}") from error


def _continuation(channel: _Channel) -> Continuation:
    after = parse_cursor(channel.after).place
    # Most customers have nothing that they have not seen.
    head = after if channel.as_of == channel.after else parse_cursor(channel.as_of).place
    # The sender returns events without holes, so their places follow from the first one.
    entries = tuple(
        Entry(Place(after.epoch, after.seq + n), bytes(text)) for n, text in enumerate(channel.events, 1)
    )
    seen = None
    if channel.seen:
        seen = Extent(after) if channel.seen == channel.after else parse_seen(channel.seen).extent
    return Continuation(after, entries, head, channel.reset, seen, channel.erased)
