"""The database's URL as consoles print it, compared with libpq's own reading if libpq is installed."""

from __future__ import annotations

from typing import Any

import pytest

from shared.database_url import InvalidDatabaseUrl, PostgresUrl, SqliteUrl, parse_database_url

SECRET = "s3cr3t"


def postgres(url: str) -> PostgresUrl:
    parsed = parse_database_url(url)
    assert isinstance(parsed, PostgresUrl)
    return parsed


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///orderbell.db", "orderbell.db"),
        ("sqlite:////var/lib/orderbell.db", "/var/lib/orderbell.db"),
        ("sqlite+aiosqlite:///orderbell.db", "orderbell.db"),
    ],
)
def test_sqlite_names_a_file(url: str, path: str) -> None:
    assert parse_database_url(url) == SqliteUrl(path)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_each_scheme_of_postgresql_means_the_same(scheme: str) -> None:
    url = postgres(f"{scheme}://shop:{SECRET}@db.example:6543/orders")
    assert (url.hosts, url.user, url.password, url.database) == (
        (("db.example", 6543),),
        "shop",
        SECRET,
        "orders",
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # Heroku, Render, Railway
        ("postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1", {"database": "d1"}),
        # Neon
        (
            "postgresql://u:p@ep-a-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            {"tls_mode": "require", "ignored": ("channel_binding",)},
        ),
        (
            "postgres://u:p@ep.neon.tech/neondb?options=endpoint%3Dep-a&sslmode=require",
            {"server_options": "endpoint=ep-a"},
        ),
        # Supabase
        (
            "postgresql://postgres.abc:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
            {"user": "postgres.abc", "prepared_statements": False, "ignored": ("connection_limit",)},
        ),
        # RDS, Azure, DigitalOcean
        (
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/etc/rds/global-bundle.pem",
            {"tls_mode": "verify-full", "driver_options": {"sslrootcert": "/etc/rds/global-bundle.pem"}},
        ),
        (
            "postgresql://u:p@h/d?sslcert=/c.pem&sslkey=/k.pem",
            {"driver_options": {"sslcert": "/c.pem", "sslkey": "/k.pem"}},
        ),
        # Google Cloud SQL, a local socket
        ("postgresql://u:p@/d?host=/cloudsql/p:r:i", {"hosts": (("/cloudsql/p:r:i", None),)}),
        ("postgresql:///d?host=/var/run/postgresql", {"hosts": (("/var/run/postgresql", None),)}),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/d", {"hosts": (("/var/run/postgresql", None),)}),
        ("postgresql:///d", {"hosts": (), "user": None, "database": "d"}),
        ("postgresql://", {"hosts": (), "database": None}),
        # Several hosts
        (
            "postgresql://u:p@h1:5432,h2:5433,h3/d?target_session_attrs=read-write",
            {"hosts": (("h1", 5432), ("h2", 5433), ("h3", None))},
        ),
        ("postgresql://u@/d?host=h1,h2&port=1,2", {"hosts": (("h1", 1), ("h2", 2))}),
        ("postgresql://u@/d?host=h1,h2&port=7", {"hosts": (("h1", 7), ("h2", 7))}),
        ("postgresql://u@[::1]:5433/d", {"hosts": (("::1", 5433),)}),
        # Options
        ("postgresql://h/d?options=-csearch_path%3Dshop", {"schema": "shop", "server_options": None}),
        (
            "postgresql://h/d?options=-c%20search_path%3Dshop,public%20-c%20statement_timeout%3D5s",
            {"schema": "shop", "server_options": "-c statement_timeout=5s"},
        ),
        ("postgresql://h/d?schema=shop", {"schema": "shop"}),
        ("postgresql://h/d?connect_timeout=7&application_name=a%20b", {"connect_seconds": 7.0}),
        ("postgresql://h/d?ssl=true", {"tls_mode": "require"}),
        ("postgresql://h/d?prepared_statement_cache_size=0", {"prepared_statements": False}),
        ("postgresql://h/d?application_name=a+b", {"application_name": "a+b"}),
        (
            "postgresql://u@h/d?password=a%26b&user=v&dbname=e",
            {"password": "a&b", "user": "v", "database": "e"},
        ),
        # Characters that no URL has, as libpq takes them
        ("postgresql://u:p#x@h/d", {"password": "p#x", "hosts": (("h", None),)}),
        ("postgresql://u:p?x@h/d", {"password": "p?x"}),
        ("postgresql://u:p:x@h/d", {"password": "p:x"}),
        ("postgresql://u:p%40x%2F@h/d", {"password": "p@x/"}),
        ("postgresql://us%C3%A9r:p@h/d", {"user": "usér"}),
    ],
)
def test_url_means_what_it_means_to_libpq(url: str, expected: dict[str, Any]) -> None:
    parsed = postgres(url)
    assert {name: getattr(parsed, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://u:{SECRET}@x@h/d", "write it as %40"),
        (f"postgresql://u:{SECRET}/x@h/d", "%2F"),
        (f"postgresql://u:{SECRET}%x@h/d", "%25"),
        (f"postgresql://u:{SECRET}@h:port/d", "the port is not a number"),
        (f"postgresql://u:{SECRET}@h:99999/d", "the port is not a number"),
        (f"postgresql://u:{SECRET}@h/d?sslmod=require", "did you mean sslmode?"),
        (f"postgresql://u:{SECRET}@h/d?sslmode=no-verify", "expected one of disable, allow"),
        (f"postgresql://u:{SECRET}@h/d?target_session_attrs=standby", "the sender writes"),
        (f"postgresql://u:{SECRET}@h1,h2/d?target_session_attrs=prefer-standby", "the sender writes"),
        (f"postgresql://u:{SECRET}@h/d?target_session_attrs=read-only", "the sender writes"),
        (f"postgresql://u:{SECRET}@h/d?target_session_attrs=readwrite", "use read-write"),
        (f"postgresql://u:{SECRET}@h/d?ssl_min_protocol_version=TLSv9", "TLSv1.2"),
        (f"postgresql://u:{SECRET}@h/d?sslnegotiation=maybe", "postgres or direct"),
        (f"postgresql://u:{SECRET}@h/d?connect_timeout=soon", "not a number of seconds"),
        (f"postgresql://u:{SECRET}@h/d?client_encoding=latin1", "only UTF8"),
        (f"postgresql://u:{SECRET}@h/d?options=-csearch_path%3D%22a%20b%22", "not a schema name"),
        (f"postgresql://u:{SECRET}@h1,h2/d?port=1,2,3", "3 ports for 2 hosts"),
        (f"postgresql://u:{SECRET}@::1/d", "[::1]:5432"),
        (f"jdbc:postgresql://h/d?user=u&password={SECRET}", "a JDBC URL"),
        (f"mysql://u:{SECRET}@h/d", "expected sqlite:///<file> or postgresql://"),
        ("sqlite://x.db", "expected sqlite:///orderbell.db"),
        ("sqlite:///", "the file is missing"),
        ("sqlite:///x.db?mode=ro", "SQLite takes no options"),
        ("", "expected sqlite"),
    ],
)
def test_fault_says_in_one_line_what_to_write_and_never_the_password(url: str, says: str) -> None:
    with pytest.raises(InvalidDatabaseUrl) as fault:
        parse_database_url(url)
    text = str(fault.value)
    assert says in text
    assert "\n" not in text
    assert SECRET not in text


def test_password_is_in_no_text_of_a_parsed_url() -> None:
    url = postgres(f"postgresql://u:{SECRET}@h1:1,h2/d?sslmode=require")
    assert SECRET not in f"{url} {url!r}"
    assert str(url) == "postgresql://u@h1:1,h2/d"
