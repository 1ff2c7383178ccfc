"""docs/postgresql.md: its commands are run here, against a real server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg
import pytest

from sender.database.open import open_database
from tests.postgres_servers import fresh_database
from tests.processes import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

PAGE = (REPOSITORY / "docs" / "postgresql.md").read_text(encoding="utf-8")


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield url


def statements() -> list[str]:
    """The statements of all SQL blocks; one may take several lines."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    return [statement for block in blocks for statement in block.split(";") if statement.strip()]


@pytest.mark.long
async def test_every_statement_of_the_page_runs(url: str) -> None:
    async with open_database(url):
        pass
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'shop_service'"):
            await connection.execute("CREATE ROLE shop_service")
        for statement in statements():
            await connection.execute(statement)
        options = "SELECT reloptions FROM pg_class WHERE oid = 'orderbell.channels'::regclass"
        assert "fillfactor=80" in await connection.fetchval(options)
        await connection.execute("DROP OWNED BY shop_service")
    finally:
        await connection.close()
    async with open_database(url) as database:  # the service can use the result
        await database.check()
    assert len(statements()) >= 5
