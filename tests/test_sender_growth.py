"""What the sender asks of its database costs the same, however many rows there are that it does not ask for.

Each question is asked of a database and of one several times as large, whose additional rows are others':
orders of other customers or in another state, events that wait to be published, keys that are still young,
revocations that still count.
SQLite counts the steps of its virtual machine, PostgreSQL the pages it has looked at.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from bench.large import as_of_postgres
from sender import (
    alerts,
    beginnings,
    dead_letters,
    erasure,
    generation,
    history,
    idempotency,
    lives,
    orders,
    outbox,
    pruning,
    resending,
    retractions,
    revocations,
    seen,
)
from sender.database.open import open_database
from sender.publishing import stops
from sender.webhooks import deliveries, search
from sender.webhooks.message import Kind
from shared.channels import customer_channel
from shared.cursors import Place
from shared.extents import Extent, Range, Seen
from shared.times import format_time
from tests.large_databases import execute, fill_sqlite
from tests.postgres_servers import fresh_database
from tests.sqlite_databases import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from sender.database.protocol import Database

    Question = Callable[[Connection], object]

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
DAY = timedelta(days=1)
RECENTLY = format_time(NOW - timedelta(hours=5))
SOON = format_time(NOW + 5 * DAY)
ONE = customer_channel("filled-7")
SOME = [customer_channel(f"filled-{n}") for n in range(1, 21)]
FEW = 300  # orders of the customers `early` and `late`
CALLER = resending.Caller(NOW, f"00-{'a' * 32}-{'b' * 16}-01")


def questions() -> dict[str, Question]:
    """About everything that the API and the sender's tasks ask, in every way in which it can be asked."""
    lists: dict[str, Question] = {
        f"orders of {customer or 'all'}, {status or 'any'}, before {before or 'none'}": partial(
            orders.find, customer_id=customer, status=status, before=before, limit=20
        )
        for customer in (None, "filled-7", "early", "late")
        for status in (None, *orders.ORDERS)
        for before in (None, "filled-5")
    }
    others: dict[str, Question] = {
        "board": partial(orders.board, known=["filled-1", "filled-2"], open_most=20, recent_most=5),
        "complete again": lambda c: orders.complete_all(c, [orders.Completion("filled-9", {}, NOW, None)]),
        "cancel": partial(orders.cancel, order_id="filled-8", reason="", now=NOW, traceparent=None),
        "read one": partial(history.read, requests=[history.Request(ONE, Place(1, 0))], limit=5),
        "read some": partial(history.read, requests=[history.Request(c, Place(1, 0)) for c in SOME], limit=5),
        "count unread": partial(alerts.count, names=SOME, now=NOW),
        "list alerts": partial(alerts.page, channel=ONE, before=None, limit=5, now=NOW),
        "read up to": partial(alerts.read, channel=ONE, up_to=Place(1, 3), now=NOW),
        "read by id": partial(alerts.read, channel=ONE, ids=["7", "unknown"], now=NOW),
        "is any due": partial(alerts.is_any_due, now=NOW),
        "expire": partial(alerts.expire, now=NOW),
        "look for states that can go": partial(alerts.look),
        "delete states": partial(alerts.prune, up_to=[alerts.Row(ONE, 2)]),
        "retract an order's": partial(retractions.of_order, order_id="filled-1", reason="", now=NOW),
        "resend an order's": partial(resending.of_order, order_id="filled-2", caller=CALLER),
        "resend an event": partial(resending.of_event, source="/mine", event_id="1", caller=CALLER),
        "revocations, all": partial(revocations.read, after=0, now=NOW, limit=20),
        "revocations, new": partial(revocations.read, after=900, now=NOW, limit=20),
        "prune revocations": partial(revocations.prune, now=NOW, limit=20),
        "dead letters": partial(dead_letters.find, before=None, limit=20),
        "dead letters, older": partial(dead_letters.find, before=500, limit=20),
        "prune dead letters": partial(dead_letters.prune, before=NOW - 7 * DAY, limit=20),
        "is a webhook due": partial(deliveries.is_any_due, now=NOW),
        "take webhooks": partial(deliveries.take, now=NOW, until=NOW + DAY, limit=20, not_shown_seconds=9),
        "webhooks that wait": deliveries.count,
        "prune webhooks": partial(deliveries.prune, before=NOW - 7 * DAY, limit=20),
        "restamp webhooks": partial(deliveries.restamp, now=NOW, limit=20),
        "give webhooks up": partial(deliveries.give_up_old, before=NOW - 3 * DAY, now=NOW, limit=20),
        "webhooks of an alert": partial(deliveries.of_alert, channel=ONE, seq=1),
        "note webhooks": partial(deliveries.note, kind=Kind.SHOWN, parts={ONE: [Range(1, 5)]}, now=NOW),
        "is there to search": partial(search.has_work, due=search.Due(900, 900, 900, NOW)),
        "key": partial(idempotency.once_all, asked=ASKED, work=lambda _, some: list(some), answer=_answer),
        "prune keys": partial(pruning.prune_keys, before=NOW - 2 * DAY, limit=20),
        "restamp keys": partial(pruning.restamp_keys, now=NOW, ahead=DAY, limit=20),
        "erase": partial(erasure.erase, customer_id="filled-6"),
        "look for channels that can go": partial(beginnings.look, after="customer:filled-5", limit=20),
        "remove channels": partial(beginnings.remove, names=SOME),
        "waiting": partial(outbox.unpublished, limit=20),
        "waiting, but of some": partial(outbox.unpublished, limit=20, but=[ONE]),
        "backlog": outbox.backlog,
        "sweep": partial(outbox.recent, before=500, window=50),
        "settled": outbox.settled,
        "extent": outbox.extent,
        "writers": outbox.writers,
        "trace an order": partial(lives.of_order, order_id="filled-3", now=NOW),
        "trace an event": partial(lives.of_event, source="/mine", event_id="1", now=NOW),
        "trace a customer": partial(lives.of_customer, customer_id="filled-7", now=NOW),
        "stops": partial(stops.waited_in, channel=ONE, recorded_at=RECENTLY),
        "newest": generation.newest,
        "look for old events": partial(pruning.look, after=0, before=NOW - 7 * DAY, now=NOW, limit=20),
        "delete events": partial(pruning.delete_events, old=dict.fromkeys(SOME, 1), last=0),
        "look for old orders": partial(
            pruning.look_at_orders, after=0, before=NOW - 7 * DAY, now=NOW, limit=20
        ),
        "delete orders": partial(pruning.delete_orders, positions=list(range(1, 20)), before=NOW),
        "see": partial(seen.see, reports=[Seen(ONE, Extent(Place(1, 2)))]),
    }
    return lists | others


ASKED = [idempotency.Asked("", idempotency.Claim("f" * 32, "", ""), NOW)]


def _answer(_: object) -> idempotency.Answer:
    return idempotency.Answer(200, b"{}")


def more_rows(size: int, series: str, digest: str) -> list[str]:
    """Beside events and completed orders: whatever else there may be many of."""
    rows, few = series.format(count=size), series.format(count=FEW)
    channel, seq = f"'customer:filled-' || ((n - 1) % ({size} / 10) + 1)", f"(n - 1) / ({size} / 10) + 1"
    ends = (NOW + DAY).timestamp()
    return [
        f"UPDATE orders SET customer_id = 'early' WHERE position BETWEEN 100 AND 100 + {FEW}",
        "INSERT INTO orders (order_id, customer_id, status, created_at, data)"
        f" SELECT 'late-' || n, 'late', 'open', '{RECENTLY}', '{{}}' FROM {few}",
        "INSERT INTO idempotency (scope, body, created_at, status, answer)"
        f" SELECT {digest}, '', '{RECENTLY}', 200, '{{}}' FROM {rows}",
        "INSERT INTO alert_states (channel, seq, state, expires_at)"
        f" SELECT {channel}, {seq}, CASE WHEN n % 2 = 0 THEN 'read' END,"
        f" CASE WHEN n % 2 = 1 THEN '{SOON}' END FROM {rows}",
        "INSERT INTO revocations (position, kind, name, revoked_at, kept_until)"
        f" SELECT n, 'token', 'jti-' || n, '{RECENTLY}', {ends} FROM {rows}",
        "INSERT INTO dead_letters"
        " (position, channel, epoch, seq, identity, recorded_at, given_up_at, reason, detail, text)"
        f" SELECT n, 'customer:x', 1, n, '', '{RECENTLY}', '{RECENTLY}', 'refused', '', '{{}}' FROM {rows}",
        "INSERT INTO webhook_deliveries (channel, seq, kind, noted_at, ended_at, outcome)"
        f" SELECT {channel}, {seq}, 'x', '{RECENTLY}', '{RECENTLY}', 'delivered' FROM {rows}",
        f"INSERT INTO webhook_search VALUES (1, {size} - 100)",
        f"INSERT INTO outbox SELECT position, 1 FROM events WHERE position > {size} / 2",
    ]


def grown(small: dict[str, int], large: dict[str, int], *, spare: int) -> dict[str, tuple[int, int]]:
    """What costs more than with fewer rows, but for a level of an index."""
    return {name: (small[name], cost) for name, cost in large.items() if cost > 1.5 * small[name] + spare}


async def cost_of_each(
    database: Database, begin: Question, cost: Callable[[Connection], int]
) -> dict[str, int]:
    """Of each question, in a transaction that is rolled back."""
    found = {}
    for name, ask in questions().items():

        def run(connection: Connection, ask: Question = ask) -> None:
            begin(connection)
            try:
                ask(connection)
            except (retractions.UnknownAlert, resending.NotResendable, orders.UnknownOrder):
                pass  # has looked for it, too
            raise _Asked(cost(connection))

        try:
            await database.write(run)
        except _Asked as asked:
            found[name] = asked.cost
    return found


class _Asked(Exception):
    def __init__(self, cost: int) -> None:
        self.cost = cost


async def steps_of_each(path: Path, size: int) -> dict[str, int]:
    prepare(f"sqlite:///{path}")
    fill_sqlite(path, channels=size // 10, events=size, at=RECENTLY)
    series = (
        "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)"
    )
    with closing(sqlite3.connect(path)) as connection:
        for statement in more_rows(size, series, "printf('%032x', n)"):
            connection.execute(statement)
        connection.commit()
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 10

    def begin(connection: Connection) -> None:
        nonlocal steps
        steps = 0
        connection.connection.driver_connection.set_progress_handler(count, 10)  # type: ignore[union-attr]

    async with open_database(f"sqlite:///{path}") as database:
        return await cost_of_each(database, begin, lambda _: steps)


async def test_steps_on_sqlite_do_not_grow_with_the_rows_of_others(tmp_path: Path) -> None:
    small, large = [await steps_of_each(tmp_path / f"{size}.db", size) for size in (1_500, 6_000)]
    assert grown(small, large, spare=100) == {}


PAGES = """
    SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::bigint FROM pg_class
    WHERE relnamespace = 'orderbell'::regnamespace
"""


async def pages_of_each(url: str, size: int) -> dict[str, int]:
    async with open_database(url):
        pass
    rows = as_of_postgres(size // 10, size, f"'{RECENTLY}'")
    rows += more_rows(size, "generate_series(1, {count}) AS n", "md5(CAST(n AS text))")
    execute(url, ["SET search_path = orderbell", "SET synchronous_commit = off", *rows, "VACUUM ANALYZE"])
    before = 0

    def pages(connection: Connection) -> int:
        return int(connection.exec_driver_sql(PAGES).scalar_one())

    def begin(connection: Connection) -> None:
        nonlocal before
        before = pages(connection)

    async with open_database(url) as database:
        return await cost_of_each(database, begin, lambda connection: pages(connection) - before)


@pytest.mark.long
@pytest.mark.postgres
async def test_pages_on_postgresql_do_not_grow_with_the_rows_of_others(postgres_url: str) -> None:
    found = []
    for size in (5_000, 50_000):
        with fresh_database(postgres_url) as url:
            found.append(await pages_of_each(url, size))
    small, large = found
    # The channels fit into fewer pages: as long as they do, PostgreSQL may read all of them.
    assert grown(small, large, spare=300) == {}
