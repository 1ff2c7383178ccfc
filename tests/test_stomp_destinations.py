"""What the destinations of STOMP's subscriptions mean."""

from __future__ import annotations

import time

import pytest

from receiver.access.identity import Identity
from receiver.transports.stomp.destinations import NOTICES, ORDERS, channel_of, cursors_of
from receiver.transports.stomp.session import FrameRefused
from shared.channels import Channel, customer_channel, topic_channel
from shared.cursors import Place

ALICE = Identity("alice", ("menu", "soup of the day"), time.time() + 60)
STRANGER = Identity("", (), time.time() + 60)


def test_orders_are_the_customers_own_channel_and_notices_are_in_none() -> None:
    assert channel_of(ORDERS, ALICE, open=False) == customer_channel("alice")
    assert channel_of(NOTICES, ALICE, open=False) is None


@pytest.mark.parametrize("name", ["soup of the day", "soup%20of%20the%20day"])
def test_a_topic_may_be_named_as_it_is_or_as_in_its_channel(name: str) -> None:
    assert channel_of(f"/topic/{name}", ALICE, open=False) == Channel("topic:soup%20of%20the%20day")


@pytest.mark.parametrize(
    "destination", ["/topic/other", "/topic/", "/topic", "/queue/orders", "/user/bob/queue/orders", ""]
)
def test_what_the_token_does_not_name_and_what_there_is_not_is_refused(destination: str) -> None:
    with pytest.raises(FrameRefused):
        channel_of(destination, ALICE, open=False)


def test_where_topics_are_open_a_stranger_reads_them_and_has_no_orders() -> None:
    assert channel_of("/topic/other", STRANGER, open=True) == topic_channel("other")
    with pytest.raises(FrameRefused, match="a token is required"):
        channel_of(ORDERS, STRANGER, open=True)


def test_a_subscription_takes_its_channels_cursor_of_all_that_are_given() -> None:
    menu, alice = topic_channel("menu"), customer_channel("alice")
    given = {menu: Place(1, 3), alice: Place(1, 42)}
    assert cursors_of(given, menu, ALICE) == {menu: Place(1, 3)}
    assert cursors_of(Place(1, 7), menu, ALICE) == {menu: Place(1, 7)}


def test_a_cursor_of_a_channel_that_the_token_does_not_name_stays_to_be_refused() -> None:
    bob = customer_channel("bob")
    assert cursors_of({bob: Place(1, 1)}, topic_channel("menu"), ALICE) == {bob: Place(1, 1)}
