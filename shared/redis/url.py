"""What `ORDERBELL_REDIS_URL` names: one server, the primary that sentinels know, or a cluster.

    redis://[user:password@]host[:port][/database]                        one server
    unix://[user:password@]/path[?db=database]
    redis+sentinel://[user:password@]host[:port],…/service[/database]     the sentinels, and what they watch
    redis+cluster://[user:password@]host[:port],…                         some of the cluster's nodes

`rediss` in place of `redis` is TLS, to sentinels too; `valkey` and `valkeys` mean the same as `redis` and
`rediss`. User and password are those of the servers; sentinels have their own in `?sentinel_password=` and
`&sentinel_user=`. Every other option is in `_OPTIONS`. An unknown option is a fault, because redis-py would
notice it only at the first connection, or never.

Messages quote no part that may belong to a password.
"""

from __future__ import annotations

import enum
import ssl
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from shared.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable

_SENTINEL_PORT = 26379
_SERVER_PORT = 6379
_FORMS = (
    "expected redis://, rediss:// or unix://, redis+sentinel://host:26379,host2:26379/service"
    " or redis+cluster://host:6379,host2:6379"
)
_ENCODE = "percent-encode what is special in user and password, as %40 for @, %2F for / and %23 for #"


class InvalidRedisUrl(OperatorError, ValueError):
    """All faults of one URL. The message quotes no password."""


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
    addresses: tuple[Address, ...] = ()  # of the server, the sentinels, or some nodes
    path: str = ""  # of a Unix socket, in place of an address; as in a URL
    service: str = ""
    db: int = 0
    tls: bool = False
    credentials: str = ""  # as in a URL, with its @
    sentinel_credentials: str = ""
    options: str = ""  # a query

    def server(self, address: Address | None = None) -> str:
        """The URL of one server for redis-py; without an address, that of the named server."""
        if self.path:
            query = "&".join(filter(None, (f"db={self.db}", self.options)))
            return f"unix://{self.credentials}{self.path}?{query}"
        return self._of(self.credentials, address or self.addresses[0], f"/{self.db}")

    def sentinel(self, address: Address) -> str:
        return self._of(self.sentinel_credentials, address, "")

    def __str__(self) -> str:
        """For display: without passwords."""
        return shown(self.text)

    def _of(self, credentials: str, address: Address, path: str) -> str:
        query = f"?{self.options}" if self.options else ""
        return f"{'rediss' if self.tls else 'redis'}://{credentials}{address}{path}{query}"


def shown(url: str) -> str:
    """Any URL without what may be secret, percent-encoded or not."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0]
    if "@" in rest and "@" not in place:
        return f"{scheme}://…"  # the password may have a question mark, or be in the query
    return f"{scheme}://{place.rpartition('@')[2]}"


def check_redis_url(text: str) -> None:
    """As `parse_redis_url`; and whether its certificates and keys can be used. Raises `InvalidRedisUrl`."""
    url = parse_redis_url(text)
    options = dict(parse_qsl(url.options))
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options:
            _check_readable(name, options[name])
    context = ssl.SSLContext(
        ssl.PROTOCOL_TLS_CLIENT
    )  # without the system's certificates: reading them takes 30 ms
    try:
        if "ssl_ca_certs" in options or "ssl_ca_path" in options:
            context.load_verify_locations(options.get("ssl_ca_certs"), options.get("ssl_ca_path"))
    except (OSError, ssl.SSLError):
        raise InvalidRedisUrl(
            "ssl_ca_certs, ssl_ca_path: not a certificate authority's certificates"
        ) from None
    if "ssl_certfile" in options:
        # A callable, so that OpenSSL does not ask for a password on the terminal.
        password = options.get("ssl_password", "")
        try:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), lambda: password)
        except (OSError, ValueError):
            raise InvalidRedisUrl(
                "ssl_certfile, ssl_keyfile: not a certificate and its key, or ssl_password does not open it"
            ) from None


def parse_redis_url(text: str) -> RedisUrl:
    """Raises `InvalidRedisUrl`."""
    scheme, separator, rest = text.strip().partition("://")
    family, plus, kind = scheme.lower().replace("valkey", "redis", 1).partition("+")
    if not separator or family not in ("redis", "rediss", "unix") or (family == "unix" and plus):
        raise InvalidRedisUrl(_FORMS)
    if plus and kind not in ("sentinel", "cluster"):
        raise InvalidRedisUrl(_FORMS)
    if any(character.isspace() for character in rest):
        raise InvalidRedisUrl("it contains a space")
    before_query, _, query = rest.partition("?")
    if "@" in query or "#" in rest:
        # The text before it belongs to a password, and would be quoted as a host or an option.
        raise InvalidRedisUrl(_ENCODE)
    parts = _Parts(text, before_query, query, tls=family == "rediss")
    url = _parse_unix(parts) if family == "unix" else _parse_hosts(parts, Kind[kind.upper() or "SERVER"])
    if parts.faults:
        raise InvalidRedisUrl("; ".join(parts.faults))
    return url


class _Parts:
    """A URL while it is parsed."""

    def __init__(self, text: str, before_query: str, query: str, *, tls: bool) -> None:
        self.text = text
        self.tls = tls
        self.faults: list[str] = []
        self.authority, _, self.path = before_query.partition("/")
        self.credentials, self.at, self.hosts = self.authority.rpartition("@")
        self.options = self._options(query)
        if "@" in self.path:
            self.faults.append(_ENCODE)

    def take(self, name: str) -> str:
        return self.options.pop(name, "")

    def query(self) -> str:
        """The remaining options, each of them checked."""
        for name, value in self.options.items():
            check = _OPTIONS.get(name)
            if check is None:
                self.faults.append(f"no such option: {name[:40]}{_HINTS.get(name, '')}; {_KNOWN}")
            elif name.startswith("ssl_") and not self.tls:
                self.faults.append(f"{name} needs rediss://")
            elif fault := check(value):
                self.faults.append(f"{name} {fault}")
        if "ssl_keyfile" in self.options and "ssl_certfile" not in self.options:
            self.faults.append("ssl_keyfile needs ssl_certfile")
        return urlencode({name: _AS_REDIS_PY.get(name, str)(value) for name, value in self.options.items()})

    def database(self, text: str, *, none_but_0: bool = False) -> int:
        """From the path, or from `?db=`."""
        option = self.take("db")
        if text and option and text != option:
            self.faults.append("two database numbers: one in the path, one in ?db=")
        number = text or option or "0"
        if not (number.isascii() and number.isdecimal() and len(number) <= 9):
            # The path may be the end of a password that contains a slash.
            self.faults.append(
                "not a database number after the host; expected 0, 1, 2 … as in redis://host:6379/0"
            )
        elif none_but_0 and int(number):
            self.faults.append("a cluster has database 0 alone")
        else:
            return int(number)
        return 0

    def _options(self, query: str) -> dict[str, str]:
        pairs = parse_qsl(query, keep_blank_values=True)
        options = dict(pairs)
        if len(options) < len(pairs):
            self.faults.append("an option is set twice")
        return options


def _parse_unix(parts: _Parts) -> RedisUrl:
    if parts.hosts or not parts.path:
        parts.faults.append("expected unix:///path, with three slashes")
    db = parts.database("")
    return RedisUrl(
        parts.text,
        Kind.SERVER,
        path=f"/{parts.path}",
        db=db,
        credentials=parts.credentials + parts.at,
        options=parts.query(),
    )


def _parse_hosts(parts: _Parts, kind: Kind) -> RedisUrl:
    default_port = _SENTINEL_PORT if kind is Kind.SENTINEL else _SERVER_PORT
    if kind is Kind.SERVER and "," in parts.hosts:
        parts.faults.append("several hosts need redis+sentinel:// or redis+cluster://")
    addresses = _addresses(parts.hosts, default_port, parts.faults)
    service, _, path = parts.path.partition("/") if kind is Kind.SENTINEL else ("", "", parts.path)
    if kind is Kind.SENTINEL and not service:
        parts.faults.append("the service is missing: the sentinels' name for it, as in /mymaster")
    db = parts.database(path, none_but_0=kind is Kind.CLUSTER)
    user, password = parts.take("sentinel_user"), parts.take("sentinel_password")
    if (user or password) and kind is not Kind.SENTINEL:
        what = "a cluster" if kind is Kind.CLUSTER else "a single server"
        parts.faults.append(f"{what} has no sentinels")
    elif user and not password:
        parts.faults.append("sentinel_user needs sentinel_password")
    return RedisUrl(
        parts.text,
        kind,
        addresses,
        "",
        unquote(service),
        db,
        parts.tls,
        parts.credentials + parts.at,
        f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else "",
        parts.query(),
    )


def _addresses(hosts: str, default_port: int, faults: list[str]) -> tuple[Address, ...]:
    """An invalid address is numbered, not quoted: it may be part of a password that contains a slash."""
    parts = hosts.split(",")
    which = [f"host {n} of {len(parts)}" if len(parts) > 1 else "the host" for n, _ in enumerate(parts, 1)]
    found = [_address(part, default_port, name, faults) for part, name in zip(parts, which, strict=True)]
    return tuple(filter(None, found))


def _address(text: str, default_port: int, which: str, faults: list[str]) -> Address | None:
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname:
            faults.append(f"{which} is missing")
        elif parts.port == 0:
            faults.append(f"{which} has the port 0")
        else:
            return Address(unquote(parts.hostname), parts.port or default_port)
    except ValueError:
        faults.append(f"{which} is not an address, or its port is not from 1 to 65535; {_ENCODE}")
    return None


def _is_seconds(value: str) -> str:
    try:
        return "" if 0 < float(value) <= 3600 else "must be a number of seconds above 0"
    except ValueError:
        return "must be a number of seconds above 0"


def _is_one_of(*values: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        return "" if value.lower() in values else f"must be one of {', '.join(values)}"

    return check


def _is_given(value: str) -> str:
    return "" if value else "is empty"


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidRedisUrl(f"{name}: cannot read {path}: {error.strerror}") from None


# The options, each with the check of its value.
_OPTIONS: dict[str, Callable[[str], str]] = {
    "socket_timeout": _is_seconds,
    "socket_connect_timeout": _is_seconds,
    "ssl_ca_certs": _is_given,
    "ssl_ca_path": _is_given,
    "ssl_certfile": _is_given,
    "ssl_keyfile": _is_given,
    "ssl_password": _is_given,
    "ssl_cert_reqs": _is_one_of(
        "required", "optional", "none", "cert_required", "cert_optional", "cert_none"
    ),
    "ssl_check_hostname": _is_one_of("true", "false", "1", "0", "yes", "no"),
    "ssl_min_version": _is_one_of("tlsv1.2", "tlsv1.3", "771", "772"),
    "ssl_ciphers": _is_given,
}
_AS_REDIS_PY: dict[str, Callable[[str], str]] = {
    "ssl_cert_reqs": lambda value: value.lower().removeprefix("cert_"),
    "ssl_min_version": lambda value: {"tlsv1.2": "771", "tlsv1.3": "772"}.get(value.lower(), value),
}
_KNOWN = f"known are db, sentinel_user, sentinel_password, {', '.join(_OPTIONS)}"
_HINTS = dict.fromkeys(("ssl", "tls"), " (TLS is rediss:// in place of redis://)")
