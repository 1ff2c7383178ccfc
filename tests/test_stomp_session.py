"""receiver/transports/stomp/session.py: which frames may come when, and the answers to them."""

from __future__ import annotations

import itertools

import pytest

from receiver.transports.stomp.frames import CLIENT_COMMANDS, Frame, Version
from receiver.transports.stomp.session import (
    MAX_SUBSCRIPTIONS,
    Acknowledge,
    Acknowledged,
    Disconnected,
    FrameRefused,
    Login,
    Sent,
    Session,
    Subscribed,
    Subscription,
    Unsubscribed,
    connected,
    error,
    message,
    receipt,
)
from shared.cursors import Place

CONNECT = Frame("CONNECT", {"accept-version": "1.2,1.1,1.0", "heart-beat": "10000,20000"})
ORDERS = Frame("SUBSCRIBE", {"id": "sub-0", "destination": "/user/queue/orders", "ack": "client"})


def open_session(versions: str = "1.2,1.1,1.0") -> Session:
    session = Session()
    session.take(Frame("CONNECT", {"accept-version": versions}))
    return session


def subscribe(session: Session, **headers: str) -> Subscription:
    taken = session.take(Frame("SUBSCRIBE", {"id": "a", "destination": "/topic/menu", **headers}))
    assert isinstance(taken, Subscribed)
    return taken.subscription


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_greeting_gives_token_and_heartbeats(command: str) -> None:
    headers = {**CONNECT.headers, "Authorization": "Bearer ey.a.b"}
    assert Session().take(Frame(command, headers)) == Login("ey.a.b", 20_000)


@pytest.mark.parametrize("beats", ["0,0", "1,999999999999999999", " 10000 , 0 "])
def test_any_number_of_milliseconds_is_a_heartbeat(beats: str) -> None:
    wanted = int(beats.split(",")[1])
    assert Session().take(Frame("CONNECT", {"heart-beat": beats})) == Login("", wanted)


@pytest.mark.parametrize("beats", ["", "1", "-1,0", "1,2,3", "1.5,0", "x,y", "1,"])
def test_what_is_no_heartbeat_is_refused(beats: str) -> None:
    with pytest.raises(FrameRefused, match="heart-beat"):
        Session().take(Frame("CONNECT", {"heart-beat": beats}))


def test_spaces_around_a_passcode_do_not_count() -> None:
    """The specification of 1.0 writes one."""
    assert Session().take(Frame("CONNECT", {"passcode": " ey.a.b"})) == Login("ey.a.b", 0)


def test_token_may_be_the_passcode() -> None:
    assert Session().take(Frame("CONNECT", {"login": "alice", "passcode": "ey.a.b"})) == Login("ey.a.b", 0)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [({}, "1.0"), ({"accept-version": "1.1,1.0"}, "1.1"), ({"accept-version": " 1.2 , 9"}, "1.2")],
)
def test_newest_common_version_is_chosen(offered: dict[str, str], chosen: str) -> None:
    session = Session()
    session.take(Frame("CONNECT", offered))
    assert session.version.value == chosen


def test_no_common_version_is_refused_with_those_we_speak() -> None:
    with pytest.raises(FrameRefused) as refused:
        Session().take(Frame("CONNECT", {"accept-version": "2.0"}))
    assert error(refused.value).headers["version"] == "1.0,1.1,1.2"


@pytest.mark.parametrize("command", sorted(CLIENT_COMMANDS - {"CONNECT", "STOMP"}))
def test_nothing_comes_before_connect(command: str) -> None:
    with pytest.raises(FrameRefused, match="CONNECT first"):
        Session().take(Frame(command, {"id": "a", "destination": "/topic/a"}))


@pytest.mark.parametrize("command", ["CONNECT", "STOMP", "BEGIN", "COMMIT", "ABORT"])
def test_second_greeting_and_transactions_are_refused(command: str) -> None:
    with pytest.raises(FrameRefused):
        open_session().take(Frame(command, {"transaction": "t"}))


def test_subscription_has_its_mode_and_place() -> None:
    found = subscribe(open_session(), ack="client-individual", after="1.42")
    assert (found.acknowledge, found.after) == (Acknowledge.EACH, Place(1, 42))


@pytest.mark.parametrize(
    "headers",
    [
        {"destination": "/topic/menu"},
        {"id": "a"},
        {"id": "a", "destination": "/topic/menu", "ack": "sometimes"},
        {"id": "a", "destination": "/topic/menu", "after": "1"},
    ],
)
def test_subscription_that_lacks_something_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(FrameRefused):
        open_session().take(Frame("SUBSCRIBE", headers))


def test_id_names_one_subscription_at_a_time() -> None:
    session = open_session()
    subscribe(session)
    with pytest.raises(FrameRefused, match="already"):
        subscribe(session)


def test_unsubscribed_id_can_be_used_again() -> None:
    session = open_session()
    first = subscribe(session)
    assert session.take(Frame("UNSUBSCRIBE", {"id": "a"})) == Unsubscribed(first)
    assert subscribe(session).number == first.number + 1


def test_1_0_subscribes_by_destination() -> None:
    session = open_session("1.0")
    subscribed = session.take(Frame("SUBSCRIBE", {"destination": "/topic/menu"}))
    assert isinstance(subscribed, Subscribed)
    assert session.take(Frame("UNSUBSCRIBE", {"destination": "/topic/menu"})) == Unsubscribed(
        subscribed.subscription
    )


def test_1_0_unsubscribes_by_destination_even_what_has_an_id() -> None:
    session = open_session("1.0")
    subscription = subscribe(session)
    assert session.take(Frame("UNSUBSCRIBE", {"destination": "/topic/menu"})) == Unsubscribed(subscription)
    assert not session.subscriptions


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_what_is_not_subscribed_may_be_unsubscribed(version: str) -> None:
    """A page that unsubscribes twice would be cut off; Spring's broker accepts it."""
    session = open_session(version)
    assert session.take(Frame("UNSUBSCRIBE", {"id": "gone", "receipt": "r"})) is None
    with pytest.raises(FrameRefused, match="is required"):
        session.take(Frame("UNSUBSCRIBE", {"receipt": "r"}))


def test_subscriptions_are_bounded() -> None:
    session = open_session()
    for n in range(MAX_SUBSCRIPTIONS):
        subscribe(session, id=str(n))
    with pytest.raises(FrameRefused, match="at most"):
        subscribe(session, id="one more")


@pytest.mark.parametrize(("version", "header"), [("1.2", "id"), ("1.1", "message-id"), ("1.0", "message-id")])
def test_ack_names_the_event_that_a_message_carried(version: str, header: str) -> None:
    session = open_session(version)
    subscribe(session, id="other")
    subscription = subscribe(session, id="a:b\\c", ack="client")
    subscription.sent = Place(2, 7)
    sent = message(subscription, Place(2, 7), b"{}")
    name = sent.headers["ack" if header == "id" else "message-id"]
    ack = session.take(Frame("ACK", {header: name, "subscription": "a:b\\c"}))
    assert ack == Acknowledged(subscription, Place(2, 7))
    assert not set(name) & set(":\\\r\n")


def test_nack_asks_for_nothing_but_must_name_a_message() -> None:
    session = open_session()
    subscription = subscribe(session, ack="client")
    subscription.sent = Place(1, 1)
    name = message(subscription, Place(1, 1), b"{}").headers["ack"]
    assert session.take(Frame("NACK", {"id": name})) is None
    with pytest.raises(FrameRefused):
        session.take(Frame("NACK", {"id": "9-1.1"}))


@pytest.mark.parametrize(
    "text", ["", "1", "1-1", "x-1.1", "2-1.1", "1-0.1", "1-1.1 ", "1-1.8", "1-2.1", "1-1.7\0"]
)
def test_ack_of_what_was_never_sent_is_refused(text: str) -> None:
    session = open_session()
    subscribe(session, ack="client").sent = Place(1, 7)
    with pytest.raises(FrameRefused):
        session.take(Frame("ACK", {"id": text}))


@pytest.mark.parametrize("command", ["ACK", "NACK"])
def test_ack_with_another_subscriptions_name_is_refused(command: str) -> None:
    session = open_session("1.1")
    subscribe(session, id="other", ack="client")
    subscribe(session, id="mine", ack="client").sent = Place(1, 7)
    with pytest.raises(FrameRefused, match="does not belong to this subscription"):
        session.take(Frame(command, {"message-id": "2-1.7", "subscription": "other"}))


@pytest.mark.parametrize("command", ["SEND", "ACK", "NACK"])
def test_frame_of_a_transaction_is_refused_whatever_else_it_has(command: str) -> None:
    session = open_session()
    subscribe(session, ack="client").sent = Place(1, 7)
    with pytest.raises(FrameRefused, match="transactions"):
        session.take(Frame(command, {"id": "1-1.7", "destination": "/app/hello", "transaction": "t"}))


def test_ack_in_a_subscription_that_acknowledges_by_itself_is_refused() -> None:
    session = open_session()
    subscription = subscribe(session)
    with pytest.raises(FrameRefused, match="takes no ACK"):
        session.take(Frame("ACK", {"id": f"{subscription.number}-1.1"}))


def test_send_is_given_as_it_came() -> None:
    frame = Frame("SEND", {"destination": "/app/hello", "content-type": "text/plain"}, b"hi")
    assert open_session().take(frame) == Sent("/app/hello", "text/plain", b"hi")


def test_nothing_is_taken_after_disconnect_or_refusal() -> None:
    session = open_session()
    assert session.take(Frame("DISCONNECT")) == Disconnected()
    assert session.take(ORDERS) is None
    session = open_session()
    with pytest.raises(FrameRefused):
        session.take(CONNECT)
    assert session.take(ORDERS) is None


def test_receipt_names_what_was_asked_for_and_error_does_too() -> None:
    asked = Frame("DISCONNECT", {"receipt": "close-1"})
    assert receipt(asked) == Frame("RECEIPT", {"receipt-id": "close-1"})
    assert receipt(Frame("DISCONNECT")) is None
    begin = Frame("BEGIN", {"receipt": "r-1"})
    with pytest.raises(FrameRefused) as refused:
        open_session().take(begin)
    assert error(refused.value, of=begin).headers["receipt-id"] == "r-1"


def test_connected_has_a_heartbeat_and_nothing_that_needs_an_escape() -> None:
    for version, customer in itertools.product(Version, ["alice", "auth0|5f7c", "urn:user:1\n"]):
        headers = connected(version, session="1", customer=customer, beats_ms=(20_000, 0)).headers
        assert headers["heart-beat"] == "20000,0"
        assert not set("".join(headers.values())) & set(":\\\r\n")


def test_message_of_an_auto_subscription_asks_for_no_ack() -> None:
    sent = message(subscribe(open_session()), Place(1, 1), b"{}")
    assert "ack" not in sent.headers
    assert sent.headers["destination"] == "/topic/menu"
