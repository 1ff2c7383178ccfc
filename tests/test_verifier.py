"""Tokens signed with a shared secret: what they prove, and all those that prove nothing (RFC 8725)."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from receiver.access.claims import LEEWAY_SECONDS, MAX_TOKEN_BYTES, Rules
from receiver.access.identity import ForbiddenToken, InvalidToken
from receiver.access.jwks import JwksVerifier
from receiver.access.verifier import SecretVerifier, create_verifier
from shared.settings import ReceiverSettings
from shared.tokens import MAX_TOPICS, mint_token
from tests.issuers import AUDIENCE, claims, part, private_key, running_issuer, sign_with

pytestmark = pytest.mark.anyio

SECRET = SecretStr("s" * 32)
OTHER_SECRET = SecretStr("t" * 32)
VERIFIER = SecretVerifier([SECRET], Rules())
SHOP = Rules(issuer="shop")


def sign(secret: SecretStr = SECRET, /, **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret.get_secret_value(), algorithm="HS256")


async def test_good_token_names_its_customer_and_topics() -> None:
    identity = await VERIFIER.verify(sign(topics=["menu", "news"]))
    assert identity.customer == "alice"
    assert identity.topics == ("menu", "news")
    assert identity.channels == ("customer:alice", "topic:menu", "topic:news")


async def test_minted_token_is_good() -> None:
    token = mint_token(
        SECRET, "alice", audience=AUDIENCE, issuer="shop", topics=["menu"], lifetime_seconds=60
    )
    identity = await SecretVerifier([SECRET], SHOP).verify(token)
    assert identity.channels == ("customer:alice", "topic:menu")
    assert abs(identity.expires_at - (time.time() + 60 + LEEWAY_SECONDS)) < 5


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "x" * 100, "é.é.é", "Bearer x", "\x00"],
)
async def test_garbage(token: str) -> None:
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(token)


@pytest.mark.parametrize(
    ("twice", "refused"),
    [
        ('"sub":"bob",%s', None),
        ('%s,"exp":1', "expired"),
        ('"exp":1,%s', None),
        ('%s,"aud":"another"', "another audience"),
    ],
)
async def test_of_a_claim_that_comes_twice_the_last_counts(twice: str, refused: str | None) -> None:
    """RFC 7519 4: a parser rejects it, or takes the last one."""
    payload = "{" + twice.replace("%s", json.dumps(claims())[1:-1]) + "}"
    token = jwt.api_jws.encode(payload.encode(), SECRET.get_secret_value(), algorithm="HS256")
    if refused:
        with pytest.raises(InvalidToken, match=refused):
            await VERIFIER.verify(token)
    else:
        assert (await VERIFIER.verify(token)).customer == "alice"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_algorithm_none(algorithm: str, signature: str) -> None:
    token = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}.{signature}"
    with pytest.raises(ForbiddenToken, match="not signed with HS256"):
        await VERIFIER.verify(token)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_algorithm_that_is_not_ours(algorithm: str) -> None:
    token = jwt.encode(claims(), "s" * 64, algorithm=algorithm)
    with pytest.raises(ForbiddenToken, match="not signed with HS256"):
        await SecretVerifier([SecretStr("s" * 64)], Rules()).verify(token)


async def test_other_secret_may_be_mended_by_a_new_token() -> None:
    with pytest.raises(InvalidToken, match="not valid") as caught:
        await VERIFIER.verify(sign(OTHER_SECRET))
    assert not isinstance(caught.value, ForbiddenToken)


async def test_changed_claims() -> None:
    header, _, signature = sign().split(".")
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(f"{header}.{part(claims(sub='bob'))}.{signature}")


async def test_expired_token_within_and_beyond_the_leeway() -> None:
    await VERIFIER.verify(sign(exp=time.time() - LEEWAY_SECONDS + 10))
    with pytest.raises(InvalidToken, match="expired"):
        await VERIFIER.verify(sign(exp=time.time() - LEEWAY_SECONDS - 1))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_token_that_is_not_good_yet_says_how_far_it_is_from_the_future(claim: str) -> None:
    await VERIFIER.verify(sign(**{claim: time.time() + LEEWAY_SECONDS - 10}))
    with pytest.raises(InvalidToken, match=r"from the future, by (299|300) s") as caught:
        await VERIFIER.verify(sign(**{claim: time.time() + 300}))
    assert not isinstance(caught.value, ForbiddenToken)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize("value", ["now", True, [], 10**400])
async def test_other_times_that_are_none(claim: str, value: object) -> None:
    with pytest.raises(ForbiddenToken, match=claim):
        await VERIFIER.verify(sign(**{claim: value}))


async def test_identity_has_the_tokens_id_and_when_it_was_issued() -> None:
    identity = await VERIFIER.verify(sign(jti="7c9e", iat=1_700_000_000))
    assert (identity.jti, identity.iat) == ("7c9e", 1_700_000_000)
    identity = await VERIFIER.verify(sign())
    assert (identity.jti, identity.iat) == (None, None)
    with pytest.raises(ForbiddenToken, match="jti"):
        await VERIFIER.verify(sign(jti=7))


async def test_each_of_several_secrets_is_good_while_one_replaces_another() -> None:
    verifier = SecretVerifier([OTHER_SECRET, SECRET], Rules())
    assert (await verifier.verify(sign(OTHER_SECRET))).customer == "alice"
    assert (await verifier.verify(sign(SECRET))).customer == "alice"
    with pytest.raises(InvalidToken):
        await verifier.verify(sign(SecretStr("u" * 32)))
    with pytest.raises(InvalidToken, match="expired"):
        await verifier.verify(sign(OTHER_SECRET, exp=1))


@pytest.mark.parametrize("audience", ["shop", ["shop", "kitchen"], "", "Orderbell", 7])
async def test_other_audience(audience: object) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims(aud=audience)).encode(), SECRET.get_secret_value(), "HS256")
    with pytest.raises(ForbiddenToken):
        await VERIFIER.verify(signed)


async def test_one_audience_among_several_is_enough() -> None:
    assert (await VERIFIER.verify(sign(aud=["shop", AUDIENCE]))).customer == "alice"


@pytest.mark.parametrize("claim", ["exp", "aud", "sub"])
async def test_required_claim_is_missing(claim: str) -> None:
    with pytest.raises(ForbiddenToken):
        await VERIFIER.verify(sign(**{claim: None}))


@pytest.mark.parametrize("issuer", [None, "elsewhere"])
async def test_other_issuer(issuer: str | None) -> None:
    with pytest.raises(ForbiddenToken):
        await SecretVerifier([SECRET], SHOP).verify(sign(iss=issuer))


@pytest.mark.parametrize("exp", ["soon", "1e400", "1900000000", True, False, [], {}, 1_900_000_000_000])
async def test_exp_that_is_no_time(exp: object) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims(exp=exp)).encode(), SECRET.get_secret_value(), "HS256")
    with pytest.raises(ForbiddenToken):
        await VERIFIER.verify(signed)


@pytest.mark.parametrize(
    "exp",
    ["Infinity", "-Infinity", "NaN", "1e999", "-1e999", "9" * 2500, "-" + "9" * 2500, "9" * 400, "1e300"],
)
async def test_exp_beyond_all_numbers(exp: str) -> None:
    payload = f'{{"sub":"alice","aud":"{AUDIENCE}","exp":{exp}}}'.encode()
    signed = jwt.api_jws.encode(payload, SECRET.get_secret_value(), "HS256")
    with pytest.raises(ForbiddenToken):
        await VERIFIER.verify(signed)


@pytest.mark.parametrize("customer", ["", "x" * 129, "a\n", "\x00", 7, True, ["alice"], {"id": "alice"}])
async def test_sub_that_is_no_customer_id(customer: object) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims(sub=customer)).encode(), SECRET.get_secret_value(), "HS256")
    with pytest.raises(ForbiddenToken):
        await VERIFIER.verify(signed)


@pytest.mark.parametrize(
    "topics", ["menu", {"menu": 1}, [1], [None], [["menu"]], ["a\n"], [""], ["menu", "x" * 129]]
)
async def test_topics_that_are_none(topics: object) -> None:
    with pytest.raises(ForbiddenToken, match="topic"):
        await VERIFIER.verify(sign(topics=topics))


@pytest.mark.parametrize("signed_by", ["a secret", "a published key"])
async def test_token_of_another_type_is_refused_where_the_type_is_set(signed_by: str) -> None:
    async def verified(typ: str | None, rules: Rules) -> str:
        if signed_by == "a secret":
            token = jwt.encode(claims(), SECRET.get_secret_value(), algorithm="HS256", headers={"typ": typ})
            return (await SecretVerifier([SECRET], rules).verify(token)).customer
        headers = {"typ": typ, "kid": "ES256"}
        token = jwt.encode(claims(), private_key("ES256"), algorithm="ES256", headers=headers)
        with running_issuer() as issuer:
            async with JwksVerifier(issuer.url, rules) as verifier:
                return (await verifier.verify(token)).customer

    access = Rules(type="at+jwt")
    for typ in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert await verified(typ, access) == "alice"
    for other in ("JWT", "logout+jwt", "", None):
        with pytest.raises(ForbiddenToken, match="another type"):
            await verified(other, access)
        assert await verified(other, Rules()) == "alice"


async def test_as_many_topics_as_allowed_and_no_more() -> None:
    names = [f"t{n}" for n in range(MAX_TOPICS)]
    assert len((await VERIFIER.verify(sign(topics=names))).topics) == MAX_TOPICS
    with pytest.raises(InvalidToken, match="topics"):
        await VERIFIER.verify(sign(topics=[*names, "more"]))


async def test_as_long_as_allowed_and_no_longer() -> None:
    token = sign(pad="")
    room = (MAX_TOKEN_BYTES - len(token)) // 4 * 3
    await VERIFIER.verify(sign(pad="x" * room))
    with pytest.raises(InvalidToken, match="too long"):
        await VERIFIER.verify(sign(pad="x" * (room + 8)))


async def test_message_quotes_nothing_of_the_token() -> None:
    for token in (sign(sub="a secret name\n"), sign(topics=["a secret name\n"]), "a.secret.name"):
        with pytest.raises(InvalidToken) as caught:
            await VERIFIER.verify(token)
        assert "secret name" not in str(caught.value)


async def test_asymmetric_token_where_a_secret_is_shared() -> None:
    with pytest.raises(ForbiddenToken, match="not signed with HS256"):
        await VERIFIER.verify(sign_with("RS256"))


def test_settings_choose_how_tokens_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwrapped() -> object:
        return create_verifier(ReceiverSettings())._verifier  # type: ignore[attr-defined] # the reporting one

    monkeypatch.setenv("ORDERBELL_API_KEYS", "k" * 16)
    monkeypatch.setenv("ORDERBELL_JWT_SECRET", "s" * 32)
    assert isinstance(unwrapped(), SecretVerifier)
    monkeypatch.delenv("ORDERBELL_JWT_SECRET")
    monkeypatch.setenv("ORDERBELL_JWT_SECRETS", f"{'s' * 32},{'t' * 32}")
    assert isinstance(unwrapped(), SecretVerifier)
    monkeypatch.delenv("ORDERBELL_JWT_SECRETS")
    monkeypatch.setenv("ORDERBELL_JWKS_URL", "http://127.0.0.1:1/keys")
    assert isinstance(unwrapped(), JwksVerifier)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://id.example/keys", True),
        ("https://id.example/keys", False),
        ("http://127.0.0.1:9/keys", False),
    ],
)
def test_keys_that_come_without_tls_from_elsewhere_are_warned_of(url: str, warned: bool) -> None:
    with capture_logs() as logs:
        create_verifier(ReceiverSettings(api_keys="x" * 16, jwks_url=url))
    assert [log["event"].partition(":")[0] for log in logs] == ["ORDERBELL_JWKS_URL is not https"] * warned
