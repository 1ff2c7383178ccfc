"""Tokens for trying and testing, signed as an issuer of customers' tokens would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
from pydantic import SecretStr, field_validator
from pydantic_settings import NoDecode

from shared.channels import MAX_NAME, is_name
from shared.settings import PREFIX, ReceiverSettings
from shared.tokens import MAX_TOPICS, ClaimNames, mint_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.commands.local import LocalDirectory


class IssuerSettings(ReceiverSettings):
    """An issuer's settings, which need no API key."""

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        return keys


def mint(local: LocalDirectory, customer: str, topics: Sequence[str], lifetime_seconds: float) -> str:
    """One token; raises as `minter`."""
    return minter(local, customer, topics, lifetime_seconds)()


def minter(
    local: LocalDirectory, customer: str, topics: Sequence[str], lifetime_seconds: float
) -> Callable[[], str]:
    """Returns a function that makes a new token each time; the settings are read once.

    Raises `click.ClickException` if we can't sign, and exits with 2 for faults in the settings.
    """
    for name in (customer, *topics):
        if not is_name(name):
            raise click.BadParameter(
                f"{name[:160]!r} is not a name: 1 to {MAX_NAME} characters without control characters"
            )
    if len(topics) > MAX_TOPICS:
        raise click.BadParameter(f"more than {MAX_TOPICS} topics")
    settings = local.load(IssuerSettings)
    if not settings.secrets:
        raise click.UsageError(f"tokens are verified by {PREFIX}JWKS_URL; get one from their issuer")
    return lambda: mint_token(
        settings.secrets[0],
        customer,
        audience=settings.jwt_audiences[0],
        issuer=settings.jwt_issuer,
        names=ClaimNames.of(settings),
        topics=topics,
        lifetime_seconds=lifetime_seconds,
    )
