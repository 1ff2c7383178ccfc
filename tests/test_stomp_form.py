from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.transports.stomp import session as stomp
from receiver.transports.stomp.envelope import PLAIN, SOCKJS, Envelope
from receiver.transports.stomp.form import form_of, shared_bytes
from receiver.transports.stomp.frames import Frame, Version
from receiver.transports.websocket.frames import text_frame
from shared.cursors import Place

TEXT = '{"message":"50 % off: ½ \\n"}'.encode()

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
acknowledgements = st.sampled_from(stomp.Acknowledge)


def subscription(
    name: str = "sub-0", acknowledge: stomp.Acknowledge = stomp.Acknowledge.AUTO, number: int = 1
) -> stomp.Subscription:
    return stomp.Subscription(number, name, "/user/queue/orders", acknowledge, {})


@given(names, acknowledgements, st.sampled_from(Version), st.sampled_from([PLAIN, SOCKJS]))
def test_form_writes_what_the_frame_would_be(
    name: str, acknowledge: stomp.Acknowledge, version: Version, envelope: Envelope
) -> None:
    of, place = subscription(name, acknowledge, 7), Place(3, 42)
    written = form_of(of, version, envelope, text_frame).bytes_of(place, TEXT)
    expected = _in_order(stomp.message(of, place, TEXT), version)
    assert written == text_frame(envelope.wrap(expected))


def _in_order(message: Frame, version: Version) -> bytes:
    """The frame with the headers that all MESSAGEs share first."""
    first = ("subscription", "destination", "content-type")
    headers = {name: message.headers[name] for name in first}
    own = {name: value for name, value in message.headers.items() if name not in first}
    return Frame("MESSAGE", headers | own, message.body).encode(version)


def test_alike_subscriptions_share_a_form_and_the_bytes_of_a_topics_event() -> None:
    forms = [form_of(subscription(), Version.V12, PLAIN, text_frame) for _ in range(2)]
    assert forms[0] is forms[1]
    place = Place(1, 1)
    assert shared_bytes(forms[0], place, TEXT) is shared_bytes(forms[1], place, TEXT)


@pytest.mark.parametrize(
    "other",
    [
        subscription("sub-1"),
        subscription(number=2),
        subscription(acknowledge=stomp.Acknowledge.CLIENT),
        stomp.Subscription(1, "sub-0", "/topic/menu", stomp.Acknowledge.AUTO, {}),
    ],
)
def test_subscriptions_that_differ_share_nothing(other: stomp.Subscription) -> None:
    form = form_of(subscription(), Version.V12, PLAIN, text_frame)
    assert form_of(other, Version.V12, PLAIN, text_frame) is not form
