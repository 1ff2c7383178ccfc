"""What a STOMP client asks for, frame by frame, without I/O: a table of what may come when.

| state     | takes                                             | then                                  |
|-----------|---------------------------------------------------|---------------------------------------|
| greeting  | CONNECT, STOMP                                    | connected, or an ERROR                |
| connected | SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, SEND           | connected                             |
|           | DISCONNECT                                        | over                                  |
| over      | nothing: what still comes is passed over          | over                                  |

Transactions (BEGIN, COMMIT, ABORT) are refused, because nothing that a client sends here could be undone.

Rules that real clients need (measured on @stomp/stompjs 5 to 7, stomp-websocket 2.3.3 and Spring's client):

* CONNECTED always has `heart-beat`, because stomp-websocket fails without it;
* header values of ours hold no character that needs an escape, because stomp-websocket never undoes one, and
  stompjs undoes them in the wrong order;
* a MESSAGE carries the destination that was subscribed to.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from receiver.transports.stomp.frames import Frame, InvalidFrame, Version
from shared import __version__
from shared.cursors import InvalidCursor, Place, parse_cursors
from shared.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.channels import Channel

MAX_SUBSCRIPTIONS = 100

_HEARTBEAT = re.compile(r"([0-9]{1,18}),([0-9]{1,18})")
_PLACE = re.compile(r"([1-9][0-9]{0,15})\.(0|[1-9][0-9]{0,15})")
_ID = re.compile(r"([1-9][0-9]{0,8})-([1-9][0-9]{0,15})\.(0|[1-9][0-9]{0,15})")


class Acknowledge(enum.Enum):
    """When an event counts as acknowledged."""

    AUTO = "auto"  # as soon as it is sent
    CLIENT = "client"  # with an ACK of that event, or of a later one
    EACH = "client-individual"  # with an ACK of its own


class FrameRefused(CallerError):
    """A frame that is not allowed: the client gets an ERROR with this message, and the connection ends."""

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


@dataclass(slots=True)
class Subscription:
    """One SUBSCRIBE. `number` counts from 1; `after` says where to resume: a place, or cursors, or
    nothing. `sent` is the last place that was handed over, if the client acknowledges.
    """

    number: int
    id: str
    destination: str
    acknowledge: Acknowledge
    after: Place | dict[Channel, Place]
    sent: Place | None = None


class Login(NamedTuple):
    """CONNECT. `token` is empty if the client gave none; times are in milliseconds, 0 for no heartbeat."""

    token: str
    wants_beats_ms: int


class Subscribed(NamedTuple):
    subscription: Subscription


class Unsubscribed(NamedTuple):
    subscription: Subscription


class Acknowledged(NamedTuple):
    """ACK: the event at `place`, and with `Acknowledge.CLIENT` all before it."""

    subscription: Subscription
    place: Place


class Sent(NamedTuple):
    destination: str
    content_type: str
    body: bytes


class Disconnected(NamedTuple):
    pass


Request = Login | Subscribed | Unsubscribed | Acknowledged | Sent | Disconnected


class _State(enum.Enum):
    GREETING = enum.auto()
    CONNECTED = enum.auto()
    OVER = enum.auto()


class Session:
    """The state of one STOMP connection: its version and its subscriptions."""

    def __init__(self) -> None:
        self.version = Version.V12
        self.subscriptions: dict[str, Subscription] = {}
        self._state = _State.GREETING
        self._count = 0

    def take(self, frame: Frame) -> Request | None:
        """What the frame asks for; None if there is nothing to do. Raises `FrameRefused`."""
        try:
            if self._state is _State.OVER:
                return None
            if self._state is _State.GREETING:
                return self._greet(frame)
            return self._take(frame)
        except FrameRefused:
            self._state = _State.OVER
            raise

    def _greet(self, frame: Frame) -> Login:
        if frame.command not in ("CONNECT", "STOMP"):
            raise FrameRefused(f"CONNECT first, not {frame.command!r}")
        offered = frame.headers.get("accept-version", "1.0").split(",")
        common = [version for version in Version if version.value in (text.strip() for text in offered)]
        if not common:
            supported = ",".join(version.value for version in Version)
            raise FrameRefused("no version in common", headers={"version": supported})
        beats = _HEARTBEAT.fullmatch(frame.headers.get("heart-beat", "0,0").replace(" ", ""))
        if beats is None:
            raise FrameRefused("not a heart-beat: expected two numbers of milliseconds, joined by a comma")
        self.version = common[-1]
        self._state = _State.CONNECTED
        return Login(_token(frame.headers), int(beats[2]))

    def _take(self, frame: Frame) -> Request | None:
        if "transaction" in frame.headers:
            raise FrameRefused("transactions are not supported")
        match frame.command:
            case "SUBSCRIBE":
                return Subscribed(self._subscribe(frame.headers))
            case "UNSUBSCRIBE":
                ended = self._unsubscribe(frame.headers)
                return Unsubscribed(ended) if ended is not None else None
            case "ACK":
                return self._acknowledge(frame.headers)
            case "NACK":
                self._acknowledge(frame.headers)  # it must name a handed-over event; it has no effect
                return None
            case "SEND":
                destination = _required(frame.headers, "destination")
                return Sent(destination, frame.headers.get("content-type", ""), frame.body)
            case "DISCONNECT":
                self._state = _State.OVER
                return Disconnected()
            case "CONNECT" | "STOMP":
                raise FrameRefused("already connected")
            case _:
                raise FrameRefused(f"no such command here: {frame.command}")

    def _subscribe(self, headers: Mapping[str, str]) -> Subscription:
        destination = _required(headers, "destination")
        if "selector" in headers:  # to ignore it would give the client what it did not ask for
            raise FrameRefused("selectors are not supported")
        # In 1.0 a client may subscribe without an id; the destination then serves as its id.
        name = headers.get("id") or (destination if self.version is Version.V10 else _required(headers, "id"))
        if name in self.subscriptions:
            raise FrameRefused(f"subscription {name[:40]!r} already exists")
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise FrameRefused(f"at most {MAX_SUBSCRIPTIONS} subscriptions")
        try:
            acknowledge = Acknowledge(headers.get("ack", "auto"))
        except ValueError:
            raise FrameRefused(f"not an ack mode: {headers['ack'][:40]!r}") from None
        after = _after(headers.get("after", ""))
        self._count += 1
        subscription = Subscription(self._count, name, destination, acknowledge, after)
        self.subscriptions[name] = subscription
        return subscription

    def _unsubscribe(self, headers: Mapping[str, str]) -> Subscription | None:
        """None if there is no such subscription: pages end one twice, and Spring's broker accepts that."""
        name = headers.get("id")
        if name is None and self.version is Version.V10:
            of = _required(headers, "destination")
            name = next((one.id for one in self.subscriptions.values() if one.destination == of), of)
        return self.subscriptions.pop(name or _required(headers, "id"), None)

    def _acknowledge(self, headers: Mapping[str, str]) -> Acknowledged:
        """1.2 names the `ack` of a MESSAGE as `id`; 1.1 and 1.0 name its `message-id`. Both have the same
        text.
        """
        text = headers.get("id") or headers.get("message-id") or ""
        match = _ID.fullmatch(text)
        subscription = self._numbered(int(match[1])) if match else None
        unknown = FrameRefused(f"no message with this id awaits an ACK: {text[:40]!r}")
        if match is None or subscription is None:
            raise unknown
        if headers.get("subscription", subscription.id) != subscription.id:
            raise FrameRefused(f"the message {text[:40]!r} does not belong to this subscription")
        if subscription.acknowledge is Acknowledge.AUTO:
            raise FrameRefused(f"subscription {subscription.id[:40]!r} takes no ACK: its ack mode is auto")
        place = Place(int(match[2]), int(match[3]))
        if subscription.sent is None or place > subscription.sent:
            raise unknown
        return Acknowledged(subscription, place)

    def _numbered(self, number: int) -> Subscription | None:
        return next((one for one in self.subscriptions.values() if one.number == number), None)


def connected(version: Version, *, session: str, customer: str, beats_ms: tuple[int, int]) -> Frame:
    """The answer to CONNECT. `beats_ms`: how often the gateway sends a line end, and expects one."""
    headers = {
        "version": version.value,
        "heart-beat": f"{beats_ms[0]},{beats_ms[1]}",
        "server": f"orderbell/{__version__}",
        "session": session,
    }
    if re.fullmatch(r"[\w.@-]+", customer):  # CONNECTED has no escapes, but a customer may have any name
        headers["user-name"] = customer
    return Frame("CONNECTED", headers)


def message(
    subscription: Subscription, place: Place, text: bytes, content_type: str = "application/json"
) -> Frame:
    identity = f"{subscription.number}-{place}"  # no character that needs an escape
    headers = {
        "subscription": subscription.id,
        "message-id": identity,
        "destination": subscription.destination,
        "content-type": content_type,
        "place": str(place),
    }
    if subscription.acknowledge is not Acknowledge.AUTO:
        headers["ack"] = identity
    return Frame("MESSAGE", headers, text)


def notice(subscription: Subscription, number: int, text: bytes) -> Frame:
    """The gateway's own message; it needs no ACK."""
    return Frame(
        "MESSAGE",
        {
            "subscription": subscription.id,
            "message-id": f"{subscription.number}-notice-{number}",
            "destination": subscription.destination,
            "content-type": "application/json",
        },
        text,
    )


def receipt(of: Frame) -> Frame | None:
    """The receipt, to be sent once the frame was carried out."""
    name = of.headers.get("receipt")
    return Frame("RECEIPT", {"receipt-id": name}) if name is not None else None


def error(fault: FrameRefused | InvalidFrame, *, of: Frame | None = None) -> Frame:
    """`of`: the frame at fault, if there is one; the ERROR then names its receipt."""
    headers = {"message": _plain(str(fault)), "content-type": "text/plain"}
    if isinstance(fault, FrameRefused):
        headers |= fault.headers
    if of is not None and "receipt" in of.headers:
        headers["receipt-id"] = of.headers["receipt"]
    return Frame("ERROR", headers, str(fault).encode())


def _token(headers: Mapping[str, str]) -> str:
    """`Authorization: Bearer …` as a browser page would set it, or the passcode."""
    names = {name.lower(): value for name, value in headers.items()}
    scheme, _, token = names.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else names.get("passcode", "").strip()


def _required(headers: Mapping[str, str], name: str) -> str:
    if not headers.get(name):
        raise FrameRefused(f"the header {name} is required")
    return headers[name]


def _after(text: str) -> Place | dict[Channel, Place]:
    if match := _PLACE.fullmatch(text):
        return Place(int(match[1]), int(match[2]))
    try:
        return parse_cursors(text)
    except InvalidCursor as error:
        raise FrameRefused(str(error)) from None


def _plain(text: str) -> str:
    """The text without characters that would need an escape."""
    return re.sub(r"[\r\n:\\]", " ", text)
