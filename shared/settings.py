"""Settings: environment variables that start with `ORDERBELL_`, read once at start.

A secret may also be given as a file: `ORDERBELL_API_KEYS_FILE=/run/secrets/api_keys`.
`load` reports every fault at once and ends the process with 2.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AnyUrl,
    Field,
    SecretStr,
    UrlConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.loopback import is_loopback
from shared.redis.url import parse_redis_url

PREFIX = "ORDERBELL_"
_FOR_TESTS = PREFIX + "TEST_"  # read by our tests alone
_MIN_SECRET_BYTES = 32  # RFC 7518 3.2: a key for HS256 has at least 256 bits

HttpUrl = Annotated[AnyUrl, UrlConstraints(allowed_schemes=["http", "https"], host_required=True)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """What sender and receiver both need."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    redis_url: str = "redis://localhost:6379/0"
    key_prefix: str = Field("ob", pattern=r"^[A-Za-z0-9_.-]{1,32}$")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode]  # several, so that one can be replaced in peace
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    development: bool = False  # sign-in by name alone; refuses to listen beyond loopback
    forwarded_allow_ips: CommaSeparated = ("127.0.0.1", "::1")  # proxies whose X-Forwarded-For counts

    @field_validator(
        "api_keys",
        "allowed_origins",
        "allowed_hosts",
        "forwarded_allow_ips",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not keys:
            raise ValueError("at least one key")
        if any(len(key.get_secret_value()) < 16 for key in keys):
            raise ValueError("a key has at least 16 characters; `openssl rand -hex 32` makes one")
        return keys

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str) -> str:
        parse_redis_url(url)
        return url

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _refuse_any_proxy(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in addresses:
            raise ValueError("'*' would believe any client's X-Forwarded-For; name the proxies")
        return addresses

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


class SenderSettings(Settings):
    database_url: str = "sqlite:///orderbell.db"
    history_days: float = Field(7, gt=0, le=3650)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        if url.startswith(("sqlite:///", "sqlite+aiosqlite:///")):  # the second is an older spelling
            if url.endswith(":///"):
                raise ValueError("the file is missing: sqlite:///orderbell.db")
            return url
        if url.startswith("postgresql+asyncpg://") and urlsplit(url).hostname:
            return url
        raise ValueError(
            "expected sqlite:///<file> or postgresql+asyncpg://<user>:<password>@<host>/<database>"
        )


class ReceiverSettings(Settings):
    sender_url: HttpUrl = AnyUrl("http://127.0.0.1:8090")
    jwt_secret: SecretStr | None = None  # HS256
    jwks_url: HttpUrl | None = None  # RS256, ES256, EdDSA
    jwt_audience: str = "orderbell"
    jwt_issuer: str | None = None
    jwt_cookie: str = "orderbell_token"  # the cookie that may carry the token
    allowed_origins: CommaSeparated = ()  # beside the gateway's own, as `https://shop.example`
    drain_seconds: float = Field(10, ge=0, le=600)
    heartbeat_seconds: float = Field(20, ge=1, le=300)  # below the 60 s after which common proxies cut
    max_connections: int = Field(10_000, ge=1)  # of one gateway; of each worker where there are several
    max_connections_per_customer: int = Field(50, ge=1)  # the same

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret and len(secret.get_secret_value().encode()) < _MIN_SECRET_BYTES:
            raise ValueError(f"at least {_MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes them")
        if secret:
            from shared.tokens import check_secret  # it brings PyJWT, which the sender does not need

            check_secret(secret)
        return secret

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
                raise ValueError(f"{origin!r} is no origin; expected https://shop.example, without a path")
        return origins

    @model_validator(mode="after")
    def _check_one_way_to_verify(self) -> ReceiverSettings:
        if (self.jwt_secret is None) == (self.jwks_url is None):
            raise ValueError(f"set exactly one of {PREFIX}JWT_SECRET and {PREFIX}JWKS_URL")
        if self.development and self.jwt_secret is None:
            raise ValueError(f"{PREFIX}DEVELOPMENT signs customers in itself and needs {PREFIX}JWT_SECRET")
        return self


class _FileSource(PydanticBaseSettingsSource):
    """`<NAME>_FILE` names a file that holds the value."""

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("unused: __call__ reads all fields at once")

    def __call__(self) -> dict[str, Any]:
        paths = {
            name: os.environ.get(f"{PREFIX}{name.upper()}_FILE") for name in self.settings_cls.model_fields
        }
        return {name: _read(path) for name, path in paths.items() if path}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8", path) from None


S = TypeVar("S", bound=Settings)


class InvalidSettings(Exception):
    """Every fault of this process's settings, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load(settings_class: type[S], *, host: str | None = None) -> S:
    """The settings of this process. Faults go to standard error, a line each, and the process ends with 2.

    With `host`, development mode is held to loopback.
    """
    try:
        return read(settings_class, host=host)
    except InvalidSettings as error:
        for fault in error.faults:
            print(f"orderbell: {fault}", file=sys.stderr)
        raise SystemExit(2) from None


def read(settings_class: type[S], *, host: str | None = None) -> S:
    """`load` for those who go on with faults. Raises `InvalidSettings`."""
    faults = _unknown_names(os.environ)
    try:
        settings = settings_class()
    except ValidationError as error:
        faults += [_fault_line(fault) for fault in error.errors(include_url=False, include_input=False)]
    except OSError as error:
        faults.append(f"{PREFIX}…_FILE: cannot read {error.filename}: {error.strerror}")
    else:
        if settings.development and host is not None and not is_loopback(host):
            faults.append(
                f"{PREFIX}DEVELOPMENT: anybody may sign in, so it listens on loopback only, not {host}"
            )
        if not faults:
            return settings
    raise InvalidSettings(faults)


def known_names() -> frozenset[str]:
    """Every environment variable that some part of Orderbell reads."""
    fields = {*SenderSettings.model_fields, *ReceiverSettings.model_fields}
    names = {PREFIX + field.upper() for field in fields}
    return frozenset(names | {f"{name}_FILE" for name in names})


def _unknown_names(environment: os._Environ[str]) -> list[str]:
    known = known_names()
    ours = [name for name in environment if name.startswith(PREFIX) and not name.startswith(_FOR_TESTS)]
    return [_unknown_line(name, known) for name in sorted(ours) if name not in known]


def _unknown_line(name: str, known: frozenset[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "")


def _fault_line(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return str(message)
    name = PREFIX + str(fault["loc"][0]).upper()
    return f"{name}: missing" if fault["type"] == "missing" else f"{name}: {message}"
