"""Revoking customers' tokens, and the list of it that gateways read."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
import structlog

from sender import revocations
from sender.http import bodies, reading
from sender.http.requests import json_response, write_once
from sender.idempotency import Answer
from shared.channels import is_name
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.database.protocol import Database
    from sender.revocations import Revocation

_DAY_SECONDS = 86_400.0

logger = structlog.get_logger(__name__)


class RevocationsQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0


class Revocations:
    def __init__(self, database: Database, clock: Callable[[], datetime], *, kept_days: float) -> None:
        self._database = database
        self._clock = clock
        self._kept_seconds = kept_days * _DAY_SECONDS

    async def revoke(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_CURSORS_BYTES)
        given = body.to(bodies.RevocationRequest)
        if (given.jti is None) == (given.customer_id is None):
            raise Problem(400, "invalid-revocation", "give either jti or customer_id")
        if given.jti is not None and given.issued_before is not None:
            raise Problem(400, "invalid-revocation", "issued_before goes with a customer_id")
        if given.customer_id is not None and not is_name(given.customer_id):
            raise Problem(
                400, "invalid-customer", "a customer id has 1 to 128 characters and no control characters"
            )
        now = self._clock()
        issued_before = _seconds(given.issued_before, now)
        kept_until = now.timestamp() + self._kept_seconds

        def work(connection: Connection) -> Answer:
            if given.jti is not None:
                done = revocations.revoke_token(connection, given.jti, now=now, kept_until=kept_until)
            else:
                assert given.customer_id is not None
                done = revocations.revoke_customer(
                    connection,
                    given.customer_id,
                    issued_before=issued_before,
                    now=now,
                    kept_until=kept_until,
                )
            return Answer(200, msgspec.json.encode(_body(done)))

        response = await write_once(self._database, request, body, work, now=now)
        logger.info("tokens were revoked", of="one token" if given.jti is not None else "one customer")
        return response

    async def list_some(self, request: Request) -> Response:
        query = reading.parse_query(request, RevocationsQuery)
        found = await self._database.read(partial(revocations.read, after=query.after, now=self._clock()))
        return json_response(bodies.RevocationsBody(list(map(_body, found.revocations)), found.newest))


def _body(one: Revocation) -> bodies.RevocationBody:
    return bodies.RevocationBody(one.position, one.jti, one.customer_id, one.issued_before, one.kept_until)


def _seconds(given: float | str | None, now: datetime) -> float:
    """Raises `Problem`."""
    if given is None:
        return now.timestamp()
    if isinstance(given, float | int):
        return float(given)
    try:
        time = datetime.fromisoformat(given)
        if time.tzinfo is not None:
            return time.timestamp()
    except (ValueError, OverflowError):
        pass
    raise Problem(400, "invalid-revocation", "issued_before is seconds since 1970, or RFC 3339 with its zone")
