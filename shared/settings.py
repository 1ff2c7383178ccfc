"""Settings: environment variables that start with `ORDERBELL_`, read once at start.

A secret may also be given as a file: `ORDERBELL_API_KEYS_FILE=/run/secrets/api_keys`. What surrounds a value
(spaces, line ends, the byte order mark that Windows' editors write) never counts, in a file or in a variable.
Quotation marks around it are a fault: Docker's `--env-file` keeps them, and a key with them opens nothing.
`load` reports every fault at once and ends the process with 2.

What Kubernetes and Docker's links set for a service whose name begins with `orderbell`
(`ORDERBELL_PORT=tcp://…`) is ignored; any other name with our prefix that is not a setting is a fault, or a
typing error would be a silent default.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
import re
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AnyUrl,
    Field,
    SecretStr,
    UrlConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.api_keys import ApiKey
from shared.database_url import SqliteUrl, is_schema_name, parse_database_url
from shared.durations import parse_durations
from shared.errors import OperatorError
from shared.loopback import is_loopback
from shared.origins import InvalidOrigin, parse_pattern
from shared.process.listening import split_address
from shared.redis.signatures import LiveKey
from shared.redis.url import check_redis_url
from shared.tls import tls_to_sender
from shared.webhook_secrets import parse_webhook_secret

if TYPE_CHECKING:
    from ssl import SSLContext

PREFIX = "ORDERBELL_"
_FOR_TESTS = PREFIX + "TEST_"  # read by our tests alone
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})  # what pydantic accepts for true
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables and
# https://docs.docker.com/engine/network/links/#environment-variables
_SERVICE_LINK = re.compile(
    r"ORDERBELL(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|ADDR|START|END|PORT|PORT_START|PORT_END))?)"
)
# These only with such a value.
_LINK_VALUES = (
    (re.compile(r"ORDERBELL(_[A-Z0-9_]+)?_PORT"), re.compile(r"[a-z]+://.*")),
    (re.compile(r"ORDERBELL(_[A-Z0-9_]+)?_NAME"), re.compile(r"/.+/.+")),
    (re.compile(r"ORDERBELL(_[A-Z0-9_]+)?_ENV_.+"), re.compile(r".*", re.DOTALL)),
)
WEBHOOK_EVENTS = ("alert.shown", "alert.read", "alert.not_shown_in")
_MIN_KEY_CHARACTERS = 16
_MIN_SECRET_BYTES = 32  # RFC 7518 3.2: a key for HS256 has at least 256 bits

HttpUrl = Annotated[AnyUrl, UrlConstraints(allowed_schemes=["http", "https"], host_required=True)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


_OTLP = "opentelemetry.exporter.otlp.proto.http"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False


class _OfEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FileSource(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: Any) -> Any:
        return _cleaned(values) if isinstance(values, dict) else values


class Settings(_OfEnvironment):
    """What sender and receiver both need."""

    redis_url: str = "redis://localhost:6379/0"
    key_prefix: str = Field("ob", pattern=r"^[A-Za-z0-9_.-]{1,32}$")
    # Several, so that one can be replaced without a pause. A caller uses `api_key`, which comes first.
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode]
    api_key: SecretStr | None = None
    # `<id>:<secret>` each; what Redis carries is signed with the first, and must be signed with any of them.
    live_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    development: bool = False  # sign-in by name alone; refuses to listen beyond loopback
    traces: bool = False  # by OpenTelemetry, see shared/process/tracing.py
    spring_compat: bool = False  # replace two Spring applications, open to anybody; docs/from-spring.md
    forwarded_allow_ips: CommaSeparated = ("127.0.0.1", "::1")  # proxies whose X-Forwarded-For counts
    keep_alive_seconds: float = Field(130, ge=1, le=3600)  # above nginx 60, ALB 60, Traefik 90, Caddy 120
    ready_delay_seconds: float = Field(
        0, ge=0, le=300
    )  # /readyz reports draining for so long before we drain
    metrics_listen: str | None = None  # `host:port` for /metrics; then it is nowhere else
    hsts_seconds: int = Field(31_536_000, ge=0, le=315_360_000)  # of answers over TLS, RFC 6797; 0 sends none
    root_path: str = ""  # where a proxy serves us, such as /alerts; removed where the proxy has not done so

    @field_validator(
        "api_keys",
        "live_keys",
        "jwt_secrets",
        "allowed_origins",
        "allowed_hosts",
        "forwarded_allow_ips",
        "webhook_secrets",
        "webhook_events",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _split_list(cls, value: object) -> object:
        """Split at commas, and at line ends, since files often have one a line."""
        return _parts(value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = _cleaned(values)  # `_trim` may come after this
        if (key := values.get("api_key")) and not isinstance(key, _Unusable):
            keys = values.get("api_keys", ())
            if not isinstance(keys, _Unusable):
                values["api_keys"] = (key, *(_parts(keys) if isinstance(keys, str) else keys))
        return values

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not keys:
            raise ValueError("expected at least one key")
        known = [key if isinstance(key, ApiKey) else ApiKey.parse(key.get_secret_value()) for key in keys]
        texts = [key.get_secret_value() for key in known]
        short = [len(key) < _MIN_KEY_CHARACTERS for key in texts]
        unseen = [not (key.isascii() and key.isprintable()) or " " in key for key in texts]
        faults = {"needs at least 16 characters": short, "may have only visible ASCII characters": unseen}
        if lines := [f"{_which(found)}a key {rule}" for rule, found in faults.items() if any(found)]:
            raise ValueError(f"{'; '.join(lines)}; `openssl rand -hex 32` makes one")
        if len({key.name for key in known if key.name}) < len([key for key in known if key.name]):
            raise ValueError("two keys have the same name")
        return tuple({key.get_secret_value(): key for key in known}.values())  # each once

    @field_validator("traces")
    @classmethod
    def _check_traces(cls, traces: bool) -> bool:
        exporter = () if os.environ.get("OTEL_TRACES_EXPORTER") == "console" else (_OTLP,)
        if traces and any(not _is_installed(name) for name in ("opentelemetry.sdk", *exporter)):
            raise ValueError("OpenTelemetry is not installed here: pip install 'orderbell[traces]'")
        return traces

    @field_validator("live_keys")
    @classmethod
    def _check_live_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        ids = [LiveKey.parse(key.get_secret_value()).id for key in keys]
        if twice := next((id for id in ids if ids.count(id) > 1), None):
            raise ValueError(f"two keys have the id {twice}")
        return keys

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str) -> str:
        check_redis_url(url)
        return url.strip()

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _refuse_any_proxy(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in addresses:
            raise ValueError("'*' would trust any client's X-Forwarded-For; name the proxies")
        for address in addresses:
            try:
                ip_network(address)
            except ValueError:  # it would be compared as it stands, and no client's address is spelt so
                raise ValueError(f"expected addresses and networks, as 10.0.0.0/8, not {address!r}") from None
        return addresses

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _ignore_case(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        return value.upper() if info.field_name == "log_level" else value.lower()

    @field_validator("metrics_listen")
    @classmethod
    def _check_metrics_listen(cls, address: str | None) -> str | None:
        if address is not None:
            split_address(address)
        return address

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.rstrip("/")
        segments = path.split("/")
        if path and (not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) or {".", ".."} & set(segments)):
            raise ValueError("expected a path such as /alerts, made of letters, digits and ._~-")
        return path


class DatabaseSettings(_OfEnvironment):
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


class SenderSettings(DatabaseSettings, Settings):
    history_days: float = Field(7, ge=0.001, le=3650)  # at least a minute and a half
    # Of each API key, at each sender; a burst may be as large.
    requests_per_minute: int = Field(600_000, ge=1, le=10_000_000)
    # How long a revocation is kept: longer than any token lives, or a revoked token is accepted again.
    revocation_days: float = Field(30, ge=0.001, le=3650)
    orders_days: float | None = Field(None, ge=0.001, le=3650)  # after their completion; None: for ever
    # By type of event, where its caller says nothing: order.completed=3d,menu.changed=2h
    expire_after: str = ""
    pop_up_for: str = ""
    # Reports to the shop's own server of what became of alerts; docs/webhooks.md.
    webhook_url: HttpUrl | None = None
    # `whsec_…` each; a message is signed with all of them, so that one can be replaced without a pause.
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field((), validate_default=True)
    webhook_events: CommaSeparated = WEBHOOK_EVENTS
    # After how long an alert that no device has shown is reported.
    webhook_not_shown_seconds: float = Field(300, ge=1, le=7 * 86_400, validate_default=True)

    @field_validator("webhook_url", mode="before")
    @classmethod
    def _check_webhook_url(cls, url: object, info: ValidationInfo) -> object:
        if not isinstance(url, str):
            return url
        _check_http_url(url, query=True)  # raises ValueError
        parts = urlsplit(url)
        is_safe = parts.scheme.lower() == "https" or is_loopback(parts.hostname)
        if not is_safe and not info.data.get("development"):
            raise ValueError("expected https://…: what is reported names customers")
        return url

    @field_validator("webhook_secrets")
    @classmethod
    def _check_webhook_secrets(
        cls, secrets: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        for secret in secrets:
            parse_webhook_secret(secret.get_secret_value())  # raises ValueError
        if info.data.get("webhook_url") is not None and not secrets:
            raise ValueError(f"missing: what goes to {PREFIX}WEBHOOK_URL has to be signed")
        return tuple({secret.get_secret_value(): secret for secret in secrets}.values())  # each once

    @field_validator("webhook_events")
    @classmethod
    def _check_webhook_events(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in WEBHOOK_EVENTS]:
            raise ValueError(f"expected some of {', '.join(WEBHOOK_EVENTS)}, not {unknown[0][:80]!r}")
        if not names:
            raise ValueError(f"expected some of {', '.join(WEBHOOK_EVENTS)}")
        return names

    @field_validator("webhook_not_shown_seconds")
    @classmethod
    def _check_not_shown(cls, seconds: float, info: ValidationInfo) -> float:
        reported = "alert.not_shown_in" in info.data.get("webhook_events", ())
        if info.data.get("webhook_url") is None or not reported:
            return seconds
        if seconds >= info.data.get("history_days", math.inf) * 86_400:
            raise ValueError(f"expected less than {PREFIX}HISTORY_DAYS: the alert must still be there")
        return seconds

    @field_validator("expire_after", "pop_up_for")
    @classmethod
    def _check_durations(cls, text: str) -> str:
        parse_durations(text)
        return text


class SenderAddress(_OfEnvironment):
    """Where the sender is, for everything that asks it."""

    sender_url: HttpUrl = AnyUrl("http://127.0.0.1:8090")
    sender_ca: str | None = None  # certificates, PEM: of the only authority that vouches for the sender

    @property
    def tls(self) -> SSLContext:
        return tls_to_sender(self.sender_ca)

    @field_validator("sender_url", mode="before")
    @classmethod
    def _check_sender_url(cls, url: object) -> object:
        if isinstance(url, str):
            _check_http_url(url, query=False)  # raises ValueError
        return url

    @field_validator("sender_ca")
    @classmethod
    def _check_sender_ca(cls, authority: str | None) -> str | None:
        if authority is not None:
            tls_to_sender(authority)  # raises ValueError
        return authority

    @model_validator(mode="after")
    def _check_that_it_counts(self) -> Self:
        if self.sender_ca is not None and self.sender_url.scheme != "https":
            raise ValueError(f"{PREFIX}SENDER_CA needs an {PREFIX}SENDER_URL with https://")
        return self


class ReceiverSettings(SenderAddress, Settings):
    # After how long alerts that no device has shown are offered again; 0: never.
    ring_again_seconds: float = Field(0, ge=0, le=86_400)
    jwt_secret: SecretStr | None = None  # HS256
    jwt_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()  # several, while one replaces another
    jwks_url: HttpUrl | None = None  # RS256, ES256, EdDSA
    jwt_audience: str = "orderbell"  # several with commas: a token for one of them will do
    jwt_audience_claim: str = "aud"  # `azp` or `client_id` where an issuer's access tokens have no `aud`
    jwt_customer_claim: str = "sub"
    jwt_topics_claim: str = "topics"
    jwt_issuer: str | None = None
    jwt_cookie: str = "orderbell_token"  # the cookie that may carry the token
    allowed_origins: CommaSeparated = ()  # beside our own; also `https://*.shop.example`
    drain_seconds: float = Field(10, ge=0, le=600)
    canary_seconds: float = Field(0, ge=0, le=3600)  # between two of a gateway's own events; 0: none
    heartbeat_seconds: float = Field(20, ge=1, le=300)  # below the 60 s after which common proxies cut
    # These two: of one gateway; of each worker where there are several.
    max_connections: int = Field(10_000, ge=1, le=10_000_000)
    max_connections_per_customer: int = Field(50, ge=1, le=10_000_000)
    admit: str | None = None  # module:function, asked about each handshake: receiver/access/admission.py
    admit_seconds: float = Field(1, gt=0, le=30)  # for its answer; then the handshake is refused
    # By address, as trusted proxies report it; IPv6 by /64. A proxy that reports no client is exempt.
    max_connections_per_address: int = Field(1_000, ge=1, le=10_000_000)
    # Never more than a quarter of max_connections.
    max_unauthenticated: int = Field(1_000, ge=1, le=10_000_000)
    max_unauthenticated_per_address: int = Field(100, ge=1, le=10_000_000)
    handshakes_per_second: int = Field(2_000, ge=1, le=10_000_000)  # ten seconds' worth may come at once
    handshakes_per_second_per_address: int = Field(50, ge=1, le=10_000_000)  # the same
    replays_per_minute: int = Field(20_000, ge=1, le=10_000_000)  # events that a customer may be given again
    max_connection_hours: float = Field(12, ge=0.001, le=8_760)  # spread by a tenth; then it comes back
    # Of one customer at one gateway, and as many at once.
    tickets_per_minute: int = Field(60, ge=1, le=1_000_000)
    polls_per_minute: int = Field(1_200, ge=1, le=1_000_000)  # those that don't wait
    lists_per_minute: int = Field(600, ge=1, le=1_000_000)  # each is a question to the database

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """All secrets that tokens may be signed with; our own tokens are signed with the first."""
        return (*((self.jwt_secret,) if self.jwt_secret else ()), *self.jwt_secrets)

    @property
    def jwt_audiences(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.jwt_audience.split(",") if name.strip())

    @field_validator("jwks_url", mode="before")
    @classmethod
    def _check_jwks_url(cls, url: object) -> object:
        if isinstance(url, str):
            _check_http_url(url, query=True)  # raises ValueError
        return url

    @field_validator("jwt_issuer")
    @classmethod
    def _check_issuer(cls, issuer: str | None) -> str | None:
        if issuer is not None and not issuer.isprintable():
            raise ValueError("expected what your issuer's tokens have in their claim `iss`")
        return issuer

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret:
            _check_jwt_secret(secret)
        return secret

    @field_validator("jwt_secrets")
    @classmethod
    def _check_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            _check_jwt_secret(secret)
        return secrets

    @field_validator("jwt_cookie")
    @classmethod
    def _check_cookie(cls, name: str) -> str:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):  # RFC 6265 4.1.1
            raise ValueError("a cookie's name has no spaces, semicolons or other separators")
        return name

    @field_validator("admit")
    @classmethod
    def _check_admit(cls, name: str | None) -> str | None:
        word = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
        if name is not None and not re.fullmatch(f"{word}:{word}", name):
            raise ValueError(f"expected module:function, such as shop.gate:admit, not {name[:80]!r}")
        return name

    @field_validator("jwt_audience")
    @classmethod
    def _check_audience(cls, audience: str) -> str:
        if not audience.replace(",", "").strip():
            raise ValueError(
                "expected at least one audience: what your issuer's tokens have in their claim `aud`"
            )
        return audience

    @field_validator("jwt_audience_claim", "jwt_customer_claim", "jwt_topics_claim")
    @classmethod
    def _check_claim(cls, name: str) -> str:
        if not name.isprintable() or "" in name.split("."):
            raise ValueError("expected the name of a claim, such as sub, https://shop.example/id or user.id")
        return name

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        parsed, faults = [], []
        for origin in origins:
            try:
                parsed.append(str(parse_pattern(origin)))
            except InvalidOrigin as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return tuple(parsed)

    @model_validator(mode="after")
    def _check_one_way_to_verify(self) -> ReceiverSettings:
        if faults := faults_together({name for name in TOGETHER if getattr(self, name)}):
            raise ValueError(faults[0])
        return self


TOGETHER = frozenset({"jwt_secret", "jwt_secrets", "jwks_url", "development"})


def faults_together(given: set[str]) -> list[str]:
    """What is wrong with a gateway's settings in combination, though each may be valid."""
    by_secret = bool(given & {"jwt_secret", "jwt_secrets"})
    if by_secret == ("jwks_url" in given):
        return [f"set exactly one of {PREFIX}JWT_SECRET and {PREFIX}JWKS_URL"]
    if "development" in given and not by_secret:
        return [f"{PREFIX}DEVELOPMENT signs customers in itself and needs {PREFIX}JWT_SECRET"]
    return []


def _check_http_url(text: str, *, query: bool) -> None:
    """Stricter than browsers, which take `http:8090` and `http://80/` for addresses. Raises `ValueError`."""
    expected = "expected http://host:port or https://host:port"
    if not re.fullmatch(r"https?://[^\s\\]+", text, re.IGNORECASE) or not text.isprintable():
        raise ValueError(expected)
    parts = urlsplit(text)  # raises ValueError
    if "@" in parts.netloc:
        raise ValueError(f"{expected}, without a name and password")
    if "#" in text or ("?" in text and not query):
        raise ValueError(f"{expected}, without what follows a ? or #")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{expected}; a port is a number from 1 to 65535")
    if not _is_host(parts.hostname or ""):
        raise ValueError(f"{expected}; this is not the name of a host or an address")


def _is_host(host: str) -> bool:
    if ":" in host:  # in brackets
        return bool(IPv6Address(host.partition("%")[0]))
    if re.fullmatch(r"[0-9.]*|0[xX].*", host):
        return bool(IPv4Address(host))
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(re.fullmatch(r"[\w]([\w-]{0,61}\w)?", label) for label in labels)


def _check_jwt_secret(secret: SecretStr) -> None:
    """Raises `ValueError`."""
    if len(secret.get_secret_value().encode()) < _MIN_SECRET_BYTES:
        raise ValueError(f"needs at least {_MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes one")
    from shared.tokens import check_secret  # it imports PyJWT, which the sender does not need

    check_secret(secret)


class _FileSource(PydanticBaseSettingsSource):
    """`<NAME>_FILE` names a file that holds the value."""

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("unused: __call__ reads all fields at once")

    def __call__(self) -> dict[str, Any]:
        paths = {
            name: os.environ.get(f"{PREFIX}{name.upper()}_FILE") for name in self.settings_cls.model_fields
        }
        return {name: _read(path) for name, path in paths.items() if path}


@dataclass(frozen=True)
class _Unusable:
    """Stands for a value that can't be had. No field accepts it, so it is reported among all faults."""

    why: str
    file: bool = False


def _read(path: str) -> str | _Unusable:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        why = f"cannot read {path}: it is not UTF-8 text"
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}"
    except ValueError as error:  # a NUL in the path
        why = f"cannot read it: {error}"
    return _Unusable(why, file=True)


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_quotes(_unicode(_trimmed(value))) for name, value in values.items()}


def _unicode(value: Any) -> Any:
    """Python keeps a variable's bytes that are not UTF-8 as lone surrogates, which fail wherever they go."""
    is_unicode = not isinstance(value, str) or value.isascii() or _SURROGATE.search(value) is None
    return value if is_unicode else _Unusable("it is not UTF-8 text")


def _without_quotes(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        return _Unusable("remove the quotation marks around it: here they would belong to the value")
    return value


_SURROGATE = re.compile("[\ud800-\udfff]")


def _which(wrong: list[bool]) -> str:
    """Those of several keys that are wrong, by their numbers: keys are secrets."""
    numbers = [str(number) for number, is_wrong in enumerate(wrong, 1) if is_wrong]
    return "" if len(wrong) == 1 else f"key {' and '.join(numbers)} of {len(wrong)}: "


def _parts(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\r\n]", text) if part.strip()]


def _trimmed(value: Any) -> Any:
    return value.strip("\ufeff \t\r\n") if isinstance(value, str) else value


S = TypeVar("S", bound=_OfEnvironment)


class InvalidSettings(OperatorError):
    """Every fault of this process's settings, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load(settings_class: type[S], *, host: str | None = None, port: int = 0) -> S:
    """The settings of this process. Faults go to standard error, a line each, and the process exits with 2.

    With `host`, development mode is held to loopback.
    """
    try:
        return read(settings_class, host=host, port=port)
    except InvalidSettings as error:
        for fault in error.faults:
            print(f"orderbell: {fault}", file=sys.stderr)
        raise SystemExit(2) from None


def read(settings_class: type[S], *, host: str | None = None, port: int = 0) -> S:
    """`load` for callers that go on after faults. Raises `InvalidSettings`."""
    faults = _unknown_names(os.environ)
    if not 0 <= port <= 65535:
        faults.insert(0, f"--port {port}: a port is a number up to 65535")
    settings = None
    try:
        settings = settings_class()
    except ValidationError as error:
        faults += [_fault_line(fault) for fault in error.errors(include_url=False)]
        # pydantic checks the whole only where each part is valid.
        if issubclass(settings_class, ReceiverSettings):
            faults += faults_together({name for name in TOGETHER if _is_given(name)})
    if host is not None and not is_loopback(host) and _is_given("development"):
        faults.append(
            f"{PREFIX}DEVELOPMENT: anybody may sign in, so it may listen on loopback only, not on {host}"
        )
    if settings is None or faults:
        raise InvalidSettings(list(dict.fromkeys(faults)))
    return settings


def file_of(field: str) -> str | None:
    """The file that holds a setting; None where a variable holds it, which counts first, or nothing does."""
    name = PREFIX + field.upper()
    return None if os.environ.get(name) else os.environ.get(f"{name}_FILE") or None


def _is_given(field: str) -> bool:
    name = PREFIX + field.upper()
    if field == "development":
        return os.environ.get(name, "").strip().lower() in _TRUE
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def known_names() -> frozenset[str]:
    """Every environment variable that some part of Orderbell reads."""
    fields = {*SenderSettings.model_fields, *ReceiverSettings.model_fields}
    names = {PREFIX + field.upper() for field in fields}
    return frozenset(names | {f"{name}_FILE" for name in names})


def _unknown_names(environment: os._Environ[str]) -> list[str]:
    known = known_names()
    ours = [name for name in environment if name.startswith(PREFIX) and not name.startswith(_FOR_TESTS)]
    return [
        _unknown_line(name, known)
        for name in sorted(ours)
        if name not in known and not _is_service_link(name, environment[name])
    ]


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name)) or any(
        names.fullmatch(name) and values.fullmatch(value) for names, values in _LINK_VALUES
    )


def _unknown_line(name: str, known: frozenset[str]) -> str:
    # Without the common prefix, or all would look alike.
    close = difflib.get_close_matches(
        name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1
    )
    return f"{name}: no such setting" + (f"; did you mean {PREFIX}{close[0]}?" if close else "")


def _fault_line(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return str(message)
    field = str(fault["loc"][0])
    if field == "api_keys" and _is_given("api_key") and not _is_given(field):
        field = "api_key"
    name = PREFIX + field.upper()
    if isinstance(fault["input"], _Unusable):
        unusable = fault["input"]
        return f"{name}{'_FILE' if unusable.file else ''}: {unusable.why}"
    return f"{name}: missing" if fault["type"] == "missing" else f"{name}: {message}"
