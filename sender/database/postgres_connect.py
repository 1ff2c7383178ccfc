"""How a connection to PostgreSQL is made, and what every transaction on it begins with.

Hosts are tried one after the other, each within its own time limit (asyncpg's covers all of them, so a
silent first host would use it up), beginning with the one that answered last; a host that takes no writes is
skipped.

A transaction's settings travel with its BEGIN: no round trip of their own, nothing at start-up that a pooler
refuses, and nothing that another client of a shared session would inherit. Among them is the search path,
which holds our schema alone. The alternative is to write each table's name with its schema; but then one
forgotten name in a textual statement would find a shop's own `orders` in `public`. It would suit work outside
transactions better; the only such work is `CREATE INDEX CONCURRENTLY`.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import secrets
import socket
import ssl
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from weakref import WeakSet

import asyncpg

from sender.database.errors import DatabaseUnavailable, DatabaseUnusable
from sender.database.postgres_errors import ERRORS, line_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.database_url import PostgresUrl

# How long the transaction that begins next waits for a lock; seconds.
lock_seconds: ContextVar[float] = ContextVar("lock_seconds", default=5.0)

_ENDING = "the sender ends"
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_KEEPALIVE_IDLE_SECONDS = 10
_KEEPALIVE_INTERVAL_SECONDS = 3
_UNACKNOWLEDGED_SECONDS = 15  # data unacknowledged for longer ends the connection


class Session(asyncpg.Connection):  # type: ignore[misc]
    """A connection that begins each transaction with our settings, and ends at once when it is dropped."""

    prologue = ""  # SQL, between BEGIN and the work

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own = secrets.token_hex(6)
        self._statements = 0

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        if not args and query.startswith("BEGIN"):
            milliseconds = f"{lock_seconds.get() * 1000:.0f}"
            query = f"{query.rstrip(';')}; SET LOCAL lock_timeout = {milliseconds}; {self.prologue}"
        return str(await super().execute(query, *args, timeout=timeout))

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        # SQLAlchemy's pool passes a time limit for connections that it drops. With a server that has gone,
        # ten connections would use all of it before the first new one is made.
        if timeout is not None:
            self.terminate()
        else:
            await super().close()

    def _get_unique_id(self, prefix: str) -> str:
        # asyncpg numbers them: two processes behind one pooler would use the same names, and one would run
        # what the other has prepared.
        self._statements += 1
        return f"__orderbell_{self._own}_{prefix}_{self._statements}__"


class Connector:
    """Connects to what a URL names. Raises `DatabaseUnavailable`; its constructor, `DatabaseUnusable`."""

    def __init__(
        self,
        url: PostgresUrl,
        *,
        schema: str,
        connect_seconds: float,
        command_seconds: float,
        idle_seconds: float,
    ) -> None:
        """`idle_seconds` end an idle transaction: a client that was cut off must not hold locks for long."""
        for name in _FILES:
            _check_readable(name, url.driver_options.get(name))
        _check_tls_files(url.driver_options)
        if (service := url.driver_options.get("service")) is not None:
            _check_service(service)
        self._sessions: WeakSet[Session] = WeakSet()
        self._dropped = False
        self._hosts = url.hosts
        self._first = 0  # index of the host to begin with
        self._seconds = url.connect_seconds or connect_seconds
        # In place of limits that an administrator has set for people. Ours ends a command a moment earlier.
        self._prologue = (
            f"SET LOCAL idle_in_transaction_session_timeout = {idle_seconds * 1000:.0f};"
            f" SET LOCAL statement_timeout = {(command_seconds + 1) * 1000:.0f};"
            f' SET LOCAL search_path = "{schema}"'
        )
        settings = {"application_name": url.application_name or "orderbell"}
        if url.server_options is not None:
            settings["options"] = url.server_options
        self._arguments: dict[str, Any] = {
            "dsn": "postgresql://?" + urlencode(_driver_options(url)),
            "user": url.user,
            "password": url.password,
            "database": url.database,
            "server_settings": settings,
            "command_timeout": command_seconds,
            "target_session_attrs": "read-write",
            "connection_class": Session,
        }
        if (context := _system_roots(url)) is not None:
            self._arguments["ssl"] = context

    async def connect(self, *, statement_cache_size: int = 0) -> Session:
        """A connection to the first host that takes writes."""
        count = len(self._hosts) or 1
        faults = []
        for number in range(count):
            if self._dropped:
                raise DatabaseUnavailable(_ENDING)
            index = (self._first + number) % count
            try:
                session = await self._connect(index, statement_cache_size)
            except DatabaseUnavailable as error:
                faults.append(str(error))
            else:
                self._first = index
                self._keep(session)
                return session
        raise DatabaseUnavailable("; ".join(dict.fromkeys(faults)))

    def insist_on_durable_commits(self) -> None:
        """For transactions on connections that are made from now on."""
        self._prologue += "; SET LOCAL synchronous_commit = on"

    def _keep(self, session: Session) -> None:
        if self._dropped:  # while it was being made
            session.terminate()
            raise DatabaseUnavailable(_ENDING)
        self._sessions.add(session)

    def drop_all(self) -> None:
        """End all connections at once, and make no others."""
        self._dropped = True
        for session in self._sessions:
            session.terminate()

    async def _connect(self, index: int, statement_cache_size: int) -> Session:
        where: dict[str, Any] = {}
        name = "its default host"
        if self._hosts:
            host, port = self._hosts[index]
            where = {"host": [host], "port": [port] if port else None}
            name = f"{host}:{port}" if port else host
        try:
            session: Session = await asyncpg.connect(
                **self._arguments, **where, statement_cache_size=statement_cache_size, timeout=self._seconds
            )
        except TimeoutError as error:
            raise DatabaseUnavailable(
                f"PostgreSQL does not answer: {name}: nothing within {self._seconds:g} s"
            ) from error
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise DatabaseUnavailable(f"{name}: takes no writes; it is a standby, or read-only") from error
        except ssl.SSLError as error:
            raise DatabaseUnavailable(f"{name}: TLS: {line_of(error)}") from error
        except OSError as error:
            raise DatabaseUnavailable(f"PostgreSQL does not answer: {name}: {line_of(error)}") from error
        except (*ERRORS, asyncpg.InternalClientError, ValueError) as error:  # ValueError: of the environment
            raise DatabaseUnavailable(f"{name}: {line_of(error)}") from error
        session.prologue = self._prologue
        _notice_silence(session)
        return session


def _check_readable(name: str, path: str | None) -> None:
    """The driver's own error names no file."""
    if path is None or (name, path) == ("sslrootcert", "system"):
        return
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise DatabaseUnusable(f"{name}={path}: {error.strerror}") from error


def _check_service(name: str) -> None:
    """asyncpg passes over a service that it does not find, and connects to wherever its defaults lead."""
    given = os.environ.get("PGSERVICEFILE")
    path = Path(given) if given else Path("~/.pg_service.conf").expanduser()
    services = configparser.ConfigParser(interpolation=None)
    try:
        services.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise DatabaseUnusable(f"service={name}: {path} is not a service file: {line_of(error)}") from None
    if name not in services:
        raise DatabaseUnusable(f"service={name}: there is none in {path}")


def _check_tls_files(options: Mapping[str, str]) -> None:
    """OpenSSL's own errors name no file, and an encrypted key would make it ask at the terminal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl"):
        path = options.get(name)
        if path is not None and (name, path) != ("sslrootcert", "system"):
            try:
                context.load_verify_locations(cafile=path)
            except ssl.SSLError:
                raise DatabaseUnusable(f"{name}={path}: not a file of PEM that belongs here") from None
    if not (options.keys() >= {"sslcert", "sslkey"}):
        return
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return options.get("sslpassword", "")

    try:
        context.load_cert_chain(options["sslcert"], options["sslkey"], password)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            why = "is encrypted, and sslpassword is missing or wrong"
        elif "KEY_VALUES_MISMATCH" in str(error):
            why = f"is not the key of sslcert={options['sslcert']}"
        else:
            why = f"or sslcert={options['sslcert']}: not in PEM"
        raise DatabaseUnusable(f"sslkey={options['sslkey']} {why}") from None


def _driver_options(url: PostgresUrl) -> dict[str, str]:
    options = dict(url.driver_options)
    if url.tls_mode is not None:
        options["sslmode"] = url.tls_mode
    if options.get("sslrootcert") == "system":
        del options["sslrootcert"]
    return options


def _system_roots(url: PostgresUrl) -> ssl.SSLContext | None:
    """For `sslrootcert=system`, which asyncpg would take for a file name."""
    if url.driver_options.get("sslrootcert") != "system":
        return None
    context = ssl.create_default_context()
    if certificate := url.driver_options.get("sslcert"):
        try:
            context.load_cert_chain(certificate, url.driver_options.get("sslkey"))
        except (OSError, ssl.SSLError) as error:
            raise DatabaseUnusable(f"sslcert, sslkey: {line_of(error)}") from error
    return context


def _notice_silence(session: Session) -> None:
    """asyncpg sets nothing, so a server whose machine has gone would be noticed only after TCP's defaults."""
    transport = getattr(session, "_transport", None)
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or connection.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError, AttributeError):  # not every system has all of them
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_SECONDS * 1000)
