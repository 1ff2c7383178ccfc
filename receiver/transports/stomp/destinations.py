"""What the destinations of STOMP's subscriptions mean; no I/O.

| destination            | gives                                                                 |
|------------------------|-----------------------------------------------------------------------|
| `/user/queue/orders`   | the customer's own channel                                            |
| `/topic/<name>`        | a topic that the token names                                          |
| `/user/queue/notices`  | the gateway's own messages: a hello for each subscription, seen, bye  |
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from receiver.transports.stomp.session import FrameRefused
from shared.channels import Channel, InvalidChannel, customer_channel, parse_channel, topic_channel
from shared.cursors import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.access.identity import Identity

ORDERS = "/user/queue/orders"
NOTICES = "/user/queue/notices"
TOPICS = "/topic/"


def cursors_of(
    after: Place | dict[Channel, Place], channel: Channel, identity: Identity
) -> dict[Channel, Place]:
    """A client may give each subscription all its cursors; those of other channels are ignored."""
    if isinstance(after, Place):
        return {channel: after}
    others = set(identity.channels) - {channel}
    return {of: place for of, place in after.items() if of not in others}


def channel_of(destination: str, identity: Identity, *, open: bool) -> Channel | None:
    """The channel of a subscription; None for the gateway's notices.

    Raises `FrameRefused` for a destination that does not exist or is not allowed. `open`: anybody may read
    every topic.
    """
    if destination == NOTICES:
        return None
    if destination == ORDERS:
        if not identity.customer:
            raise FrameRefused(f"a token is required for {ORDERS}")
        return customer_channel(identity.customer)
    if not destination.startswith(TOPICS):
        raise FrameRefused(f"no such destination: {destination[:80]}")
    for channel in _spellings(destination.removeprefix(TOPICS)):
        if open or channel in identity.channels:
            return channel
    raise FrameRefused(f"the token does not name {destination[:80]!r}")


def _spellings(name: str) -> Iterator[Channel]:
    """The topics that a destination's name may mean: encoded as in a channel, or as it is."""
    with contextlib.suppress(InvalidChannel):
        yield parse_channel(f"topic:{name}")
    with contextlib.suppress(InvalidChannel):
        yield topic_channel(name)
