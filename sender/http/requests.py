"""What all requests share: recognising repetitions, traces, and answers."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.responses import Response

from sender import idempotency
from sender.idempotency import Asked
from shared.events import is_traceparent
from shared.json import canonical_json
from shared.process.ways import ways

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request

    from sender.database.protocol import Database
    from sender.http.reading import JsonBody
    from sender.http.repeats import Repeats
    from sender.idempotency import Answer, Answered, Claim

T = TypeVar("T")
R = TypeVar("R")

_random = random.Random()  # seeded by the kernel, once


def asked(request: Request, body: JsonBody, item: T, now: datetime) -> Asked[T]:
    return Asked(item, claim_of(request, body), now)


def claim_of(request: Request, body: JsonBody) -> Claim | None:
    """Raises `InvalidKey`."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    caller, content = request.state.api_key, canonical_json(body.value)
    return idempotency.claim(caller, request.method, request.scope["path"], key, body.sent, content)


async def write_once(
    database: Database,
    request: Request,
    body: JsonBody,
    work: Callable[[Connection], Answer],
    *,
    now: datetime,
    keep: bool = True,
) -> Response:
    """Run the work in a transaction, or return the answer that the same request got before."""
    claim = claim_of(request, body)
    once = partial(idempotency.once, claim=claim, work=work, now=now, keep=keep)
    return answered(await _repeats(request).in_turn(claim, lambda: database.write(once)))


async def write_together(
    database: Database,
    request: Request,
    work: Callable[[Connection, Sequence[Asked[T]]], Sequence[Answered[R] | Exception]],
    asked: Asked[T],
    *,
    size: int = 1,
) -> Answered[R]:
    """`Database.write_together`; a repetition of a request that is still running waits for it first."""
    return await _repeats(request).in_turn(
        asked.claim, lambda: database.write_together(work, asked, size=size)
    )


def _repeats(request: Request) -> Repeats:
    repeats: Repeats = request.app.state.repeats
    return repeats


def answered(done: Answered[T]) -> Response:
    return response(done.answer, replayed=done.replayed)


def response(answer: Answer, *, replayed: bool = False) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    return Response(answer.body, answer.status, headers, media_type="application/json")


def json_response(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def key_name_of(request: Request) -> str:
    """The name of the API key, empty if it has none."""
    return str(getattr(request.state, "api_key_name", ""))


def note_recorded(request: Request, event: bytes | None) -> None:
    """An event was recorded for this request."""
    if event is not None and ways.noted:
        ways.note("event recorded", event, key=key_name_of(request) or "unnamed")


def traceparent_of(request: Request) -> str:
    """The caller's trace, or the start of a new one, so that every event can be followed.

    Where requests are traced, the request's own span.
    """
    if own := getattr(request.state, "traceparent", ""):
        return str(own)
    given = request.headers.get("traceparent", "")
    if is_traceparent(given):
        return given
    # Ids only have to differ; kernel randomness would cost two system calls a request.
    return f"00-{_random.getrandbits(128) or 1:032x}-{_random.getrandbits(64) or 1:016x}-01"
