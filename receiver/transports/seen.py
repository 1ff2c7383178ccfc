"""`POST /seen`: what was shown, reported by clients whose transport is one-way.

    {"cursor": "customer:alice=1.42"}
    {"cursor": "customer:alice=1.40+42+45-47"}

The same as `orderbell.seen` over a WebSocket. The sender checks it: a place beyond the newest event has no
effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from receiver.connections.messages import SeenReport
from shared.channels import customer_channel
from shared.cursors import InvalidCursor
from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from receiver.access.doorkeeper import Doorkeeper
    from receiver.feeds.seen import SeenReports

_decode = msgspec.json.Decoder(SeenReport).decode


class SeenOverHttp:
    def __init__(self, seen: SeenReports, doorkeeper: Doorkeeper) -> None:
        self._seen = seen
        self._doorkeeper = doorkeeper

    async def endpoint(self, request: Request) -> Response:
        """Answers 202: the report is on its way. Raises `Problem`."""
        identity = await self._doorkeeper.identify(request)
        try:
            seen = _decode(await request.body()).parse()
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidCursor) as error:
            raise Problem(400, "bad-message", f'expected {{"cursor": …}}: {error}') from None
        if not seen:
            raise Problem(400, "bad-message", 'expected {"cursor": …}, and this names no event')
        channel = customer_channel(identity.customer)
        if others := {one.channel for one in seen} - {channel, *identity.channels}:
            raise Problem(403, "forbidden", f"the token does not name {min(others)}")
        for one in seen:
            if one.channel == channel:
                self._seen.report(channel, one.extent)
        return Response(status_code=202)
