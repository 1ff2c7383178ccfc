"""What a webhook carries: a CloudEvent that names the alert and holds nothing of its content.

The shop has the order; a message that is logged or kept on its way reveals no more than ids.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from shared.events import SOURCE

if TYPE_CHECKING:
    from shared.cursors import Cursor

MEDIA_TYPE = "application/cloudevents+json"


class Kind(StrEnum):
    """What a message reports."""

    SHOWN = "alert.shown"  # a device has reported the alert as seen
    READ = "alert.read"
    NOT_SHOWN_IN = "alert.not_shown_in"  # no device had reported it some seconds after it was recorded


class AlertEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The event that the alert is of; `source` and `id` identify it."""

    source: str
    id: str
    type: str
    subject: str | None = None  # of an order's completion: the order's id


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    customer_id: str
    cursor: Annotated[str, msgspec.Meta(description="The alert's place in its customer's channel.")]
    recorded_at: Annotated[str, msgspec.Meta(description="When the sender accepted the alert.")]
    event: AlertEvent
    seconds: Annotated[
        float | None, msgspec.Meta(description="With `alert.not_shown_in`: how long the alert had waited.")
    ] = None


class WebhookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvent 1.0. `id` is the header `webhook-id`, the same at each repetition."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str = SOURCE
    type: Literal["alert.shown", "alert.read", "alert.not_shown_in"]
    subject: str  # the alert's cursor
    time: Annotated[str, msgspec.Meta(description="When it was reported, or found not to have been.")]
    datacontenttype: Literal["application/json"] = "application/json"
    data: Reported


def message_id(identity: str, kind: Kind) -> str:
    """Without a dot, which separates the parts of what is signed. `identity` is of the event."""
    return f"{identity}-{kind.name.lower()}"


def encode(
    kind: Kind,
    identity: str,
    cursor: Cursor,
    customer_id: str,
    *,
    time: str,
    recorded_at: str,
    event: AlertEvent,
    seconds: float | None,
) -> bytes:
    return msgspec.json.encode(
        WebhookMessage(
            id=message_id(identity, kind),
            type=kind.value,
            subject=str(cursor),
            time=time,
            data=Reported(customer_id, str(cursor), recorded_at, event, seconds),
        )
    )
