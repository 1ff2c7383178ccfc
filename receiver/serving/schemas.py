"""JSON Schemas of events, for both documents of a gateway."""

from __future__ import annotations

from typing import Any

from shared.channels import ENCODED_NAME
from shared.cursors import MAX_NUMBER

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MAX_NUMBER}
CHANNEL: dict[str, Any] = {"type": "string", "pattern": f"^(customer|topic):{ENCODED_NAME}$"}
CURSORS: dict[str, Any] = {"type": "string", "examples": ["customer:alice=1.42,topic:menu=1.7"]}

# One event or notice, as CloudEvents 1.0 in JSON.
CLOUD_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _TEXT,
        "source": _TEXT,
        "type": _TEXT,
        "time": {"type": "string", "format": "date-time"},
        "data": {},
    },
}
# What an event has in addition: its place.
EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["channel", "epoch", "seq"],
    "properties": {"channel": CHANNEL, "epoch": _NUMBER, "seq": _NUMBER},
}
