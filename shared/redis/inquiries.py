"""Questions that senders ask all gateways, and their answers: who is connected, and what became of an event.

A gateway writes nothing for each delivery; it keeps what it knows in bounded memory and answers when asked.

* `ob:live:{gateways}`   Pub/Sub: the question, as JSON. Every gateway is always subscribed to it
* `ob:answers:<id>`      list: each gateway's answer, as JSON; expires after some seconds

A gateway that does not hear Redis does not answer. The number of gateways is not known, so the asker stops
waiting once no answer has come for a while.

With ORDERBELL_LIVE_KEYS both are signed; an answer with the name of its list, so it is valid for its question
only.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import msgspec

from shared.channels import Channel
from shared.cursors import InvalidCursor, parse_cursor
from shared.redis.signatures import NO_SIGNATURES, Kind, unsigned
from shared.times import is_time

if TYPE_CHECKING:
    from shared.redis.connect import AnyPipelines
    from shared.redis.keys import Names
    from shared.redis.signatures import Signatures

GATEWAYS = Channel("gateways")  # not a customer's or a topic's, whose names have a colon
MAX_CONNECTIONS = 100  # of one answer
MAX_ANSWER_BYTES = 256 * 1024
_MAX_GATEWAYS = 1_000
_KEEP_SECONDS = 10


class Question(msgspec.Struct, frozen=True):
    """About one channel; None: about all connections."""

    id: str
    channel: str | None = None


class ConnectionReport(msgspec.Struct, frozen=True):
    """A connection that is open."""

    customer: str
    transport: str
    since: str
    topics: list[str]
    live: bool  # in the channel asked for, or in all of its own; if not, it is being caught up
    waiting_bytes: int  # for its client to read
    spoke_at: str | None  # when its page last sent a message; pongs don't count
    token_expires_at: str
    id: str = ""  # of the connection, as in its gateway's log


class EndingReport(msgspec.Struct, frozen=True):
    """A connection that was open."""

    transport: str
    since: str
    ended_at: str
    code: str
    reason: str
    requests: int = 0  # of a client that polls: each was a connection; 0 for every other
    id: str = ""  # of the connection, as in its gateway's log; empty if it was refused


class GatewayReport(msgspec.Struct, frozen=True):
    """What one gateway knows."""

    gateway: str
    started_at: str
    redis: bool  # whether it hears Redis; if not, it pulls events from the sender
    not_ready: list[str]  # why; empty where it is ready
    connections: dict[str, int]  # how many, by transport
    channels: int  # that it is subscribed to
    listening: list[ConnectionReport] = []  # `MAX_CONNECTIONS` at most
    listening_count: int = 0
    place: str | None = None  # of the channel: every live connection has been handed events up to here
    expected: str | None = None  # up to where the gateway knows that there are events
    ended: list[EndingReport] = []  # of the customer, the newest last
    refused: list[EndingReport] = []  # of unknown customers, the newest last
    remembers_since: str = ""  # earlier endings and refusals are forgotten
    now: str = ""  # by its clock; empty from gateways of earlier versions
    similar: list[str] = []  # connected customers whose names differ only in case


def encode_question(question: Question) -> bytes:
    return msgspec.json.encode(question)


def parse_question(message: bytes) -> Question | None:
    """None if it is not a question."""
    try:
        return _decode_question(unsigned(message))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Inquirer:
    """Asks all gateways."""

    def __init__(self, pipelines: AnyPipelines, names: Names, signatures: Signatures = NO_SIGNATURES) -> None:
        self._pipelines = pipelines
        self._names = names
        self._signatures = signatures

    async def ask(
        self,
        channel: Channel | None = None,
        *,
        wait_seconds: float = 1.0,
        quiet_seconds: float = 0.3,
        look_seconds: float = 0.05,
    ) -> list[GatewayReport]:
        """What the gateways report, in order of their names.

        Returns once there are answers and none has come for `quiet_seconds`, or after `wait_seconds`. Raises
        redis-py's errors and `TimeoutError`.
        """
        question = Question(secrets.token_hex(8), channel)
        key = self._names.answers(question.id)
        live = self._names.live(GATEWAYS)
        asked = self._signatures.seal(Kind.LIVE, live.encode(), encode_question(question))
        await self._pipelines.execute([(self._pipelines.publish_command, live, asked)])
        loop = asyncio.get_running_loop()
        ends_at, answers, newest_at = loop.time() + wait_seconds, 0, loop.time()
        replies: list[bytes] = []
        while (now := loop.time()) < ends_at and not (answers and now - newest_at >= quiet_seconds):
            await asyncio.sleep(look_seconds)
            [replies] = await self._pipelines.execute([("LRANGE", key, 0, _MAX_GATEWAYS - 1)])
            if len(replies) > answers:
                answers, newest_at = len(replies), loop.time()
        opened = (self._signatures.open(Kind.ANSWER, key.encode(), reply) for reply in replies)
        reports = (parse_answer(answer) for answer in opened if answer is not None)
        return sorted(filter(None, reports), key=lambda report: report.gateway)


class Answerer:
    """Sends one gateway's answers."""

    def __init__(self, pipelines: AnyPipelines, names: Names, signatures: Signatures = NO_SIGNATURES) -> None:
        self._pipelines = pipelines
        self._names = names
        self._signatures = signatures

    async def answer(self, question: Question, report: GatewayReport) -> None:
        """Raises redis-py's errors and `TimeoutError`."""
        key = self._names.answers(question.id)
        text = msgspec.json.encode(report)
        if len(text) > MAX_ANSWER_BYTES:
            text = msgspec.json.encode(msgspec.structs.replace(report, listening=[], ended=[], refused=[]))
        sealed = self._signatures.seal(Kind.ANSWER, key.encode(), text)
        await self._pipelines.execute([("RPUSH", key, sealed), ("EXPIRE", key, _KEEP_SECONDS)])


def parse_answer(answer: bytes) -> GatewayReport | None:
    """None if it is not the answer of a gateway of ours."""
    try:
        report = _decode_report(answer)
        for cursor in filter(None, (report.place, report.expected)):
            parse_cursor(cursor)
        if report.now and not is_time(report.now):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidCursor):
        return None
    return report


_decode_question = msgspec.json.Decoder(Question).decode
_decode_report = msgspec.json.Decoder(GatewayReport).decode
