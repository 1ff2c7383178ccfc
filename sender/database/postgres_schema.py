"""Our schema in a shared PostgreSQL: checking that it is ours and usable, and bringing it up to date.

Our tables have names that a shop's own may have too, so they are in a schema of their own. Earlier versions
had them in `public`; they are moved, which changes the catalogue and no row.

A migrating process holds an advisory lock, in a transaction that does nothing else: that works through
poolers too, and index builds do not wait for it.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from sender.database import migrations
from sender.database.errors import DatabaseUnusable
from sender.database.migrations import Standing
from sender.database.postgres_connect import lock_seconds
from sender.database.postgres_errors import ERRORS, Meaning, code_of, line_of, meaning
from sender.database.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

logger = structlog.get_logger(__name__)

_MIGRATION_LOCK = 0x6F7264657262656C  # "orderbel": a number that no other program uses
_AGAIN_SECONDS = 0.3
# A change of the catalogue that waits for a lock lets nobody else pass: it gives up, and comes again later.
_LOCK_SECONDS = 0.5
# Now and then a little longer: an autovacuum gives way only after PostgreSQL's deadlock_timeout of a second.
_LONGER_SECONDS = 1.1
_EVERY_TIMES = 3
_PAUSE_SECONDS = 1.0
_DUPLICATE_TABLE = "42P07"
_TAKE_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
_FIRST_TABLES = ("alembic_version", "channels", "events", "orders", "idempotency", "generation")


async def bring_up_to_date(engine: AsyncEngine, schema: str) -> None:
    """Raises `DatabaseUnusable`, and whatever the database does."""
    async with engine.connect() as connection:
        standing = await connection.run_sync(_look, schema)
        if standing not in (Standing.EMPTY, Standing.BEHIND):
            await connection.run_sync(_check_grants, schema)
            return
    try:
        await _migrate(engine, schema)
    except ERRORS as error:
        if (known := _explain(error, schema)) is not None:
            raise known from error
        raise
    async with engine.connect() as connection:
        await connection.run_sync(_check_grants, schema)


def sql(version: str | None, schema: str, role: str | None) -> str:
    """What an owner runs if the service may not: migrations after that version, and grants for its role."""
    granting = [f"{grant};" for grant in grants(schema, role or "<the service's role>")]
    parts = [
        f"-- orderbell: the schema {schema}, version {version or 'none'} to {migrations.newest_version()}.",
        "-- For psql, and not in one transaction: indexes are built concurrently.",
        "\\set ON_ERROR_STOP on",
        "-- If it ends because of a lock, nothing is lost: print the SQL again, and it goes on from there.",
        f"SET lock_timeout = '{_LOCK_SECONDS * 1000:.0f}ms';",
        _house(schema).strip() + ";",
        f'SET search_path = "{schema}";',
        migrations.as_sql("postgresql", after=version, schema=schema).strip(),
        f'ANALYZE "{schema}".channels, "{schema}".events, "{schema}".orders;',
        *(granting if role else [f"-- {grant}" for grant in granting]),
    ]
    return "\n".join(parts) + "\n"


def grants(schema: str, role: str) -> list[str]:
    """The rights that the service's role needs, and no others."""
    name = role if role.startswith("<") else f'"{role}"'
    return [
        f'GRANT USAGE ON SCHEMA "{schema}" TO {name}',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {name}',
        f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA "{schema}" TO {name}',
    ]


async def version(engine: AsyncEngine, schema: str) -> str | None:
    """The version of the schema, or of tables that are still to be moved there."""
    async with engine.connect() as connection:
        if found := await connection.run_sync(_read_version, schema):
            return found
        old = await connection.execute(text(_OLD_VERSION), {"schema": schema})
        return old.scalar_one_or_none()


def _look(connection: Connection, schema: str) -> Standing:
    found = _read_version(connection, schema)
    standing = migrations.look(connection, found)
    if standing is Standing.NEWER:
        logger.warning(
            "the database's schema is from a later release, and has all that this one needs",
            found=found,
            ours=migrations.newest_version(),
        )
    if standing is Standing.FOREIGN:
        raise DatabaseUnusable(
            f'the schema "{schema}" is at version {found!r}, which this release (up to '
            f"{migrations.newest_version()}) does not know, and lacks tables or columns that it needs: it "
            "belongs to another program, or to a much later release; set ORDERBELL_DATABASE_SCHEMA to "
            "a schema of Orderbell's own"
        )
    return standing


def _read_version(connection: Connection, schema: str) -> str | None:
    refused = f'this role may not use the schema "{schema}"'
    what_to_do = "`orderbell migrate --role <role>`, run by its owner, grants what is needed"
    if connection.execute(text(_MAY_USE), {"schema": schema}).scalar_one_or_none() is False:
        raise DatabaseUnusable(f"{refused}: {what_to_do}")
    try:
        return migrations.read_version(connection)
    except ERRORS as error:
        if meaning(error) is Meaning.REFUSED:
            raise DatabaseUnusable(f"{refused} ({line_of(error)}): {what_to_do}") from error
        raise


async def _migrate(engine: AsyncEngine, schema: str) -> None:
    logged = False
    while True:
        async with engine.connect() as locking, locking.begin():
            if (await locking.execute(_TAKE_LOCK, {"lock": _MIGRATION_LOCK})).scalar_one():
                standing = await locking.run_sync(_look, schema)
                await _drop_snapshot(locking)
                if standing in (Standing.EMPTY, Standing.BEHIND):
                    await _migrate_alone(engine, schema)
                return  # if another process was first, there is nothing left to do
        # No transaction while we wait: behind a small pooler it could occupy the other's connection.
        if not logged:
            logger.info("another process is migrating the database; waiting for it")
            logged = True
        await asyncio.sleep(_AGAIN_SECONDS)


async def _drop_snapshot(connection: AsyncConnection) -> None:
    """The last statement keeps its snapshot until another one runs, and index builds wait for that."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute("SELECT 1")  # by the simple protocol, which keeps no snapshot


async def _migrate_alone(engine: AsyncEngine, schema: str) -> None:
    """Each version has a transaction of its own: what is done is not done again."""
    before = await version(engine, schema)
    if before is not None:
        logger.info("the database is being migrated", before=before, after=migrations.newest_version())
    for attempt in itertools.count(1):
        token = lock_seconds.set(_LOCK_SECONDS if attempt % _EVERY_TIMES else _LONGER_SECONDS)
        try:
            if await _migrate_unless_held(engine, schema):
                break
        finally:
            lock_seconds.reset(token)
        await asyncio.sleep(_PAUSE_SECONDS)
    if before is not None:
        logger.info("database migrated", before=before, now=migrations.newest_version())


async def _migrate_unless_held(engine: AsyncEngine, schema: str) -> bool:
    """False if another transaction held a table for longer than others may wait behind us."""
    try:
        async with engine.begin() as connection:
            await connection.execute(text(_house(schema)))
        async with engine.connect() as connection:
            await connection.run_sync(migrations.migrate, schema)
    except ERRORS as error:
        if meaning(error) is not Meaning.HELD:
            raise
        logger.info("the migration waits for another transaction to end", reason=line_of(error))
        return False
    return True


def _explain(error: BaseException, schema: str) -> DatabaseUnusable | None:
    if code_of(error) == _DUPLICATE_TABLE:
        return DatabaseUnusable(
            f'the schema "{schema}" has tables of another program ({line_of(error)}); '
            "set ORDERBELL_DATABASE_SCHEMA to a schema of Orderbell's own"
        )
    if meaning(error) is Meaning.REFUSED:
        return DatabaseUnusable(
            f'the schema "{schema}" has to be created or changed, and this role may not ({line_of(error)}): '
            "run `orderbell migrate` as a role that may, with --role naming this one"
        )
    return None


def _check_grants(connection: Connection, schema: str) -> None:
    names = [f'"{schema}".{table}' for table in metadata.tables]
    missing = connection.execute(text(_MISSING), {"names": names}).all()
    if missing:
        what = ", ".join(f"{privilege} on {name}" for name, privilege in missing[:3])
        role = connection.execute(text("SELECT current_user")).scalar_one()
        raise DatabaseUnusable(
            f"the role {role} lacks {what}{' and more' if len(missing) > 3 else ''}: "
            f"`orderbell migrate --role {role}`, run by the tables' owner, grants it"
        )


# The first versions used whatever schema the search path named first.
_OLD_SCHEMAS = """
    SELECT n.nspname FROM pg_namespace n
    WHERE n.nspname IN ('public', current_user) AND n.nspname NOT IN ({schema}, 'orderbell')
      AND (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'r'
           AND c.relname IN ({tables})) = {count}
      AND EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                  WHERE c.relnamespace = n.oid AND c.relname = 'channels' AND a.attname = 'pruned_seq')
"""
_TABLES = ", ".join(f"'{name}'" for name in _FIRST_TABLES)
_OLD_VERSION = f"""
    SELECT CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.relname = 'dead_letters'
                             AND c.relnamespace = o.nspname::regnamespace) THEN '0002' ELSE '0001' END
    FROM ({_OLD_SCHEMAS.format(schema=":schema", tables=_TABLES, count=len(_FIRST_TABLES))}) AS o LIMIT 1
"""
_MAY_USE = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema"
_MISSING = """
    SELECT name, privilege
    FROM unnest(CAST(:names AS text[])) AS name,
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE NOT has_table_privilege(name, privilege)
"""


def _house(schema: str) -> str:
    """Create the schema if it is missing, and move our tables into it."""
    old = _OLD_SCHEMAS.format(schema=f"'{schema}'", tables=_TABLES, count=len(_FIRST_TABLES))
    return f"""
DO $orderbell$
DECLARE home name; moved name;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN
    CREATE SCHEMA "{schema}";
  END IF;
  IF to_regclass('"{schema}".alembic_version') IS NULL THEN
    SELECT found.nspname INTO home FROM ({old}) AS found LIMIT 1;
    IF home IS NOT NULL THEN
      FOREACH moved IN ARRAY ARRAY[{_TABLES}, 'dead_letters'] LOOP
        EXECUTE format('ALTER TABLE IF EXISTS %I.%I SET SCHEMA %I', home, moved, '{schema}');
      END LOOP;
    END IF;
  END IF;
END $orderbell$
"""
