"""`python -m sender.database.migrate`: what `orderbell migrate` runs.

Needs only the settings of the database. Exit codes: 0, or 2 for a fault of the settings or the database.
"""

from __future__ import annotations

import asyncio
import re
import sys

import click
from sqlalchemy import text

from sender.database import migrations
from sender.database.errors import DatabaseError, DatabaseUnusable
from sender.database.open import SCHEMA, open_database
from sender.database.postgres_errors import ERRORS, line_of
from shared.database_url import PostgresUrl, parse_database_url
from shared.process.logs import configure_logs
from shared.settings import DatabaseSettings, load


@click.command()
@click.option("--sql", is_flag=True)
@click.option("--role")
def main(sql: bool, role: str | None) -> None:
    settings = load(DatabaseSettings)
    configure_logs("console", "INFO", "migrate")
    if role is not None and not re.fullmatch(r'[^"\0]{1,63}', role):
        _end(f"--role: not a role name: {role[:63]!r}")
    url = parse_database_url(settings.database_url)
    try:
        if isinstance(url, PostgresUrl):
            schema = settings.database_schema or url.schema or SCHEMA
            asyncio.run(_migrate_postgres(url, schema, sql=sql, role=role))
        elif sql or role:
            _end("--sql and --role: SQLite has one file and no roles; its sender migrates it")
        else:
            asyncio.run(_migrate_sqlite(settings.database_url))
    except (DatabaseUnusable, DatabaseError) as error:
        _end(f"ORDERBELL_DATABASE_URL: {error}")
    except ERRORS as error:
        _end(f"ORDERBELL_DATABASE_URL: {line_of(error)}")


async def _migrate_postgres(url: PostgresUrl, schema: str, *, sql: bool, role: str | None) -> None:
    from sender.database import postgres, postgres_indexes, postgres_schema

    async with postgres.maintenance(url, schema) as engine:
        if sql:
            click.echo(postgres_schema.sql(await postgres_schema.version(engine, schema), schema, role))
            return
        await postgres_schema.bring_up_to_date(engine, schema)
        await postgres_indexes.build_in_time(engine, schema)
        if role is not None:
            async with engine.begin() as connection:
                for grant in postgres_schema.grants(schema, role):
                    await connection.execute(text(grant))
    click.echo(f"the schema {schema} is at version {migrations.newest_version()}")
    if role is None:
        click.echo("a service that runs as another role needs these grants (--role makes them):")
        for grant in postgres_schema.grants(schema, "<role>"):
            click.echo(f"  {grant};")


async def _migrate_sqlite(url: str) -> None:
    async with open_database(url):
        click.echo(f"the database is at version {migrations.newest_version()}")


def _end(reason: str) -> None:
    print(f"orderbell: {reason}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
