"""The database is restored from a copy, and orders completed after that pop up at every device."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.end_to_end.test_main_path import api, complete
from tests.waiting import await_until
from tests.websocket_client import Client, connected

if TYPE_CHECKING:
    from tests.processes import Processes, SenderProcess

pytestmark = [pytest.mark.anyio, pytest.mark.long]

ALICE = "customer:alice"
OLD = f"after={ALICE}=1.7"  # of a device that had everything before the restore
COPY = "after=customer:alice=1.5"  # of one that left when the copy was made


def copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


async def lose_two_orders(processes: Processes, sender: SenderProcess, *, seen: str = "") -> None:
    """Complete five orders, copy the database, complete two more, and start with the copy."""
    database = Path(processes.database_url.removeprefix("sqlite:///"))
    backup = database.with_suffix(".copy")
    async with api(processes, sender) as client:
        for number in range(1, 6):
            await complete(client, str(number), "alice")
        if seen:
            report = await client.post("/seen", json={"cursors": [f"{ALICE}={seen}"]})
            assert report.status_code == 200, report.text
        copy(database, backup)
        for number in (6, 7):
            await complete(client, str(number), "alice")
        await await_until(lambda: logged(processes) == [b"1", b"7"])
    assert sender.terminate() == 0
    for leftover in database.parent.glob(f"{database.name}*"):
        leftover.unlink()
    copy(backup, database)
    sender.start()


def logged(processes: Processes) -> list[bytes | None]:
    """Epoch and seq of the head in Redis."""
    with Redis.from_url(processes.redis_url) as redis:
        return list(redis.hmget(f"{processes.key_prefix}:head:{{{ALICE}}}", "epoch", "seq"))


def forget(processes: Processes) -> None:
    """Redis loses what it has of the channel: the history must answer."""
    with Redis.from_url(processes.redis_url) as redis:
        names = [f"{processes.key_prefix}:{kind}:{{{ALICE}}}" for kind in ("log", "head", "seen")]
        redis.delete(*names)


def resets(device: Client) -> list[tuple[str, str]]:
    found = [notice["data"] for notice in device.notices if notice["type"] == "orderbell.reset"]
    return [(data["reason"], data["cursor"]) for data in found]


@pytest.mark.parametrize(("from_log", "seen"), [(True, "1.3"), (False, ""), (True, "")])
async def test_orders_completed_after_the_restore_pop_up_at_devices_that_come_back(
    processes: Processes, from_log: bool, seen: str
) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    await lose_two_orders(processes, sender, seen=seen)
    async with api(processes, sender) as client:
        new = [await complete(client, f"new-{number}", "alice") for number in (1, 2)]
    await await_until(lambda: logged(processes) == [b"2", b"7"])
    assert [(event["epoch"], event["seq"]) for event in new] == [(2, 6), (2, 7)]
    token = processes.token("alice")
    for query in ("", OLD, COPY):
        if not from_log:
            forget(processes)
        async with connected(gateway, token, query=query) as device:
            assert await device.receive_events(2) == new, query
            begun = [("epoch", f"{ALICE}=2.5")]
            # Without a cursor, it depends on what Redis still has of the old epoch.
            assert resets(device) == begun or not (query or resets(device)), query
    # What one device has shown of them, no device shows that comes later.
    async with connected(gateway, token) as device:
        await device.receive_events(2)
        await device.report_seen(f"{ALICE}=2.6")
        while device.notices[-1]["type"] != "orderbell.seen":
            await device.receive()
    for query in ("", OLD):
        async with connected(gateway, token, query=query) as device:
            assert await device.receive_events(1) == new[1:], query


async def test_devices_that_stay_connected_get_the_first_orders_after_the_restore(
    processes: Processes,
) -> None:
    """Completed as soon as the sender answers; also of a customer who never had an order before."""
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with contextlib.AsyncExitStack() as stack:
        alice, bob = [
            await stack.enter_async_context(connected(gateway, processes.token(name)))
            for name in ("alice", "bob")
        ]
        await lose_two_orders(processes, sender)
        before = list(await alice.receive_events(7))
        async with api(processes, sender) as client:
            new = [await complete(client, f"new-{number}", "alice") for number in (1, 2, 3)]
            his = await complete(client, "his", "bob")
        assert await alice.receive_events(10) == [*before, *new]
        assert [(event["epoch"], event["seq"]) for event in new] == [(2, 6), (2, 7), (2, 8)]
        assert await bob.receive_events(1) == [his]
