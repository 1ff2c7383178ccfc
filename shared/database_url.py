"""The database's URL, in any form that libpq accepts and consoles print; other forms get one line of advice.

    sqlite:///orderbell.db                                          a file; with four slashes an absolute path
    postgresql://user:password@host:5432/database?sslmode=require

Hosts may be several (`h1:5432,h2:5433`), a socket's directory (`?host=/var/run/postgresql`), or missing. A
password may have characters that a URL may not: it ends at the first `@`, as in libpq, and if that can't be
right, the message shows what to write. Messages never quote the URL, because it contains the password.

Options of other languages' drivers (Prisma's `schema`, `ssl=true`, `prepared_statement_cache_size=0`) mean
here what they mean there. Options without an effect here are ignored and named in the log; any other is a
fault, because PostgreSQL would take it for a parameter of the server, and a pooler would refuse it.
"""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass, field
from urllib.parse import unquote

from shared.errors import OperatorError

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_SQLITE = ("sqlite:///", "sqlite+aiosqlite:///", "sqlite+pysqlite:///")
_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_ATTRIBUTES = ("any", "read-write", "primary")
_TLS = (
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
_TO_DRIVER = (*_TLS, "passfile", "service", "krbsrvname", "gsslib")
_MEANS_NOTHING = (  # here: asyncpg can't set these, or we set them for every connection
    "channel_binding",
    "connection_limit",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "pool_timeout",
    "require_auth",
    "socket_timeout",
    "sslcertmode",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
)
_OURS = (
    "application_name",
    "client_encoding",
    "connect_timeout",
    "database",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "pgbouncer",
    "port",
    "prepared_statement_cache_size",
    "schema",
    "ssl",
    "sslmode",
    "statement_cache_size",
    "target_session_attrs",
    "user",
)
_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")
_EXPECTED = "expected sqlite:///<file> or postgresql://<user>:<password>@<host>/<database>"


class InvalidDatabaseUrl(OperatorError, ValueError):
    """A URL that names no database; the message shows what to write, in one line and without the password."""


@dataclass(frozen=True)
class SqliteUrl:
    path: str

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True)
class PostgresUrl:
    hosts: tuple[tuple[str, int | None], ...]  # a name, an address or a socket's directory; none: libpq's
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    tls_mode: str | None = None
    driver_options: dict[str, str] = field(default_factory=dict)  # as asyncpg takes them in a DSN
    application_name: str | None = None
    server_options: str | None = None  # `options`, without the search path
    schema: str | None = None
    connect_seconds: float | None = None  # for each host
    prepared_statements: bool | None = None  # None: not given
    ignored: tuple[str, ...] = ()  # names of options that mean nothing here

    def __str__(self) -> str:
        """Without the password."""
        hosts = ",".join(f"{host}:{port}" if port else host for host, port in self.hosts)
        return f"postgresql://{self.user or ''}@{hosts}/{self.database or ''}"


def parse_database_url(url: str) -> SqliteUrl | PostgresUrl:
    """Raises `InvalidDatabaseUrl`."""
    url = url.strip()
    if url.startswith("sqlite"):
        return _parse_sqlite(url)
    scheme, separator, rest = url.partition("://")
    if url.startswith("jdbc:"):
        raise InvalidDatabaseUrl(f"a JDBC URL; {_EXPECTED}")
    if not separator or scheme not in _SCHEMES:
        raise InvalidDatabaseUrl(_EXPECTED)
    return _parse_postgres(rest)


def is_schema_name(name: str) -> bool:
    return bool(_SCHEMA_NAME.fullmatch(name)) and not name.startswith("pg_")


def _parse_sqlite(url: str) -> SqliteUrl:
    prefix = next((prefix for prefix in _SQLITE if url.startswith(prefix)), None)
    if prefix is None:
        raise InvalidDatabaseUrl("expected sqlite:///orderbell.db, or sqlite:////var/lib/orderbell.db")
    path, _, options = url.removeprefix(prefix).partition("?")
    if options:
        raise InvalidDatabaseUrl("SQLite takes no options here: remove what follows the question mark")
    if not path:
        raise InvalidDatabaseUrl("the file is missing: sqlite:///orderbell.db")
    return SqliteUrl(path)


def _parse_postgres(rest: str) -> PostgresUrl:
    credentials, rest = _split_credentials(rest)
    hosts_text, path, query = _split_path(rest)
    options = _parse_options(query)
    user, password = _parse_credentials(credentials)
    hosts = _parse_hosts(hosts_text)
    if "host" in options or "hostaddr" in options or "port" in options:
        hosts = _hosts_of_options(options, hosts)
    search_path, server_options = _split_options(options.get("options"))
    return PostgresUrl(
        hosts=hosts,
        user=options.get("user", user),
        password=options.get("password", password),
        database=options.get("dbname", options.get("database", _decode(path, "the database's name") or None)),
        tls_mode=_tls_mode(options),
        driver_options={name: options[name] for name in _TO_DRIVER if name in options},
        application_name=options.get("application_name"),
        server_options=server_options,
        schema=_schema(options.get("schema"), search_path),
        connect_seconds=_seconds(options.get("connect_timeout")),
        prepared_statements=_prepared_statements(options),
        ignored=tuple(sorted(set(options) & set(_MEANS_NOTHING))),
    )


def _split_credentials(rest: str) -> tuple[str, str]:
    """libpq: credentials end at the first @, where no slash comes before it."""
    before, at, after = rest.partition("@")
    if not at:
        return "", rest
    if "/" in before:
        if "?" not in before:  # after a question mark it may be in an option: ?user=a@b
            raise InvalidDatabaseUrl("a / in the password is written as %2F, an @ in a name as %40")
        return "", rest
    return before, after


def _split_path(rest: str) -> tuple[str, str, str]:
    before, _, query = rest.partition("?")
    hosts, _, path = before.partition("/")
    if "@" in hosts:
        raise InvalidDatabaseUrl("an @ in the password: write it as %40")
    return hosts, path, query


def _parse_credentials(credentials: str) -> tuple[str | None, str | None]:
    user, colon, password = credentials.partition(":")
    return (
        _decode(user, "the user's name") or None,
        _decode(password, "the password") if colon and password else None,
    )


def _parse_hosts(text: str) -> tuple[tuple[str, int | None], ...]:
    return tuple(_parse_host(part) for part in text.split(",")) if text else ()


def _parse_host(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise InvalidDatabaseUrl("an IPv6 address is written as [::1]:5432")
        port = port[1:]
    elif text.count(":") > 1:
        raise InvalidDatabaseUrl("an IPv6 address is written as [::1]:5432")
    else:
        host, _, port = text.partition(":")
    return _decode(host, "the host's name"), _port(port)


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise InvalidDatabaseUrl(
            "the port is not a number from 1 to 65535; a / or @ in the password is written as %2F or %40"
        )
    return int(text)


def _hosts_of_options(
    options: dict[str, str], hosts: tuple[tuple[str, int | None], ...]
) -> tuple[tuple[str, int | None], ...]:
    names = (options.get("host") or options.get("hostaddr") or "").split(",")
    if names == [""]:
        names = [host for host, _ in hosts] or [""]
    ports = [_port(port) for port in options.get("port", "").split(",")]
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise InvalidDatabaseUrl(f"{len(ports)} ports for {len(names)} hosts")
    return tuple(zip(names, ports, strict=True)) if names != [""] else (("localhost", ports[0]),)


def _parse_options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidDatabaseUrl(f"an option without a value: {name[:32]!r}")
        name = _decode(name, "an option's name")
        known = (*_OURS, *_TO_DRIVER, *_MEANS_NOTHING)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InvalidDatabaseUrl(f"no such option: {name[:32]!r}{hint}")
        options[name] = _decode(value, f"the option {name}")  # a + is a plus, as for libpq
    if options.get("client_encoding", "utf8").lower().replace("-", "") not in ("utf8", "auto"):
        raise InvalidDatabaseUrl("client_encoding: only UTF8")
    _check_tls_options(options)
    attribute = options.get("target_session_attrs", "any")
    if attribute not in _ATTRIBUTES:
        raise InvalidDatabaseUrl(
            f"target_session_attrs={attribute[:32]}: the sender writes; use read-write, or leave it out"
        )
    return options


def _tls_mode(options: dict[str, str]) -> str | None:
    given = options.get("sslmode", options.get("ssl"))
    if given is None:
        return None
    mode = {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(given, given)
    if mode not in _TLS_MODES:
        raise InvalidDatabaseUrl(f"sslmode={given[:32]}: expected one of {', '.join(_TLS_MODES)}")
    return mode


def _check_tls_options(options: dict[str, str]) -> None:
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if options.get(name, _TLS_VERSIONS[0]) not in _TLS_VERSIONS:
            raise InvalidDatabaseUrl(
                f"{name}={options[name][:32]}: expected one of {', '.join(_TLS_VERSIONS)}"
            )
    if options.get("sslnegotiation", "postgres") not in ("postgres", "direct"):
        raise InvalidDatabaseUrl("sslnegotiation: expected postgres or direct")


def _split_options(options: str | None) -> tuple[str | None, str | None]:
    """The search path that `-c search_path=…` sets, and the rest."""
    if options is None:
        return None, None
    try:
        words = shlex.split(options)
    except ValueError:
        raise InvalidDatabaseUrl("options: a quotation mark is not closed") from None
    search_path, rest = None, []
    while words:
        word = words.pop(0)
        setting = words.pop(0) if word == "-c" and words else word.removeprefix("-c").removeprefix("--")
        name, _, value = setting.partition("=")
        if word.startswith("-") and name.replace("-", "_").lower() == "search_path":
            search_path = value
        else:
            rest += ["-c", setting] if word.startswith("-") else [word]
    # PostgreSQL splits them at spaces, and a backslash escapes the character behind it.
    return search_path, " ".join(re.sub(r"([\\ ])", r"\\\1", word) for word in rest) or None


def _schema(schema: str | None, search_path: str | None) -> str | None:
    if schema is None and search_path is not None:
        schema = search_path.split(",")[0].strip().strip('"')
    if schema is not None and not is_schema_name(schema):
        raise InvalidDatabaseUrl(f"not a schema name: {schema[:63]!r}")
    return schema


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,5}", text):
        raise InvalidDatabaseUrl("connect_timeout is not a number of seconds")
    return float(text) or None  # 0: no limit


def _prepared_statements(options: dict[str, str]) -> bool | None:
    if options.get("pgbouncer", "").lower() in ("true", "1"):
        return False
    sizes = [options.get(name) for name in ("statement_cache_size", "prepared_statement_cache_size")]
    return False if "0" in sizes else None


def _decode(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidDatabaseUrl(f"a lone % in {what}: write it as %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidDatabaseUrl(f"{what} is not UTF-8 in percent-encoding") from None
    if "\0" in decoded:
        raise InvalidDatabaseUrl(f"%00 in {what}")
    return decoded
