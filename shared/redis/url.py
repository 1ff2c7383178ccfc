"""What `ORDERBELL_REDIS_URL` names: one server, the primary that sentinels know, or a cluster.

    redis://[user:password@]host[:port][/db]                            one server
    unix://[user:password@]/path
    redis+sentinel://[user:password@]host[:port],…/service[/db]         the sentinels, and what they watch
    redis+cluster://[user:password@]host[:port],…                       some of the cluster's nodes

`rediss` in place of `redis` is TLS, to sentinels too; options as `?ssl_ca_certs=/path` are redis-py's.
User and password are those of the servers; sentinels that want one have `?sentinel_password=`, and
`&sentinel_user=` with it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

_SENTINEL_PORT = 26379
_SERVER_PORT = 6379
_FORMS = (
    "expected redis://, rediss:// or unix://, redis+sentinel://host:26379,host2:26379/service"
    " or redis+cluster://host:6379,host2:6379"
)


class InvalidRedisUrl(ValueError):
    """Every fault of one URL. It quotes no password."""


class Kind(enum.Enum):
    SERVER = enum.auto()
    SENTINEL = enum.auto()
    CLUSTER = enum.auto()


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RedisUrl(NamedTuple):
    text: str
    kind: Kind
    addresses: tuple[Address, ...] = ()  # of the sentinels, or of some nodes
    service: str = ""
    db: int = 0
    tls: bool = False
    credentials: str = ""  # as in a URL, with its @
    sentinel_credentials: str = ""
    options: str = ""  # a query

    def server(self, address: Address) -> str:
        """The URL of one server, as redis-py takes it."""
        return self._of(self.credentials, address, f"/{self.db}")

    def sentinel(self, address: Address) -> str:
        return self._of(self.sentinel_credentials, address, "")

    def __str__(self) -> str:
        """To be shown: without passwords."""
        return shown(self.text)

    def _of(self, credentials: str, address: Address, path: str) -> str:
        query = f"?{self.options}" if self.options else ""
        return f"{'rediss' if self.tls else 'redis'}://{credentials}{address}{path}{query}"


def shown(url: str) -> str:
    """Any URL without what may be secret, percent-encoded or not."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0]
    if "@" in rest and "@" not in place:
        return f"{scheme}://…"  # a question mark in a password, or a password in the query
    return f"{scheme}://{place.rpartition('@')[2]}"


def parse_redis_url(text: str) -> RedisUrl:
    """Raises `InvalidRedisUrl`."""
    scheme, _, rest = text.partition("://")
    family, _, kind = scheme.partition("+")
    if family in ("redis", "rediss") and kind in ("sentinel", "cluster"):
        return _parse_many(text, rest, Kind[kind.upper()], tls=family == "rediss")
    if scheme not in ("redis", "rediss", "unix"):
        raise InvalidRedisUrl(_FORMS)
    return _parse_server(text)


def _parse_server(text: str) -> RedisUrl:
    if text.startswith("unix"):
        return RedisUrl(text, Kind.SERVER)
    faults: list[str] = []
    _address(text.partition("://")[2].partition("/")[0].rpartition("@")[2], _SERVER_PORT, "the host", faults)
    if faults:
        raise InvalidRedisUrl(faults[0])
    return RedisUrl(text, Kind.SERVER)


def _parse_many(text: str, rest: str, kind: Kind, *, tls: bool) -> RedisUrl:
    before_query, _, query = rest.partition("?")
    authority, _, path = before_query.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    if "@" in path or ("@" in query and not at):
        # What stands before it is part of a password, and would be told as a host or a service.
        raise InvalidRedisUrl("percent-encode what is special in user and password")
    faults: list[str] = []
    addresses = _addresses(hosts, _SENTINEL_PORT if kind is Kind.SENTINEL else _SERVER_PORT, faults)
    service, db = _service_and_db(path, kind, faults)
    options = dict(parse_qsl(query))
    user, password = options.pop("sentinel_user", ""), options.pop("sentinel_password", "")
    if kind is Kind.CLUSTER and (user or password):
        faults.append("a cluster has no sentinels")
    elif user and not password:
        faults.append("sentinel_user needs sentinel_password")
    unknown = [name for name in options if not name.startswith("ssl_")]
    faults += [
        f"no such option: {name}; there are sentinel_user, sentinel_password, ssl_…" for name in unknown
    ]
    if faults:
        raise InvalidRedisUrl("; ".join(faults))
    return RedisUrl(
        text,
        kind,
        addresses,
        service,
        db,
        tls,
        credentials + at,
        f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else "",
        urlencode(options),
    )


def _addresses(hosts: str, default_port: int, faults: list[str]) -> tuple[Address, ...]:
    """What is no address is counted, not quoted: it may be half of a password with a slash in it."""
    parts = hosts.split(",")
    which = [f"host {n} of {len(parts)}" if len(parts) > 1 else "the host" for n, _ in enumerate(parts, 1)]
    found = [_address(part, default_port, name, faults) for part, name in zip(parts, which, strict=True)]
    return tuple(filter(None, found))


def _address(text: str, default_port: int, which: str, faults: list[str]) -> Address | None:
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname:
            faults.append(f"{which} is missing")
        elif parts.port != 0:
            return Address(parts.hostname, parts.port or default_port)
        else:
            faults.append(f"{which} has no port that can be")
    except ValueError:
        faults.append(f"{which} has no port that can be, or is no address; percent-encode what is special")
    return None


def _service_and_db(path: str, kind: Kind, faults: list[str]) -> tuple[str, int]:
    service, _, db = path.partition("/") if kind is Kind.SENTINEL else ("", "", path)
    if kind is Kind.SENTINEL and not service:
        faults.append("the service is missing: what the sentinels call it, as in /mymaster")
    if db and not (db.isascii() and db.isdecimal()):
        faults.append(f"{db!r} is no number of a database")
    elif kind is Kind.CLUSTER and int(db or 0):
        faults.append("a cluster has database 0 alone")
    else:
        return service, int(db or 0)
    return service, 0
