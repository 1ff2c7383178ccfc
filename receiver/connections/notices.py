"""What a gateway itself says to a browser, as CloudEvents that have no place in any channel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import uuid_utils

from shared.channels import is_private
from shared.cursors import Cursor, Place, format_cursors
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.channels import Channel

SOURCE = "/orderbell/receiver"


def hello(places: Mapping[Channel, Place], *, heartbeat_seconds: float, gateway: str) -> bytes:
    """Always the first: where this connection starts."""
    return _notice(
        "orderbell.hello",
        {
            "cursor": format_cursors(places),
            "channels": list(places),
            "heartbeat_seconds": heartbeat_seconds,
            "gateway": gateway,
        },
    )


def reset(channel: Channel, place: Place, reason: str) -> bytes:
    """A cursor can't be honoured: go on at `place` and fetch again what you show."""
    data = {"channel": channel, "reason": reason, "cursor": str(Cursor(channel, place))}
    if is_private(channel):
        data["refetch"] = f"/orders?customer_id={channel.removeprefix('customer:')}"
    return _notice("orderbell.reset", data)


def seen(channel: Channel, place: Place) -> bytes:
    """Another device has shown everything up to there."""
    return _notice("orderbell.seen", {"cursor": str(Cursor(channel, place))})


def bye(retry_after_ms: int) -> bytes:
    """This gateway is about to close the connection; come back after that time."""
    return _notice("orderbell.bye", {"retry_after_ms": retry_after_ms})


def _notice(type: str, data: dict[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": str(uuid_utils.uuid7()),
            "source": SOURCE,
            "type": type,
            "time": format_time(datetime.now(UTC)),
            "data": data,
        }
    )
