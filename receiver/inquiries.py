"""A gateway's answers to senders' questions: who is connected here, and what was handed over to them.

Everything is in memory already, so a delivery writes and counts nothing more. An answer looks at all
connections once, which takes some milliseconds for 10,000; questions are answered one after the other.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import structlog
from redis.exceptions import RedisError

from shared.channels import InvalidChannel, is_private, name_in, parse_channel
from shared.cursors import Cursor
from shared.redis.inquiries import (
    MAX_CONNECTIONS,
    ConnectionReport,
    EndingReport,
    GatewayReport,
    Question,
    parse_question,
)
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from receiver.connections.connection import Connection
    from receiver.connections.register import Ended
    from receiver.gateway import Gateway
    from shared.channels import Channel
    from shared.redis.inquiries import Answerer

_WAITING = 20  # questions; further ones are not answered
_ENDINGS = 20  # the newest, in one answer

logger = structlog.get_logger(__name__)


class Inquiries:
    def __init__(self, gateway: Gateway, answerer: Answerer, not_ready: Callable[[], Iterable[str]]) -> None:
        """`not_ready` returns the reasons, if the gateway is not ready."""
        self._gateway = gateway
        self._answerer = answerer
        self._not_ready = not_ready
        self._asked: asyncio.Queue[Question] = asyncio.Queue(_WAITING)
        self._started_at = time.time()
        gateway.keeper.hear_questions(self._ask)

    def _ask(self, message: bytes) -> None:
        question = parse_question(message)
        if question is None or self._asked.full():
            return
        self._asked.put_nowait(question)

    async def run(self) -> None:
        while True:
            question = await self._asked.get()
            try:
                channel = parse_channel(question.channel) if question.channel is not None else None
                await self._answerer.answer(question, self.report(channel))
            except InvalidChannel:
                logger.warning("a question names an invalid channel")
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("a question could not be answered", reason=str(error) or type(error).__name__)

    def report(self, channel: Channel | None) -> GatewayReport:
        """What this gateway knows; of one channel, or of all connections."""
        gateway = self._gateway
        connections = gateway.clock.connections
        asked = [
            one
            for one in connections
            if one.identity is not None and (channel is None or channel in one.identity.channels)
        ]
        shown = heapq.nlargest(MAX_CONNECTIONS, asked, key=lambda one: (one.waiting_bytes, one.opened_at))
        report = GatewayReport(
            gateway=gateway.name,
            started_at=_text(self._started_at),
            now=_text(time.time()),
            redis=gateway.hears,
            not_ready=list(self._not_ready()),
            connections=dict(Counter(one.transport for one in connections)),
            channels=gateway.keeper.channel_count,
            listening=[_connection(one, channel, gateway.life.id_of(one)) for one in shown],
            listening_count=len(asked),
            remembers_since=_text(gateway.life.register.remembers_since),
        )
        return report if channel is None else self._of_channel(report, channel, connections)

    def _of_channel(
        self, report: GatewayReport, channel: Channel, connections: Iterable[Connection]
    ) -> GatewayReport:
        register = self._gateway.life.register
        feed = self._gateway.keeper.feed(channel)
        place, expected = (feed.place, feed.expected) if feed is not None else (None, None)
        return msgspec.structs.replace(
            report,
            place=str(Cursor(channel, place)) if place is not None else None,
            expected=str(Cursor(channel, expected)) if expected is not None else None,
            ended=[_ending(one) for one in register.ended_of(channel)[-_ENDINGS:]],
            refused=[_ending(one) for one in register.refused[-_ENDINGS:]],
            similar=_similar(channel, connections) if is_private(channel) else [],
        )


def _similar(channel: Channel, connections: Iterable[Connection]) -> list[str]:
    """Connected customers whose names differ only in case: often one of them was meant."""
    customers = {one.identity.customer for one in connections if one.identity is not None}
    asked = name_in(channel)
    alike = {name for name in customers if name.casefold() == asked.casefold()}
    return sorted(alike - {asked})[:_ENDINGS]


def _connection(connection: Connection, channel: Channel | None, id: str) -> ConnectionReport:
    identity = connection.identity
    assert identity is not None
    offset = time.time() - asyncio.get_running_loop().time()  # from the loop's clock to the time of day
    entered = [(part, feed) for part in connection.parts for feed in part.feeds]
    asked = [(part, feed) for part, feed in entered if channel is None or feed.channel == channel]
    return ConnectionReport(
        customer=identity.customer,
        transport=connection.transport,
        since=_text(connection.opened_at + offset),
        topics=list(identity.topics[:MAX_CONNECTIONS]),
        live=bool(asked) and all(part in feed.live for part, feed in asked),
        waiting_bytes=connection.waiting_bytes,
        spoke_at=_text(connection.spoke_at + offset) if connection.spoke_at else None,
        token_expires_at=_text(identity.expires_at),
        id=id,
    )


def _ending(ended: Ended) -> EndingReport:
    return EndingReport(
        ended.transport,
        _text(ended.opened_at),
        _text(ended.ended_at),
        ended.code,
        ended.reason,
        ended.requests,
        ended.id,
    )


def _text(seconds: float) -> str:
    """A time as text. Times too far ahead, such as the end of some tokens, become the last possible one."""
    try:
        return format_time(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, OSError, ValueError):
        return "9999-12-31T23:59:59.999Z"
