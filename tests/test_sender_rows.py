"""Many rows at a time, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.engine import Engine

from sender.database.open import open_database
from sender.database.rows import AT_ONCE, insert_rows
from sender.database.tables import idempotency

if TYPE_CHECKING:
    from sqlalchemy import Connection

pytestmark = pytest.mark.anyio


def row(number: int) -> dict[str, Any]:
    return {"scope": f"{number:04}", "body": "b'\"\\\u00e4?", "created_at": "", "status": number}


@pytest.mark.parametrize("count", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
async def test_all_rows_are_inserted(database_url: str, count: int) -> None:
    rows = [row(number) for number in range(count)]
    columns = [idempotency.c[name] for name in row(0)]
    async with open_database(database_url) as database:
        await database.write(lambda connection: insert_rows(connection, idempotency, rows))
        stored = await database.read(
            lambda connection: connection.execute(select(*columns).order_by(columns[0])).mappings().all()
        )
    assert [dict(one) for one in stored] == rows


async def test_many_rows_are_few_steps_on_sqlite(tmp_path: Any) -> None:
    """If each row is a separate step, each may wait for the event loop's thread."""
    rows = [row(number) for number in range(2 * AT_ONCE)]
    steps: list[Any] = []

    def note(
        connection: Any, cursor: Any, statement: str, values: Any, context: Any, executemany: bool
    ) -> None:
        steps.extend(values if executemany else [values])

    def work(connection: Connection) -> None:
        event.listen(Engine, "before_cursor_execute", note)
        try:
            insert_rows(connection, idempotency, rows)
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    async with open_database(f"sqlite:///{tmp_path / 'orderbell.db'}") as database:
        await database.write(work)
    assert len(steps) == 2
