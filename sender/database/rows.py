"""Finding and inserting many rows at a time, by the statements that suit each database's driver best.

Python's SQLite driver releases the interpreter lock at each step of a statement, and takes it back
afterwards. While the event loop's thread is busy, taking it back costs a switch interval, so a thousand rows
in a thousand steps cost a thousand intervals (measured: 2.3 ms a row instead of 0.06). One statement with
many rows is one step.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, JSON, Column, any_, bindparam, func, insert, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Insert, Table

AT_ONCE = 100  # rows; with nine columns they stay below the 999 values that old SQLites take


def is_among(dialect: str, column: Column[Any], name: str) -> ColumnElement[bool]:
    """Whether the column is among the values, a list that is bound under that name."""
    # One text for any number of values: otherwise SQLAlchemy would write a new one each time, a tenth of a
    # batch's time, and asyncpg, which keeps a hundred prepared statements, would have to prepare it.
    if dialect == "sqlite":
        values = func.json_each(bindparam(name, type_=JSON)).table_valued(Column("value", column.type))
        return column.in_(select(values.c.value))
    return column == any_(bindparam(name, type_=ARRAY(column.type)))


def insert_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Rows that name the same columns, in the same order."""
    if not rows:
        return
    if connection.dialect.name != "sqlite":  # asyncpg prepares one statement and sends all rows at once
        connection.execute(_insert(table), rows)
        return
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        values = tuple(value for row in some for value in row.values())
        connection.exec_driver_sql(_insert_values(table.name, tuple(some[0]), len(some)), values)


@cache
def _insert(table: Table) -> Insert:
    return insert(table).inline()  # or SQLAlchemy would ask for the key of a single row


@cache
def _insert_values(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"
