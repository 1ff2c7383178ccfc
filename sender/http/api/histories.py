"""Histories of channels: of one channel for callers, of many at once for gateways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sender import history
from sender.http import bodies, reading
from sender.http.paths import channel_in_path
from sender.http.requests import json_response, write_once
from sender.http.requests import response as response_to
from sender.idempotency import Answer
from shared.channels import parse_channel
from shared.cursors import Cursor, parse_after, parse_cursor
from shared.extents import Seen
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.database.protocol import Database
    from sender.peers import Peers
    from sender.publishing.relay import Relay
    from sender.roll import Roll
    from sender.seen import SeenNotifier
    from shared.agreement import Agreement


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: bodies.CursorText | None = None
    limit: bodies.Limit = history.DEFAULT_LIMIT


class Histories:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        notifier: SeenNotifier,
        clock: Callable[[], datetime],
        roll: Roll,
        agreement: Agreement,
        peers: Peers,
    ) -> None:
        self._agreement = agreement
        self._peers = peers
        self._database = database
        self._relay = relay
        self._notifier = notifier
        self._clock = clock
        self._roll = roll

    async def of_channel(self, request: Request) -> Response:
        channel = channel_in_path(request, "channel")
        query = reading.parse_query(request, EventsQuery)
        after = parse_after(request.url.query) if query.after is not None else None
        if after is not None and after.keys() != {channel}:
            raise Problem(400, "invalid-cursor", f"{query.after!r} is not one cursor of {channel}")

        def work(connection: Connection) -> history.ChannelHistory:
            place = after[channel] if after is not None else history.oldest(connection, channel)
            (found,) = history.read(connection, [history.Request(channel, place)], limit=query.limit)
            return found

        found = await self._database.read(work)
        as_of = str(Cursor(channel, found.as_of))
        if found.reset is not None:
            raise Problem(
                410,
                "cursor-gone",
                "this cursor cannot be honoured; reload the state and continue at as_of",
                as_of=as_of,
                reset=found.reset.value,
            )
        last = found.entries[-1].place if found.entries else found.after
        return json_response(bodies.ChannelEvents(_raw(found), str(Cursor(channel, last)), as_of))

    async def of_many(self, request: Request) -> Response:
        if gateway := request.headers.get("orderbell-gateway"):
            self._roll.note(gateway, pulls="orderbell-pulls" in request.headers)
            self._agreement.note(gateway[:200], request.headers.get("orderbell-settings", ""))
        asked = await reading.read_json(request, reading.MAX_CURSORS_BYTES)
        given = asked.to(bodies.HistoryRequest)
        requests = [_history_request(text) for text in given.after]
        unseen: list[Seen] = []
        installation = await self._relay.installation()

        def work(connection: Connection) -> Answer:
            nonlocal unseen
            found = history.read(connection, requests, limit=given.limit)
            unseen = [
                Seen(answer.channel, answer.seen)
                for one, answer in zip(requests, found, strict=True)
                if one.after is None and answer.seen is not None
            ]
            newest = self._relay.newest
            body = bodies.HistoryBody(
                list(map(_history_body, found)),
                f"{newest.epoch}.{newest.position}",
                installation,
                self._peers.name,
                self._peers.announcement,
            )
            return Answer(200, msgspec.json.encode(body))

        if "idempotency-key" in request.headers:
            response = await write_once(self._database, request, asked, work, now=self._clock(), keep=False)
        else:
            response = response_to(await self._database.read(work))
        # The next gateway that needs these customers' seen cursors finds them in Redis.
        self._notifier.pass_on(unseen, devices=False)
        return response


def _history_request(text: str) -> history.Request:
    if "=" not in text:
        return history.Request(parse_channel(text), None)
    cursor = parse_cursor(text)
    return history.Request(cursor.channel, cursor.place)


def _history_body(found: history.ChannelHistory) -> bodies.ChannelHistoryBody:
    channel = found.channel
    return bodies.ChannelHistoryBody(
        channel=channel,
        after=str(Cursor(channel, found.after)),
        as_of=str(Cursor(channel, found.as_of)),
        seen=str(Seen(channel, found.seen)) if found.seen is not None else None,
        reset=found.reset.value if found.reset is not None else None,
        events=_raw(found),
        erased=found.erased,
    )


def _raw(found: history.ChannelHistory) -> list[msgspec.Raw]:
    """The stored texts, embedded unchanged."""
    return [msgspec.Raw(entry.text) for entry in found.entries]
