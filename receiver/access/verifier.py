"""Which customer a token proves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

import structlog

from receiver.access.claims import ExpiredToken, FutureToken, Rules, check_length
from receiver.access.identity import ForbiddenToken, InvalidToken
from receiver.access.jwks import JwksVerifier
from receiver.access.reports import Reports
from receiver.access.secret import Secret
from shared.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

    from receiver.access.identity import Identity
    from shared.settings import ReceiverSettings


logger = structlog.get_logger(__name__)


class Verifier(Protocol):
    """An async context manager; its background tasks run while it is entered."""

    @property
    def unable(self) -> str | None:
        """Why no token can be verified now; None if tokens can be."""

    async def try_now(self) -> str | None:
        """`unable`, once that is known for sure."""

    async def verify(self, token: str) -> Identity:
        """Raises `InvalidToken`, also as `ForbiddenToken`, or `KeysUnavailable`."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...


class SecretVerifier(contextlib.AbstractAsyncContextManager["SecretVerifier"]):
    """Tokens signed with a secret that we share with their issuer, HS256; several while it is replaced."""

    unable = None

    def __init__(self, secrets: Sequence[SecretStr], rules: Rules) -> None:
        self._secrets = [Secret(secret) for secret in secrets]
        self._rules = rules

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def try_now(self) -> None:
        return None

    async def verify(self, token: str) -> Identity:
        check_length(token)
        payload = self._payload(token)
        self._rules.check_type(token)
        return self._rules.identity(payload)

    def _payload(self, token: str) -> bytes:
        *others, last = self._secrets
        for secret in others:
            with contextlib.suppress(InvalidToken):
                return secret.payload(token)
        return last.payload(token)


class ReportingVerifier(contextlib.AbstractAsyncContextManager["ReportingVerifier"]):
    """Logs now and then what an operator can fix: a setting that the issuer disagrees with, or a clock."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._reports = Reports()

    async def __aenter__(self) -> Self:
        await self._verifier.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._verifier.__aexit__(*exc)

    @property
    def unable(self) -> str | None:
        return self._verifier.unable

    async def try_now(self) -> str | None:
        return await self._verifier.try_now()

    async def verify(self, token: str) -> Identity:
        try:
            return await self._verifier.verify(token)
        except ForbiddenToken as error:
            self._reports.warn(str(error), detail=error.detail)
            raise
        except ExpiredToken as error:
            self._reports.inform(
                "token has expired: the page presented it late, or this gateway's clock is ahead",
                seconds=round(error.seconds),
            )
            raise
        except FutureToken as error:
            self._reports.warn(
                "token from the future: this gateway's clock or its issuer's is wrong",
                seconds=round(error.seconds),
            )
            raise


def create_verifier(settings: ReceiverSettings) -> Verifier:
    rules = Rules.of(settings)
    if settings.secrets:
        return ReportingVerifier(SecretVerifier(settings.secrets, rules))
    url = urlsplit(str(settings.jwks_url))
    if url.scheme == "http" and not is_loopback(url.hostname):
        # Not refused: within a cluster, TLS may be below us.
        logger.warning(
            "ORDERBELL_JWKS_URL is not https: anybody who can change its answer can sign in as any customer",
            host=url.hostname,
        )
    return ReportingVerifier(JwksVerifier(str(settings.jwks_url), rules))
