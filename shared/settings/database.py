"""What the sender and `orderbell migrate` need to know about the database."""

from __future__ import annotations

from pydantic import field_validator, model_validator

from shared.database_url import SqliteUrl, is_schema_name, parse_database_url
from shared.settings.environment import PREFIX, FromEnvironment


class DatabaseSettings(FromEnvironment):
    """What the sender and `orderbell migrate` need to know about the database."""

    database_url: str = "sqlite:///orderbell.db"
    database_schema: str | None = None  # PostgreSQL's, where our tables are; else the URL's, else `orderbell`
    # PostgreSQL's, kept between transactions; else they are, unless a pooler is found that shares sessions.
    database_prepared_statements: bool | None = None

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        parse_database_url(url)
        return url

    @field_validator("database_schema")
    @classmethod
    def _check_schema(cls, schema: str | None) -> str | None:
        if schema is not None and not is_schema_name(schema):
            raise ValueError(
                "a schema name has 1 to 63 characters of A-Z a-z 0-9 _ - $, and must not begin with pg_"
            )
        return schema

    @model_validator(mode="after")
    def _check_one_schema(self) -> DatabaseSettings:
        url = parse_database_url(self.database_url)
        named = None if isinstance(url, SqliteUrl) else url.schema
        if named and self.database_schema and named != self.database_schema:
            raise ValueError(
                f"{PREFIX}DATABASE_SCHEMA is {self.database_schema}, but {PREFIX}DATABASE_URL names {named}"
            )
        return self
