"""What became of an alert: one word, and the sentences behind it."""

from __future__ import annotations

from enum import Enum

import msgspec


class Verdict(Enum):
    """What became of an alert."""

    NOT_PLACED = "not-placed"  # there is no such order
    NOT_COMPLETED = "not-completed"
    NOT_SENT = "not-sent"  # there is no such event, or none at all for this customer
    ERASED = "erased"
    DELETED = "deleted"  # older than the history is kept
    GIVEN_UP = "given-up"  # it could not be published
    WAITING = "waiting"  # recorded and not published yet
    RETRACTED = "retracted"
    REPLACED = "replaced"
    READ = "read"
    SHOWN = "shown"
    EXPIRED = "expired"
    DELIVERED = "delivered"  # handed to a device that is connected; not reported as shown
    NO_ANSWER = "no-answer"  # no gateway answers
    LATE = "late"  # the gateway of a connected device has not had it yet
    NOBODY = "nobody-connected"


class Explained(msgspec.Struct, frozen=True):
    verdict: Verdict
    findings: list[str]
