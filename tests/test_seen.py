"""receiver/feeds/seen.py: reports are merged on their way to the sender, also to an older one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from receiver.feeds.history import History, HistoryRefused, HistoryUnavailable
from receiver.feeds.seen import SeenReports
from receiver.sender_line import SenderLine
from shared.channels import customer_channel
from shared.extents import parse_seen
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shared.extents import Seen

pytestmark = pytest.mark.anyio

ALICE, BOB = customer_channel("alice"), customer_channel("bob")


class Sender(History):
    """A sender that knows no sets, or is away, as the test sets it."""

    def __init__(self) -> None:
        super().__init__(SenderLine("http://127.0.0.1:1", "key"))
        self.knows_sets = self.is_there = self.takes = True
        self.asked: list[list[str]] = []

    async def report_seen(self, seen: Sequence[Seen]) -> None:
        self.asked.append(sorted(map(str, seen)))
        if not self.is_there:
            raise HistoryUnavailable("away")
        if not self.takes or (not self.knows_sets and any(one.extent.beyond for one in seen)):
            raise HistoryRefused("400")


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
async def reports(sender: Sender) -> AsyncIterator[SeenReports]:
    reports = SeenReports(sender)
    running = asyncio.create_task(reports.run())
    yield reports
    running.cancel()


def report(reports: SeenReports, *texts: str) -> None:
    for text in texts:
        reports.report(*parse_seen(text))


async def test_reports_of_one_moment_travel_as_one_set(reports: SeenReports, sender: Sender) -> None:
    report(reports, f"{ALICE}=1.0+5", f"{ALICE}=1.2", f"{BOB}=1.1", f"{ALICE}=1.0+3")
    await await_until(lambda: sender.asked)
    assert sender.asked == [[f"{ALICE}=1.3+5", f"{BOB}=1.1"]]


async def test_sender_that_knows_no_sets_gets_the_cursors_and_nothing_waits_behind(
    reports: SeenReports, sender: Sender
) -> None:
    sender.knows_sets = False
    report(reports, f"{ALICE}=1.2+5", f"{BOB}=1.1")
    await await_until(lambda: len(sender.asked) == 2)
    report(reports, f"{BOB}=1.2")
    await await_until(lambda: len(sender.asked) == 3)
    assert sender.asked[1:] == [[f"{ALICE}=1.2", f"{BOB}=1.1"], [f"{BOB}=1.2"]]


async def test_report_that_is_refused_for_good_is_dropped(reports: SeenReports, sender: Sender) -> None:
    sender.takes = False
    report(reports, f"{ALICE}=1.2+5")
    await await_until(lambda: len(sender.asked) == 2)
    sender.takes = True
    report(reports, f"{BOB}=1.1")
    await await_until(lambda: len(sender.asked) == 3)
    assert sender.asked[-1] == [f"{BOB}=1.1"]


async def test_report_waits_for_a_sender_that_is_away_and_joins_what_comes_meanwhile(
    reports: SeenReports, sender: Sender
) -> None:
    sender.is_there = False
    report(reports, f"{ALICE}=1.0+5")
    await await_until(lambda: sender.asked)
    sender.is_there = True
    report(reports, f"{ALICE}=1.4")
    await await_until(lambda: sender.asked[-1] == [f"{ALICE}=1.5"])
