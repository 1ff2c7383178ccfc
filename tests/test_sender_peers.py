"""Senders of one database that run with different settings find each other there, without a gateway."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from sqlalchemy import select

from sender import peers
from sender.database.errors import DatabaseUnavailable
from sender.database.tables import senders
from sender.peers import Pace, Peers
from tests.senders import postgres_is_long
from tests.waiting import await_until

if TYPE_CHECKING:
    from sender.database.protocol import Database
    from tests.processes import Processes, ServiceProcess
    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

WEEK, DAY = "history_days=aaaaaa,live_keys=cccccc", "history_days=bbbbbb,live_keys=cccccc"


async def names(database: Database) -> set[str]:
    found = select(senders.c.name)
    return set(await database.read(lambda connection: connection.execute(found).scalars().all()))


async def test_each_of_two_senders_finds_that_the_other_has_different_settings(sender: RunningSender) -> None:
    one, other = Peers(sender.database, "one", WEEK), Peers(sender.database, "other", DAY)
    for peer in (one, other, one, other):
        await peer.look()
    assert one.agreement.differing() == other.agreement.differing() == ("history_days",)


@postgres_is_long
async def test_senders_with_the_same_settings_find_no_difference(sender: RunningSender) -> None:
    one, other = Peers(sender.database, "host", WEEK), Peers(sender.database, "host", WEEK)
    for peer in (one, other, one, other):
        await peer.look()
    assert one.agreement.differing() == other.agreement.differing() == ()
    assert len(await names(sender.database)) == 2


@postgres_is_long
async def test_rows_of_senders_that_ended_or_came_with_a_backup_count_for_nothing(
    sender: RunningSender,
) -> None:
    await Peers(sender.database, "ended", DAY).look()
    one = Peers(sender.database, "one", WEEK)
    for _ in range(3):
        await one.look()
    assert one.agreement.differing() == ()


async def test_rows_of_senders_that_ended_are_deleted_in_the_end(sender: RunningSender) -> None:
    await Peers(sender.database, "ended", DAY).look()
    ((ended,),) = (await names(sender.database),)

    def beat_often(connection: Any) -> None:
        for _ in range(1_002):
            peers.note(connection, name="one", announcement=WEEK)

    await sender.database.write(beat_often)
    assert await names(sender.database) == {"one"}
    assert ended.startswith("ended-")


@postgres_is_long
async def test_comparing_outlives_a_database_that_is_away(sender: RunningSender) -> None:
    asked = 0

    class Away:
        async def write_when_idle(self, work: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise DatabaseUnavailable("away")
            return await sender.database.write_when_idle(work)

    peer = Peers(Away(), "one", WEEK, Pace(every_seconds=0.01))  # type: ignore[arg-type]
    running = asyncio.create_task(peer.run())

    async def noted() -> bool:
        return await names(sender.database) == {peer.name}

    await await_until(noted)
    running.cancel()


def differing(service: ServiceProcess) -> set[str]:
    text = httpx2.get(f"{service.url}/metrics", trust_env=False).text
    return set(re.findall(r'orderbell_settings_differ\{setting="(\w+)"\} 1\.0', text))


@pytest.mark.long
async def test_senders_of_one_database_that_no_gateway_hears_report_what_differs(
    processes: Processes,
) -> None:
    one = processes.start_sender()
    other = processes.start_sender(history_days="3", database_url=one.environment["ORDERBELL_DATABASE_URL"])

    async def found(service: ServiceProcess) -> bool:
        return differing(service) == {"history_days"}

    for service in (one, other):
        await await_until(partial(found, service), timeout=60)
        [line] = service.records("services of this installation run with different settings")
        assert (line["settings"], line["of"]) == (["ORDERBELL_HISTORY_DAYS"], "senders of this database")
