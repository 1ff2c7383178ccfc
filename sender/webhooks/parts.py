"""The parts of webhooks, as they belong together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sender.webhooks import courier, search
from sender.webhooks.courier import Courier
from sender.webhooks.deliveries import Reports
from sender.webhooks.message import Kind
from sender.webhooks.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sender.database.protocol import Database
    from sender.webhooks.courier import Target


@dataclass(frozen=True)
class Webhooks:
    reports: Reports
    running: tuple[Courier | Search, ...]  # each has a `run`


def webhooks_to(
    target: Target,
    database: Database,
    clock: Callable[[], datetime],
    *,
    sending: courier.Pace = courier.USUAL,
    searching: search.Pace = search.USUAL,
) -> Webhooks:
    sender = Courier(database, clock, target, sending)
    reports = Reports(target.kinds, sender.wake)
    if Kind.NOT_SHOWN_IN not in target.kinds:
        return Webhooks(reports, (sender,))
    looking = Search(
        database,
        clock,
        sender.wake,
        seconds=target.not_shown_seconds,
        # What is older would be given up as soon as it was found.
        oldest=timedelta(seconds=target.not_shown_seconds + sending.give_up),
        pace=searching,
    )
    return Webhooks(reports, (sender, looking))
