"""What sender and receiver both need to know."""

from __future__ import annotations

import importlib.util
import os
import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.api_keys import ApiKey
from shared.process.listening import split_address
from shared.redis.signatures import LiveKey
from shared.redis.url import check_redis_url
from shared.settings.environment import CommaSeparated, FromEnvironment, Unusable, cleaned, split_list

_MIN_KEY_CHARACTERS = 16
_OTLP = "opentelemetry.exporter.otlp.proto.http"

_EVERYBODY = [ip_network(network) for network in ("0.0.0.0/0", "::/0", "::ffff:0:0/96")]


class Settings(FromEnvironment):
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
    log_channels: Literal["hashed", "plain"] = "hashed"  # a channel's name has its customer's id in it
    log_events: float = Field(0, ge=0, le=1)  # share of events: shared/process/ways.py
    development: bool = False  # sign-in by name alone; refuses to listen beyond loopback
    traces: bool = False  # by OpenTelemetry, see shared/process/tracing.py
    spring_compat: bool = False  # replace two Spring applications, open to anybody; docs/from-spring.md
    forwarded_allow_ips: CommaSeparated = ("127.0.0.1", "::1")  # proxies whose X-Forwarded-For counts
    keep_alive_seconds: float = Field(130, ge=1, le=3600)  # above nginx 60, ALB 60, Traefik 90, Caddy 120
    # How long /readyz reports draining before we drain.
    ready_delay_seconds: float = Field(0, ge=0, le=300)
    # Of a request, at the edge; shared/process/limits.py has the rest.
    max_head_bytes: int = Field(32_768, ge=8_192, le=1_048_576)  # room for a large cookie and a token
    head_seconds: float = Field(5, ge=0.1, le=300)
    body_seconds: float = Field(120, ge=1, le=3600)
    body_bytes_per_second: int = Field(500, ge=1, le=1_000_000)  # on average, after ten seconds
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
        return split_list(value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = cleaned(values)  # `_trim` may come after this
        if (key := values.get("api_key")) and not isinstance(key, Unusable):
            keys = values.get("api_keys", ())
            if not isinstance(keys, Unusable):
                values["api_keys"] = (key, *(split_list(keys) if isinstance(keys, str) else keys))
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
        for address in addresses:
            try:
                everybody = address == "*" or ip_network(address) in _EVERYBODY
            except ValueError:  # it would be compared as text, and matches no client's address
                raise ValueError(f"expected addresses and networks, as 10.0.0.0/8, not {address!r}") from None
            if everybody:
                raise ValueError(f"{address!r} would trust any client's X-Forwarded-For; name the proxies")
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


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False


def _which(wrong: list[bool]) -> str:
    """Those of several keys that are wrong, by their numbers: keys are secrets."""
    numbers = [str(number) for number, is_wrong in enumerate(wrong, 1) if is_wrong]
    return "" if len(wrong) == 1 else f"key {' and '.join(numbers)} of {len(wrong)}: "
