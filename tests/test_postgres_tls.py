"""TLS to a real PostgreSQL, with a private authority: what each `sslmode` proves, and client certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sender.database.errors import DatabaseError, DatabaseUnusable
from sender.database.open import open_database
from shared.settings import PREFIX
from tests import commands, postgres_servers
from tests.certificates import Certificates
from tests.postgres_servers import fresh_database
from tests.processes import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.postgres_servers import ClusterServer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

# The certificate is for localhost and 127.0.0.1 (tests/certificates.py), not for this address.
OTHER_ADDRESS = "127.0.0.2"
IN_CLEAR = "is not encrypted"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an authority that signed none of ours."""
    return Certificates.make(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def server(process_group: int, certificates: Certificates) -> Iterator[ClusterServer]:
    """Takes both kinds of connections; the role `encrypted` TLS alone, `client` its certificate alone."""
    cluster = postgres_servers.own_cluster()
    if cluster is None:
        pytest.skip(postgres_servers.NONE)
    with cluster.server(process_group, listen_addresses=f"127.0.0.1,{OTHER_ADDRESS}") as server:
        for name, source in (
            ("server.crt", certificates.server_cert),
            ("server.key", certificates.server_key),
            ("root.crt", certificates.ca),
        ):
            server.put_file(name, source.read_bytes())
        server.execute("ALTER SYSTEM SET ssl_ca_file = 'root.crt'")
        server.execute("ALTER SYSTEM SET ssl = on")
        server.execute("CREATE ROLE encrypted SUPERUSER LOGIN")
        server.execute("CREATE ROLE client SUPERUSER LOGIN")
        server.allow(
            "hostssl all encrypted samenet trust",
            "host all encrypted samenet reject",
            "hostssl all client samenet cert",
            "host all client samenet reject",
            "host all all samenet trust",
        )
        yield server


@pytest.fixture(scope="module")
def database(server: ClusterServer) -> Iterator[str]:
    """One for all: connections are what is looked at. Each role may do all there."""
    with fresh_database(server.url) as url:
        yield url.rpartition("/")[2]


def encryption(connection: Connection) -> str:
    """The protocol of this very connection, or `IN_CLEAR`."""
    found = connection.execute(text("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar()
    return str(found or IN_CLEAR)


async def outcome(url: str) -> str:
    """How the sender's connection is encrypted, or the line with which its process would end."""
    try:
        async with open_database(url) as database:
            await database.check()
            return await database.read(encryption)
    except (DatabaseUnusable, DatabaseError) as error:
        line = str(error)
        assert "\n" not in line
        return line


TLS = "TLSv1.3"


MODES = [
    # What is asked for, of a server that takes both
    ("orderbell", "127.0.0.1", "sslmode=disable", IN_CLEAR),
    ("orderbell", "127.0.0.1", "sslmode=allow", IN_CLEAR),
    ("orderbell", "127.0.0.1", "sslmode=prefer", TLS),
    ("orderbell", "127.0.0.1", "", TLS),
    ("orderbell", "127.0.0.1", "ssl=true", TLS),
    ("orderbell", "127.0.0.1", "sslmode=require", TLS),
    ("orderbell", OTHER_ADDRESS, "sslmode=require", TLS),
    ("encrypted", "127.0.0.1", "sslmode=allow", TLS),
    ("encrypted", "127.0.0.1", "sslmode=disable", "no encryption"),
    # Whether the authority is checked
    ("encrypted", "127.0.0.1", "sslmode=verify-ca&sslrootcert={ours}", TLS),
    ("encrypted", OTHER_ADDRESS, "sslmode=verify-ca&sslrootcert={ours}", TLS),
    ("encrypted", "127.0.0.1", "sslmode=verify-ca&sslrootcert={theirs}", "certificate verify failed"),
    ("encrypted", "127.0.0.1", "sslmode=verify-full&sslrootcert={theirs}", "certificate verify failed"),
    # As libpq: with a root certificate, `require` checks it, too
    ("encrypted", "127.0.0.1", "sslmode=require&sslrootcert={theirs}", "certificate verify failed"),
    ("encrypted", OTHER_ADDRESS, "sslmode=require&sslrootcert={ours}", TLS),
    ("encrypted", "127.0.0.1", "sslmode=verify-full&sslrootcert=system", "certificate verify failed"),
    ("encrypted", "127.0.0.1", "sslrootcert=system", "certificate verify failed"),
    ("encrypted", "127.0.0.1", "sslmode=require&sslrootcert=system", "certificate verify failed"),
    # Whether the name is checked
    ("encrypted", "127.0.0.1", "sslmode=verify-full&sslrootcert={ours}", TLS),
    ("encrypted", "localhost", "sslmode=verify-full&sslrootcert={ours}", TLS),
    ("encrypted", OTHER_ADDRESS, "sslmode=verify-full&sslrootcert={ours}", "127.0.0.2"),
    # The client's certificate
    ("client", "127.0.0.1", "sslmode=verify-full&sslrootcert={ours}&sslcert={cert}&sslkey={key}", TLS),
    ("client", "127.0.0.1", "sslmode=require&sslcert={cert}&sslkey={key}", TLS),
    ("client", "127.0.0.1", "sslmode=require&sslcert={cert}&sslkey={locked}&sslpassword={password}", TLS),
    ("client", "127.0.0.1", "sslmode=require&sslcert={cert}&sslkey={locked}", "sslpassword is missing"),
    ("client", "127.0.0.1", "sslmode=require&sslcert={cert}&sslkey={locked}&sslpassword=no", "or wrong"),
    ("client", "127.0.0.1", "sslmode=require&sslcert={cert}&sslkey={other_key}", "is not the key of"),
    ("client", "127.0.0.1", "sslmode=require", "certificate"),
    ("client", "127.0.0.1", "sslmode=require&sslcert={other_cert}&sslkey={other_key}", " ca|closed"),
    # Versions
    ("encrypted", "127.0.0.1", "sslmode=require&ssl_max_protocol_version=TLSv1.2", "TLSv1.2"),
    ("encrypted", "127.0.0.1", "sslmode=require&ssl_min_protocol_version=TLSv1.3", TLS),
    # Files that are not what they should be
    ("encrypted", "127.0.0.1", "sslmode=verify-ca&sslrootcert={key}", "sslrootcert"),
    ("encrypted", "127.0.0.1", "sslmode=require&sslcert={ours}&sslkey={ours}", "sslkey=|not in PEM"),
]  # fmt: skip
# One of each kind; all others are long.
QUICK = [
    ("orderbell", "127.0.0.1", "", TLS),
    ("encrypted", "127.0.0.1", "sslmode=verify-full&sslrootcert={ours}", TLS),
    ("encrypted", "127.0.0.1", "sslmode=verify-full&sslrootcert={theirs}", "certificate verify failed"),
    ("encrypted", OTHER_ADDRESS, "sslmode=verify-full&sslrootcert={ours}", "127.0.0.2"),
]


@pytest.mark.parametrize(
    ("role", "host", "query", "expected"),
    [mode if mode in QUICK else pytest.param(*mode, marks=pytest.mark.long) for mode in MODES],
)
async def test_each_mode_proves_what_it_promises(
    server: ClusterServer,
    database: str,
    certificates: Certificates,
    strangers: Certificates,
    role: str,
    host: str,
    query: str,
    expected: str,
) -> None:
    filled = query.format(
        ours=certificates.ca,
        theirs=strangers.ca,
        cert=certificates.client_cert,
        key=certificates.client_key,
        locked=certificates.locked_key,
        password=Certificates.PASSWORD,
        other_cert=strangers.client_cert,
        other_key=strangers.client_key,
    )
    found = await outcome(f"postgresql://{role}@{host}:{server.port}/{database}?{filled}")
    assert any(part in found for part in expected.split("|")), found
    assert Certificates.PASSWORD not in found


async def test_authority_of_the_system_is_what_openssl_is_given(
    server: ClusterServer, database: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    url = f"postgresql://encrypted@HOST:{server.port}/{database}?sslmode=verify-full&sslrootcert=system"
    assert await outcome(url.replace("HOST", "localhost")) == TLS
    assert OTHER_ADDRESS in await outcome(url.replace("HOST", OTHER_ADDRESS))


async def test_variables_of_libpq_count_where_the_url_is_silent(
    server: ClusterServer, database: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(certificates.ca))
    assert await outcome(f"postgresql://encrypted@localhost:{server.port}/{database}") == TLS
    assert OTHER_ADDRESS in await outcome(f"postgresql://encrypted@{OTHER_ADDRESS}:{server.port}/{database}")


def test_process_that_cannot_verify_its_server_ends_with_one_line_and_code_2(
    server: ClusterServer, strangers: Certificates
) -> None:
    url = f"postgresql://encrypted:s3cr3t-of-nobody@127.0.0.1:{server.port}/postgres"
    environment = clean_environment() | {
        f"{PREFIX}DATABASE_URL": f"{url}?sslmode=verify-full&sslrootcert={strangers.ca}",
        f"{PREFIX}API_KEYS": "a-key-for-tests-only",
    }
    ended = commands.run("sender", "--port", "0", environment=environment)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("orderbell: ORDERBELL_DATABASE_URL: ")
    assert "certificate verify failed" in lines[0]
    assert "s3cr3t" not in ended.stdout + ended.stderr
