"""`POST /submit` of ORDERBELL_SPRING_COMPAT: a text for everybody at `/topic/messages`, from anybody.

See shared/spring.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from sender import recording
from sender.http import reading
from sender.http.api.events import Posted
from sender.http.reading import JsonBody
from sender.http.requests import traceparent_of
from shared.events import SOURCE, parse_event
from shared.spring import MESSAGES, event_of, posted_text, received_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from starlette.requests import Request

    from sender.http.api.events import Events


class Spring:
    def __init__(self, events: Events, clock: Callable[[], datetime]) -> None:
        self._events = events
        self._clock = clock

    async def submit(self, request: Request) -> Response:
        """Answers once it is on disk, with the text that everybody gets."""
        body = await reading.read_body(request, reading.MAX_BODY_BYTES)
        text = received_text(posted_text(request.headers.get("content-type", ""), body))
        now = self._clock()
        event = event_of(SOURCE, MESSAGES, text) | {"traceparent": traceparent_of(request)}
        posted = Posted([recording.arrival(parse_event(event, now=now), content="")], now, alone=True)
        request.state.api_key = ""  # callers have none here, so all share their Idempotency-Keys
        # A repetition is recognised by its text, because each request's event gets a new id.
        done = await self._events.record(request, JsonBody(body, text), posted)
        replayed = done.headers.get("idempotency-replayed")
        headers = {"Idempotency-Replayed": replayed} if replayed else None
        return Response(text, headers=headers, media_type="text/plain")
