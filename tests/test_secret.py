"""Tokens whose header is known are judged as PyJWT would judge them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re

import jwt
import pytest
from pydantic import SecretStr

from receiver.access import secret as secret_module
from receiver.access.claims import Rules
from receiver.access.identity import InvalidToken
from receiver.access.secret import Secret
from receiver.access.verifier import SecretVerifier
from tests.issuers import claims

KEY = SecretStr("s" * 32)
TOKEN = jwt.encode(claims(), KEY.get_secret_value(), algorithm="HS256")


def verdict(secret: Secret, token: str) -> bytes | str:
    try:
        return secret.payload(token)
    except InvalidToken as error:
        return f"{type(error).__name__}: {error}"


def signed(header: str, payload: str, signature: str | None = None, *, key: str = "s" * 32) -> str:
    digest = hmac.digest(key.encode(), f"{header}.{payload}".encode(), hashlib.sha256)
    return f"{header}.{payload}.{signature or base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def acquainted() -> Secret:
    secret = Secret(KEY)
    secret.payload(TOKEN)
    return secret


def test_pyjwt_is_asked_once_for_all_tokens_with_one_header(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = acquainted()
    monkeypatch.setattr(secret_module, "verified_payload", None)
    other = jwt.encode(claims(sub="bob"), KEY.get_secret_value(), algorithm="HS256")
    assert json.loads(secret.payload(other))["sub"] == "bob"


@pytest.mark.parametrize("replacement", ["A", "-", "_", "+", "/", "=", ".", "!", "é", "\ud800"])
def test_any_changed_character_is_judged_as_by_pyjwt(replacement: str) -> None:
    secret = acquainted()
    for n, character in enumerate(TOKEN):
        if character != replacement:
            changed = TOKEN[:n] + replacement + TOKEN[n + 1 :]
            assert verdict(secret, changed) == verdict(Secret(KEY), changed), n


@pytest.mark.parametrize("ending", ["", "=", "==", "A", ".", "\n", " "])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_any_ending_of_a_part_is_judged_as_by_pyjwt(part: int, ending: str) -> None:
    parts = TOKEN.split(".")
    parts[part] += ending
    assert verdict(acquainted(), ".".join(parts)) == verdict(Secret(KEY), ".".join(parts))


@pytest.mark.parametrize("change", ["{}=", "{}==", "{}!", " {}", "{}\n", "{}.", ".{}", "+{}", "{}A", "{}AA"])
def test_a_good_signature_does_not_excuse_how_the_payload_is_written(change: str) -> None:
    header, payload, _ = TOKEN.split(".")
    token = signed(header, change.format(payload))
    assert verdict(acquainted(), token) == verdict(Secret(KEY), token)


def test_a_signature_of_another_secret_is_refused_where_the_header_is_known() -> None:
    with pytest.raises(InvalidToken):
        acquainted().payload(jwt.encode(claims(), "t" * 32, algorithm="HS256"))


def test_a_header_that_was_refused_is_not_known_afterwards() -> None:
    secret = acquainted()
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    token = signed(header, TOKEN.split(".")[1])
    first = verdict(secret, token)
    assert first == verdict(secret, token) == verdict(Secret(KEY), token)
    assert isinstance(first, str)


HEADERS = [
    '{"alg":"HS256"}', '{"typ":"JWT","alg":"HS256"}', ' {"alg" : "HS256"}\n',
    '{"alg":"HS256","typ":"at+jwt"}',
    '{"alg":"HS256","typ":7}', '{"alg":"HS256","kid":7}', '{"alg":"HS256","kid":"\\ud800"}',
    '{"alg":"HS256","crit":["exp"],"exp":1}', '{"alg":"HS256","crit":[]}', '{"alg":"HS256","crit":7}',
    '{"alg":"HS256","b64":false,"crit":["b64"]}', '{"alg":"HS256","b64":false}', '{"alg":"HS512"}',
    '{"alg":"hs256"}', '{"alg":"none"}', '{"alg":["HS256"]}', '{"alg":"none","alg":"HS256"}', '{}', '[]', '7',
    '{"alg":"HS256","alg":"none"}', '{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}', "", "\xff",
    '{"alg":"HS256"',
]  # fmt: skip
PAYLOADS = [
    json.dumps(claims()),
    json.dumps(claims(exp=1)),
    json.dumps(claims(exp=None)),
    "{}",
    "[]",
    "",
    "7",
]


@pytest.mark.anyio
@pytest.mark.parametrize("expected", [None, "at+jwt"])
async def test_each_token_is_judged_alike_however_many_came_before(expected: str | None) -> None:
    """Signed with the new secret, the old one, and one that is neither: a header that one secret's tokens
    made known excuses nothing in another's.
    """
    old, new, foreign = "o" * 32, "n" * 32, "f" * 32

    async def judge(verifier: SecretVerifier, token: str) -> str:
        try:
            return repr(await verifier.verify(token))
        except InvalidToken as error:
            return re.sub(r"\d+ s ago", "", f"{type(error).__name__}: {error}")  # the clock goes on

    def fresh() -> SecretVerifier:
        return SecretVerifier([SecretStr(new), SecretStr(old)], Rules(type=expected))

    verifier, good = fresh(), 0
    tokens = [
        signed(part(header), part(payload), key=key)
        for header in HEADERS
        for payload in PAYLOADS
        for key in (old, new, foreign)
    ]
    for token in (*tokens, *tokens):
        verdict = await judge(fresh(), token)
        assert await judge(verifier, token) == verdict
        good += verdict.startswith("Identity")
    assert good  # some are


def part(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("latin-1")).rstrip(b"=").decode()


def test_headers_that_never_end_use_no_more_memory() -> None:
    secret = Secret(KEY)
    for n in range(50):
        secret.payload(jwt.encode(claims(), KEY.get_secret_value(), "HS256", headers={"kid": str(n)}))
    assert len(secret._headers) == secret_module._MAX_HEADERS
    assert secret.payload(TOKEN)  # one more, which PyJWT judges
    with pytest.raises(InvalidToken):
        secret.payload(TOKEN[:-1])
