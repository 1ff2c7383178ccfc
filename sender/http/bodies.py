"""Bodies of requests and answers, as types: parsing, answering and `/openapi.json` all use them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from sender import revocations
from sender.alerts import MAX_IDS, State
from sender.history import DEFAULT_LIMIT, MAX_LIMIT
from sender.lives import Life
from sender.orders import Order
from sender.retractions import MAX_REASON
from sender.tombstones import Fault
from shared.channels import MAX_NAME, NAME
from shared.cursors import MAX_NUMBER
from shared.extents import MAX_RANGES
from shared.problems import Problem
from shared.redis.inquiries import GatewayReport
from shared.times import is_time

MAX_BATCH = 1_000  # events
MAX_CHANNELS = 500  # in one request

T = TypeVar("T")

# The lookahead refuses a line end, because `$` alone would allow one at the end.
_NAME = rf"^{NAME}(?!\n)$"
Name = Annotated[str, msgspec.Meta(pattern=_NAME, examples=["auth0|5f7c"])]
# Clients remove `.` and `..` from a path before they send it, so such an order could not be completed.
_ORDER_ID = rf"^(?!\.{{1,2}}$){NAME}(?!\n)$"
OrderId = Annotated[str, msgspec.Meta(pattern=_ORDER_ID, examples=["1042"])]
CursorText = Annotated[str, msgspec.Meta(examples=["customer:alice=1.42"])]
SeenText = Annotated[
    str,
    msgspec.Meta(
        description=f"A cursor, up to which all was seen, and at most {MAX_RANGES} ranges of seqs beyond it.",
        examples=["customer:alice=1.40+42+45-47"],
    ),
]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
Position = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
Data = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="The event's content; `message`, a text, is shown in the pop-up.",
        extra_json_schema={"properties": {"message": {"type": "string"}}},
    ),
]
Event = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Event"})]


class PlaceOrder(msgspec.Struct, forbid_unknown_fields=True):
    order_id: OrderId
    customer_id: Name
    data: Data = {}


Moment = Annotated[
    str,
    msgspec.Meta(max_length=64, extra_json_schema={"format": "date-time"}, examples=["2026-11-23T18:00:00Z"]),
]


class CompleteOrder(msgspec.Struct, forbid_unknown_fields=True):
    data: Data = {}
    expirytime: Moment | None = None  # after it the alert has expired
    popuntil: Moment | None = None  # after it the alert is only listed

    def attributes(self) -> dict[str, str]:
        """Raises `Problem`."""
        given = {"expirytime": self.expirytime, "popuntil": self.popuntil}
        found = {name: moment for name, moment in given.items() if moment is not None}
        for name, moment in found.items():
            if not is_time(moment):
                raise Problem(400, "invalid-body", f"{name} must be an RFC 3339 timestamp with its offset")
        return found


class HistoryRequest(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[
        list[str],
        msgspec.Meta(
            max_length=MAX_CHANNELS,
            description="Cursors; or channels, to read from the customer's seen cursor on, a topic from now.",
            examples=[["customer:alice=1.42", "customer:bob", "topic:menu"]],
        ),
    ]
    limit: Limit = DEFAULT_LIMIT


class SeenRequest(msgspec.Struct, forbid_unknown_fields=True):
    cursors: Annotated[list[SeenText], msgspec.Meta(max_length=MAX_CHANNELS)]


Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]


class CancelOrder(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason = ""


class RetractionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Names an order, or an event by its source and id."""

    order_id: Name | None = None
    source: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    reason: Reason = ""


class ResendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Names an order, or an event by its source and id."""

    order_id: Name | None = None
    source: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    id: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class TrialRequest(msgspec.Struct, forbid_unknown_fields=True):
    customer_id: Name


class ReadRequest(msgspec.Struct, forbid_unknown_fields=True):
    cursors: Annotated[
        list[CursorText],
        msgspec.Meta(max_length=MAX_CHANNELS, description="Everything up to each cursor was read."),
    ] = []
    ids: Annotated[
        list[str], msgspec.Meta(max_length=MAX_IDS, description="Ids of events; only these were read.")
    ] = []
    customer_id: Annotated[
        Name | None, msgspec.Meta(description="The customer whose events `ids` names; required with them.")
    ] = None


class UnreadRequest(msgspec.Struct, forbid_unknown_fields=True):
    channels: Annotated[list[str], msgspec.Meta(max_length=MAX_CHANNELS, examples=[["customer:alice"]])]


class UnreadCount(msgspec.Struct):
    channel: str
    unread: int
    as_of: CursorText  # the place where the count is true


class UnreadBody(msgspec.Struct):
    counts: list[UnreadCount]


class RetractionBody(msgspec.Struct):
    alert: CursorText  # what was retracted
    event: Event


class OrderChanges(msgspec.Struct):
    """What has changed on the order board."""

    orders: list[msgspec.Raw]  # oldest first; each as it is now
    gone: list[str]  # ids that are no longer on it
    more: bool  # whether there are more open orders than it has


class ResentBody(msgspec.Struct):
    cursor: CursorText
    event: Event  # it replaces the one that was named


class TrialBody(msgspec.Struct):
    """Where the event is; `GET /trace` by its source and id answers whether it came."""

    cursor: CursorText
    source: str
    id: str


class CancelledOrder(msgspec.Struct):
    order: Order
    event: Event | None  # the retraction of its alert, if it had one


class AlertBody(msgspec.Struct):
    cursor: CursorText
    state: State
    event: Event


class AlertsBody(msgspec.Struct):
    alerts: list[AlertBody]
    unread: int
    as_of: CursorText
    before: CursorText | None  # for the next page; null after the oldest


class CompletedOrder(msgspec.Struct):
    order: Order
    event: Event | None


class Orders(msgspec.Struct):
    orders: list[Order]
    as_of: CursorText | None  # of the customer, if one was named
    before: Name | None  # for the next page; null after the oldest


class EventResult(msgspec.Struct, omit_defaults=True):
    status: Literal["accepted", "duplicate", "refused"]
    source: str | None
    id: str | None
    cursor: CursorText | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class EventResults(msgspec.Struct):
    results: list[EventResult]


class ChannelEvents(msgspec.Struct):
    events: list[Event]
    cursor: CursorText  # of the last event given
    as_of: CursorText


class ChannelHistoryBody(msgspec.Struct):
    channel: str
    after: CursorText
    as_of: CursorText
    seen: SeenText | None
    reset: Literal["pruned", "epoch", "future"] | None
    events: list[Event]
    erased: bool  # its customer was erased, and nothing has begun since


class HistoryBody(msgspec.Struct):
    channels: list[ChannelHistoryBody]
    newest: Annotated[
        str,
        msgspec.Meta(
            description="Epoch and position of the newest event that should be in Redis by now.",
            examples=["1.1234"],
        ),
    ]
    installation: Annotated[
        str,
        msgspec.Meta(
            description="The id of the sender's database: gateways compare it with the one in Redis.",
            examples=["9f86d081884c7d65"],
        ),
    ]
    sender: Annotated[str, msgspec.Meta(description="This process.")] = ""
    settings: Annotated[
        str,
        msgspec.Meta(
            description="Hashes of settings that all senders must share: gateways compare them.",
            examples=["history_days=3f2a91"],
        ),
    ] = ""


class DeadLetterBody(msgspec.Struct):
    cursor: CursorText  # where its tombstone is
    source: str
    id: str
    reason: Fault
    detail: str  # Redis' error, if it was Redis that refused
    recorded_at: str
    given_up_at: str
    size: int  # bytes of its text
    beginning: str  # of its text; the database has all of it


class DeadLettersBody(msgspec.Struct):
    dead_letters: list[DeadLetterBody]
    before: int | None  # for the next page; null after the oldest


class ErasedCustomer(msgspec.Struct):
    """How many of each named the customer, and whether Redis has deleted its keys already or will soon."""

    orders: int
    events: int
    dead_letters: int
    answers: int  # kept for repeated requests
    redis: Literal["erased", "pending"]


class SeenBody(msgspec.Struct):
    seen: list[SeenText]


class TracedAlert(msgspec.Struct):
    """One event, what became of it, and why, in sentences."""

    event: Life | None  # null where there is none
    verdict: str
    findings: list[str]


class TraceBody(msgspec.Struct):
    asked: str
    channel: str | None
    alerts: list[TracedAlert]  # the newest first
    gateways: list[GatewayReport] | None  # null where they could not be asked


class ConnectionsBody(msgspec.Struct, omit_defaults=True):
    connections: int
    gateways: list[GatewayReport] | None  # null where they could not be asked
    silent: list[
        str
    ] = []  # gateways that have asked this sender lately and do not answer; they may not hear Redis


_MAX_TIME = 253_402_300_800  # the year 10000; also rejects milliseconds given as seconds
Seconds = Annotated[
    float, msgspec.Meta(ge=0, lt=_MAX_TIME, description="Seconds since 1970, as a token's `iat`.")
]


_JTI = r"^[^\x00]+$"


class RevocationRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Either a token's id, or a customer."""

    # Without NUL, which PostgreSQL cannot store in a text.
    jti: Annotated[str, msgspec.Meta(max_length=revocations.MAX_JTI, pattern=_JTI)] | None = None
    customer_id: str | None = None
    # Revokes the customer's tokens issued before: seconds since 1970, or RFC 3339. If absent: all until now.
    issued_before: Seconds | str | None = None


class RevocationBody(msgspec.Struct):
    position: int
    jti: str | None
    customer_id: str | None
    issued_before: float | None
    kept_until: float  # seconds since 1970


class RevocationsBody(msgspec.Struct):
    revocations: list[RevocationBody]
    newest: int  # position of the newest


# What a value must be, where it does not match its pattern.
IN_WORDS = {
    repr(_NAME): f"a name: 1 to {MAX_NAME} characters without control characters",
    repr(_ORDER_ID): f"a name: 1 to {MAX_NAME} characters without control characters, other than . and ..",
    repr(_JTI): "a token's id: 1 or more characters without NUL",
}
