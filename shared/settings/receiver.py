"""What a gateway needs to know, and where the sender is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AnyUrl, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.jwt_secrets import check_jwt_secret
from shared.origins import InvalidOrigin, parse_pattern
from shared.settings.environment import PREFIX, CommaSeparated, FromEnvironment
from shared.settings.http_url import HttpUrl, check_http_url
from shared.settings.service import Settings
from shared.tls import tls_to_sender

if TYPE_CHECKING:
    from ssl import SSLContext


class SenderAddress(FromEnvironment):
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
            check_http_url(url, query=False)  # raises ValueError
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
    jwt_type: str | None = None  # of the token's header, such as at+jwt (RFC 9068); without it any will do
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
    authenticate_seconds: float = Field(5, ge=0.1, le=300)  # for a client that connects without a token
    handshakes_per_second: int = Field(5_000, ge=1, le=10_000_000)  # in any second
    handshakes_per_second_per_address: int = Field(50, ge=1, le=10_000_000)  # ten seconds' worth at once
    replays_per_minute: int = Field(20_000, ge=1, le=10_000_000)  # events that a customer may be given again
    max_connection_hours: float = Field(12, ge=0.001, le=8_760)  # spread by a tenth; then it comes back
    max_topics: int = Field(99, ge=0, le=99)  # of a token, and so of a connection; shared/tokens.py
    # Of one WebSocket; one that speaks STOMP may send 2.5 times the frames, twice the bytes, and messages of
    # four times the size, because it may acknowledge each event.
    max_message_bytes: int = Field(16_384, ge=8_192, le=1_048_576)  # room for a token
    frames_per_second: int = Field(200, ge=5, le=1_000_000)  # and twice as many between two heartbeats
    bytes_per_second: int = Field(131_072, ge=8_192, le=1_000_000_000)  # and four times as many; as above
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
            check_http_url(url, query=True)  # raises ValueError
        return url

    @field_validator("jwt_issuer")
    @classmethod
    def _check_issuer(cls, issuer: str | None) -> str | None:
        if issuer is not None and not issuer.isprintable():
            raise ValueError("expected what your issuer's tokens have in their claim `iss`")
        return issuer

    @field_validator("jwt_type")
    @classmethod
    def _check_type(cls, name: str | None) -> str | None:
        # `application/` alone would be the same as no type.
        if name is not None and not re.fullmatch(r"[A-Za-z0-9!#$&^_.+-]+(/[A-Za-z0-9!#$&^_.+-]+)?", name):
            raise ValueError("expected what your issuer's tokens have in their header `typ`, such as at+jwt")
        return name

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret:
            check_jwt_secret(secret)
        return secret

    @field_validator("jwt_secrets")
    @classmethod
    def _check_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            check_jwt_secret(secret)
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
