"""Tokens: whether their issuer's keys can be fetched, and whether a given token would be accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt

from shared.commands.doctor.findings import Finding, fail, ok, warn
from shared.outbound import UnusableProxy, proxy_for
from shared.redis.url import shown
from shared.tokens import ClaimNames, find_claim

if TYPE_CHECKING:
    from shared.settings import ReceiverSettings


async def look(settings: ReceiverSettings, token: str | None) -> list[Finding]:
    # A gateway's own code does what a gateway does: commands may import both services.
    from receiver.access.verifier import create_verifier

    findings = _writable_claims(settings)
    async with create_verifier(settings) as verifier:
        if settings.jwks_url is not None:
            findings += _proxy(str(settings.jwks_url))
            findings.append(_keys(await verifier.try_now(), shown(str(settings.jwks_url))))
        if token is not None and not verifier.unable:
            findings.append(await _token(verifier, settings, token))
    return findings


def _keys(unable: str | None, url: str) -> Finding:
    if unable is None:
        return ok("issuer", f"{url} publishes keys")
    fix = "ORDERBELL_JWKS_URL: what your issuer's /.well-known/openid-configuration names as jwks_uri"
    return fail("issuer", f"no token can be verified: {unable}", fix)


def _proxy(url: str) -> list[Finding]:
    try:
        proxy_for(url)
    except UnusableProxy as error:
        return [
            warn(
                "proxy",
                str(error),
                "only the issuer is reached through a proxy: HTTPS_PROXY=http://…",
            )
        ]
    return []


def _writable_claims(settings: ReceiverSettings) -> list[Finding]:
    names = {"CUSTOMER": settings.jwt_customer_claim, "TOPICS": settings.jwt_topics_claim}
    return [
        fail(
            "claims",
            f"ORDERBELL_JWT_{name}_CLAIM is {claim}: with Supabase, users can change it themselves",
            "a claim that only your issuer can write, such as sub or one below app_metadata",
        )
        for name, claim in names.items()
        if claim.startswith("user_metadata.")
    ]


async def _token(verifier: Any, settings: ReceiverSettings, token: str) -> Finding:
    from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable

    try:
        jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        return fail("token", "it is not a JWT", "--token: what the issuer signs, three parts and two dots")
    try:
        identity = await verifier.verify(token)
    except ForbiddenToken as error:
        detail = f" ({error.detail})" if error.detail else ""
        return fail("token", f"{error}{detail}", _setting_for(settings, token))
    except (InvalidToken, KeysUnavailable) as error:
        fix = ""
        if str(error) == "the token is not valid":
            fix = "ORDERBELL_JWT_SECRET or ORDERBELL_JWT_SECRETS: the secret it is signed with"
        return fail("token", str(error), fix)
    return ok("token", f"it proves customer {identity.customer!r}, with {len(identity.topics)} topics")


def _setting_for(settings: ReceiverSettings, token: str) -> str:
    """What to set for such a token, by its unverified claims."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        algorithm = jwt.get_unverified_header(token).get("alg")
    except (jwt.PyJWTError, ValueError):
        return ""
    if str(algorithm).startswith("HS") == (settings.jwks_url is not None):
        return f"it is signed with {algorithm}: " + (
            "ORDERBELL_JWT_SECRET instead of ORDERBELL_JWKS_URL"
            if settings.jwks_url
            else "ORDERBELL_JWKS_URL instead of ORDERBELL_JWT_SECRET"
        )
    if settings.jwt_issuer and claims.get("iss") != settings.jwt_issuer:
        given = str(claims.get("iss", ""))
        if given.rstrip("/") == settings.jwt_issuer.rstrip("/"):
            return f"ORDERBELL_JWT_ISSUER={given}"
        return f"use a token of the issuer that ORDERBELL_JWT_ISSUER names: {settings.jwt_issuer}"
    names = ClaimNames.of(settings)
    audience = find_claim(claims, names.audience)
    if audience is None:
        other = next((name for name in ("aud", "azp", "client_id") if name in claims), None)
        return f"ORDERBELL_JWT_AUDIENCE_CLAIM={other}" if other else ""
    named = audience if isinstance(audience, list) else [audience]
    if named and not set(map(str, named)) & set(settings.jwt_audiences):
        # Never that audience as the setting: it may be another application's, whose tokens would be accepted.
        return f"issue it for the audience {' or '.join(settings.jwt_audiences)} (ORDERBELL_JWT_AUDIENCE)"
    if find_claim(claims, names.customer) is None:
        there = ", ".join(sorted(claims))
        return f"ORDERBELL_JWT_CUSTOMER_CLAIM: the claim that holds the customer, one of {there}"
    return ""
