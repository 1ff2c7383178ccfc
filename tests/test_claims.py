"""Claims: what the tokens of the usual issuers prove under which settings, and which prove nothing."""

from __future__ import annotations

import json
import math
import time
from typing import Any, NamedTuple

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from receiver.access.claims import Rules
from receiver.access.identity import ForbiddenToken, Identity, InvalidToken
from receiver.access.reports import Reports
from receiver.access.verifier import ReportingVerifier, SecretVerifier
from shared.settings import ReceiverSettings
from shared.tokens import MAX_TOPICS, ClaimNames, find_claim
from tests.issuers import claims, part

SECRET = "s" * 32
UUID = "1b671a64-40d5-491e-99b0-da01ff1f3341"
NOW = int(time.time())


def verified(payload: object, rules: Rules) -> Identity:
    return rules.identity(json.dumps(payload).encode())


def issued_now(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims as if made now: these tokens are as old as this module, and some live for a minute."""
    age = int(time.time()) - NOW
    times = {name: claims[name] + age for name in ("exp", "iat", "nbf", "auth_time") if name in claims}
    return claims | times


class Shape(NamedTuple):
    """An access token as an issuer makes it, and the settings under which it is good."""

    issuer: str
    settings: dict[str, str]
    claims: dict[str, Any]
    customer: str
    topics: tuple[str, ...] = ()


AUTH0 = {
    "iss": "https://shop.eu.auth0.com/",
    "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
    "aud": ["https://alerts.shop.example", "https://shop.eu.auth0.com/userinfo"],
    "iat": NOW,
    "exp": NOW + 86400,
    "azp": "my_client_id",
    "scope": "openid profile",
    "https://shop.example/topics": ["menu"],
}
COGNITO = {
    "sub": UUID,
    "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
    "client_id": "6kq9k3example",
    "origin_jti": UUID,
    "event_id": UUID,
    "token_use": "access",
    "scope": "openid",
    "auth_time": NOW,
    "iat": NOW,
    "exp": NOW + 3600,
    "jti": UUID,
    "username": "alice",
    "cognito:groups": ["menu"],
}
KEYCLOAK = {
    "exp": NOW + 300,
    "iat": NOW,
    "jti": f"onrtac:{UUID}",
    "iss": "https://id.shop.example/realms/shop",
    "sub": UUID,
    "typ": "Bearer",
    "azp": "shop-web",
    "realm_access": {"roles": ["menu", "news"]},
    "preferred_username": "alice",
}
SHAPES = [
    Shape(
        "Auth0",
        {"audience": "https://alerts.shop.example", "issuer": "https://shop.eu.auth0.com/"},
        AUTH0,
        "auth0|5f7c8ec7c33c6c004bbafe82",
    ),
    Shape(
        "Auth0, topics in a claim of one's own",
        {"audience": "https://alerts.shop.example", "topics_claim": "https://shop.example/topics"},
        AUTH0,
        "auth0|5f7c8ec7c33c6c004bbafe82",
        ("menu",),
    ),
    Shape(
        "Cognito's access token",
        {"audience": "6kq9k3example", "audience_claim": "client_id", "topics_claim": "cognito:groups"},
        COGNITO,
        UUID,
        ("menu",),
    ),
    Shape(
        "Cognito's ID token",
        {"audience": "6kq9k3example", "customer_claim": "custom:customer"},
        {"sub": UUID, "aud": "6kq9k3example", "token_use": "id", "exp": NOW + 60, "custom:customer": "c-7"},
        "c-7",
    ),
    Shape(
        "Keycloak without aud",
        {"audience": "shop-web", "audience_claim": "azp", "topics_claim": "realm_access.roles"},
        KEYCLOAK,
        UUID,
        ("menu", "news"),
    ),
    Shape("Keycloak's account", {"audience": "account"}, {**KEYCLOAK, "aud": "account"}, UUID),
    Shape(
        "Keycloak with a user federation",
        {"audience": "shop-web", "audience_claim": "azp"},
        {**KEYCLOAK, "sub": f"f:{UUID}:alice"},
        f"f:{UUID}:alice",
    ),
    Shape(
        "Entra, by oid",
        {"audience": "api://6e74172b", "customer_claim": "oid"},
        {
            "aud": "api://6e74172b",
            "iss": f"https://login.microsoftonline.com/{UUID}/v2.0",
            "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
            "oid": UUID,
            "exp": NOW + 4000,
            "ver": "2.0",
        },
        UUID,
    ),
    Shape(
        "Firebase",
        {"audience": "shop-1234", "issuer": "https://securetoken.google.com/shop-1234"},
        {
            "iss": "https://securetoken.google.com/shop-1234",
            "aud": "shop-1234",
            "sub": "Xk3yA5bC7dE9fG1hI3jK5lM7nO9p",
            "exp": NOW + 3600,
            "firebase": {"identities": {}, "sign_in_provider": "custom"},
        },
        "Xk3yA5bC7dE9fG1hI3jK5lM7nO9p",
    ),
    Shape(
        "Okta, by uid",
        {"audience": "api://default", "customer_claim": "uid"},
        {
            "ver": 1,
            "jti": "AT.0",
            "iss": "https://shop.okta.com/oauth2/default",
            "aud": "api://default",
            "sub": "alice@shop.example",
            "uid": "00u1abcd2EFGHij3k4l5",
            "exp": NOW + 3600,
        },
        "00u1abcd2EFGHij3k4l5",
    ),
    Shape(
        "Supabase",
        {"audience": "authenticated"},
        {"aud": "authenticated", "sub": UUID, "exp": NOW + 3600, "role": "authenticated", "app_metadata": {}},
        UUID,
    ),
    Shape(
        "Clerk",
        {"audience": "https://shop.example", "audience_claim": "azp"},
        {
            "azp": "https://shop.example",
            "exp": NOW + 60,
            "nbf": NOW - 10,
            "iat": NOW,
            "iss": "https://clerk.shop.example",
            "sid": "sess_2",
            "sub": "user_2abcdefghijklmnopqrstuvwxyz0",
        },
        "user_2abcdefghijklmnopqrstuvwxyz0",
    ),
    Shape(
        "a claim within a claim",
        {"customer_claim": "data.user.id"},
        {"aud": "orderbell", "exp": NOW + 60, "data": {"user": {"id": "42"}}},
        "42",
    ),
    Shape(
        "two clients, one gateway",
        {"audience": "shop-web, shop-app", "audience_claim": "azp"},
        {**KEYCLOAK, "azp": "shop-app"},
        UUID,
    ),
]


def rules_of(settings: dict[str, str]) -> Rules:
    named = {f"jwt_{name}": value for name, value in settings.items()}
    return Rules.of(
        ReceiverSettings(api_keys=(SecretStr("k" * 16),), jwt_secret=SecretStr(SECRET), **named)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.issuer for shape in SHAPES])
def test_tokens_of_the_usual_issuers_are_good_under_their_settings(shape: Shape) -> None:
    claims = issued_now(shape.claims)
    identity = verified(claims, rules_of(shape.settings))
    assert (identity.customer, identity.topics) == (shape.customer, shape.topics)
    assert identity.expires_at == claims["exp"] + 30


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.issuer for shape in SHAPES])
def test_none_of_them_is_good_for_another_audience(shape: Shape) -> None:
    rules = rules_of({**shape.settings, "audience": "another"})
    with pytest.raises(ForbiddenToken, match="another audience") as caught:
        verified(issued_now(shape.claims), rules)
    assert "ORDERBELL_JWT_AUDIENCE" in caught.value.detail


@pytest.mark.parametrize("claims_of_issuer", [COGNITO, KEYCLOAK])
def test_token_without_an_audience_is_never_good_in_silence(claims_of_issuer: dict[str, Any]) -> None:
    with pytest.raises(ForbiddenToken, match="has no aud") as caught:
        verified(claims_of_issuer, rules_of({"audience": "6kq9k3example,shop-web"}))
    assert "ORDERBELL_JWT_AUDIENCE_CLAIM" in caught.value.detail
    assert str(claims_of_issuer.get("azp", claims_of_issuer.get("client_id"))) in caught.value.detail


@pytest.mark.parametrize(
    "audience", [None, "", [], {}, 7, True, [None], [["orderbell"]], {"orderbell": 1}, "orderbel"]
)
def test_what_names_no_audience(audience: object) -> None:
    with pytest.raises(ForbiddenToken):
        verified({**claims(), "aud": audience}, Rules())


@pytest.mark.parametrize(
    "issuer",
    ["https://shop.eu.auth0.com", "https://SHOP.eu.auth0.com/", None, 7, ["https://shop.eu.auth0.com/"]],
)
def test_issuer_is_compared_exactly(issuer: object) -> None:
    rules = Rules(issuer="https://shop.eu.auth0.com/")
    with pytest.raises(ForbiddenToken, match="another issuer"):
        verified({**claims(), "iss": issuer}, rules)
    assert verified({**claims(), "iss": "https://shop.eu.auth0.com/"}, rules).customer == "alice"


def test_customer_claim_that_is_missing_says_which_there_are() -> None:
    with pytest.raises(ForbiddenToken, match=r"has no uid$") as caught:
        verified(claims(), Rules(names=ClaimNames(customer="uid")))
    assert "'sub'" in caught.value.detail


def test_sub_is_not_needed_where_another_claim_counts() -> None:
    payload = {**claims(sub=None), "uid": "00u1"}
    assert verified(payload, Rules(names=ClaimNames(customer="uid"))).customer == "00u1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", 1),
        ("a.b", "exact"),
        ("c.d", 2),
        ("c.e.f", 3),
        ("https://shop.example/claims.id", 4),
        ("c", {"d": 2, "e": {"f": 3}, "": 5}),
        ("c.", 5),
        ("c.x", None),
        ("x.d", None),
        ("a.b.c", None),
        (".", None),
        ("", None),
    ],
)
def test_claims_are_found_by_name_first_and_then_by_their_way(name: str, value: object) -> None:
    document = {
        "a": 1,
        "a.b": "exact",
        "c": {"d": 2, "e": {"f": 3}, "": 5},
        "https://shop.example/claims": {"id": 4},
    }
    assert find_claim(document, name) == value


def test_topics_of_null_are_none_and_too_many_are_refused() -> None:
    assert verified({**claims(), "topics": None}, Rules()).topics == ()
    with pytest.raises(ForbiddenToken, match="topics"):
        verified({**claims(), "topics": [f"t{n}" for n in range(MAX_TOPICS + 1)]}, Rules())


def test_message_for_the_client_quotes_nothing_of_the_token() -> None:
    for changes in (
        {"aud": "hush"},
        {"iss": "hush"},
        {"sub": "hush\n"},
        {"topics": ["hush\n"]},
        {"jti": ["hush"]},
    ):
        with pytest.raises(ForbiddenToken) as caught:
            verified({**claims(iss="shop"), **changes}, Rules(issuer="shop"))
        assert "hush" not in str(caught.value)
        assert len(str(caught.value).encode()) <= 123  # a close frame's reason


# --- whatever it is, it is an Identity or a refusal

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(10**300, 10**400)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "jti", "topics"])


@given(changes=st.dictionaries(NAMES, JSON))
def test_any_claims_are_an_identity_or_a_refusal(changes: dict[str, Any]) -> None:
    try:
        identity = verified({**claims(), **changes}, Rules())
    except InvalidToken as error:
        message = str(error)
    else:
        message = ""
        assert math.isfinite(identity.expires_at)
        assert identity.expires_at > time.time()
        assert identity.channels[0].startswith("customer:")
    assert len(message.encode()) <= 123  # a close frame's reason


@pytest.mark.anyio
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), JSON),
    payload=JSON,
    signature=st.sampled_from(["", "AAAA", "!", "é"]),
)
async def test_any_token_is_a_refusal(header: dict[str, Any], payload: object, signature: str) -> None:
    token = f"{part({'alg': 'HS256', **header})}.{part(payload)}.{signature}"
    with pytest.raises(InvalidToken):
        await SecretVerifier([SecretStr(SECRET)], Rules()).verify(token)


# --- what the log says


def sign(**changes: Any) -> str:
    return jwt.encode(claims(**changes), SECRET, algorithm="HS256")


@pytest.mark.anyio
async def test_what_an_operator_can_mend_is_logged_once_a_minute() -> None:
    verifier = ReportingVerifier(SecretVerifier([SecretStr(SECRET)], Rules()))
    with capture_logs() as logs:
        faults: list[dict[str, Any]] = [
            {"aud": "account"},
            {"iat": time.time() + 300},
            {"exp": time.time() - 7200},
        ]
        for changes in 3 * faults:
            with pytest.raises(InvalidToken):
                await verifier.verify(sign(**changes))
    assert [(line["event"], line.get("detail", line.get("seconds"))) for line in logs] == [
        ("the token is for another audience", "its aud is 'account', ORDERBELL_JWT_AUDIENCE is 'orderbell'"),
        ("token from the future: this gateway's clock or its issuer's is wrong", 300),
        ("token has expired: the page presented it late, or this gateway's clock is ahead", 7200),
    ]


def test_reports_say_how_many_were_left_out() -> None:
    reports = Reports(every_seconds=0)
    quiet = Reports()
    with capture_logs() as logs:
        for _ in range(3):
            quiet.warn("it happened")
            reports.warn("it happened")
    assert len(logs) == 4
    silent = Reports(every_seconds=3600)
    with capture_logs() as logs:
        for n in range(1000):
            silent.warn(f"made-up kind {n}")
    assert len(logs) <= 101  # whatever clients make up
