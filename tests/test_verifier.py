"""Who is asking: tokens that prove something, and all those that don't (RFC 8725)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from receiver.access import jwks
from receiver.access.claims import LEEWAY_SECONDS, MAX_TOKEN_BYTES
from receiver.access.identity import InvalidToken, KeysUnavailable
from receiver.access.jwks import JwksVerifier
from receiver.access.verifier import SecretVerifier, create_verifier
from shared.settings import ReceiverSettings
from shared.tokens import MAX_TOPICS, mint_token

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

SECRET = SecretStr("s" * 32)
AUDIENCE = "orderbell"
VERIFIER = SecretVerifier(SECRET, AUDIENCE, None)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None takes one away."""
    good = {"sub": "alice", "aud": AUDIENCE, "exp": int(time.time()) + 600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def sign(secret: SecretStr = SECRET, /, **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret.get_secret_value(), algorithm="HS256")


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


# --- tokens with a shared secret


async def test_good_token_names_its_customer_and_topics() -> None:
    identity = await VERIFIER.verify(sign(topics=["menu", "news"]))
    assert identity.customer == "alice"
    assert identity.topics == ("menu", "news")
    assert identity.channels == ("customer:alice", "topic:menu", "topic:news")


async def test_minted_token_is_good() -> None:
    token = mint_token(
        SECRET, "alice", audience=AUDIENCE, issuer="shop", topics=["menu"], lifetime_seconds=60
    )
    identity = await SecretVerifier(SECRET, AUDIENCE, "shop").verify(token)
    assert identity.channels == ("customer:alice", "topic:menu")
    assert abs(identity.expires_at - (time.time() + 60 + LEEWAY_SECONDS)) < 5


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "x" * 100, "é.é.é", "Bearer x", "\x00"],
)
async def test_garbage(token: str) -> None:
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(token)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_algorithm_none(algorithm: str, signature: str) -> None:
    token = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}.{signature}"
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(token)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_algorithm_that_is_not_ours(algorithm: str) -> None:
    token = jwt.encode(claims(), "s" * 64, algorithm=algorithm)
    with pytest.raises(InvalidToken):
        await SecretVerifier(SecretStr("s" * 64), AUDIENCE, None).verify(token)


async def test_other_secret() -> None:
    with pytest.raises(InvalidToken, match="not valid"):
        await VERIFIER.verify(sign(SecretStr("t" * 32)))


async def test_changed_claims() -> None:
    header, _, signature = sign().split(".")
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(f"{header}.{part(claims(sub='bob'))}.{signature}")


async def test_expired_token_within_and_beyond_the_leeway() -> None:
    await VERIFIER.verify(sign(exp=time.time() - LEEWAY_SECONDS + 10))
    with pytest.raises(InvalidToken, match="expired"):
        await VERIFIER.verify(sign(exp=time.time() - LEEWAY_SECONDS - 1))


async def test_token_that_is_not_yet_good() -> None:
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(sign(nbf=time.time() + LEEWAY_SECONDS + 60))


@pytest.mark.parametrize("audience", ["shop", ["shop", "kitchen"], "", "Orderbell", 7])
async def test_other_audience(audience: object) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims(aud=audience)).encode(), SECRET.get_secret_value(), "HS256")
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(signed)


async def test_one_audience_among_several_is_enough() -> None:
    assert (await VERIFIER.verify(sign(aud=["shop", AUDIENCE]))).customer == "alice"


@pytest.mark.parametrize("claim", ["exp", "aud", "sub"])
async def test_required_claim_is_missing(claim: str) -> None:
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(sign(**{claim: None}))


@pytest.mark.parametrize("issuer", [None, "elsewhere"])
async def test_other_issuer(issuer: str | None) -> None:
    with pytest.raises(InvalidToken):
        await SecretVerifier(SECRET, AUDIENCE, "shop").verify(sign(iss=issuer))


@pytest.mark.parametrize("exp", ["soon", "1e400", True, [], {}])
async def test_exp_that_is_no_time(exp: object) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims(exp=exp)).encode(), SECRET.get_secret_value(), "HS256")
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(signed)


@pytest.mark.parametrize("exp", ["Infinity", "-Infinity", "NaN", "1e999"])
async def test_exp_beyond_all_numbers(exp: str) -> None:
    payload = f'{{"sub":"alice","aud":"{AUDIENCE}","exp":{exp}}}'.encode()
    signed = jwt.api_jws.encode(payload, SECRET.get_secret_value(), "HS256")
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(signed)


@pytest.mark.parametrize(
    "customer", ["", "a b", "a:b", "x" * 129, "*", "a\n", 7, True, ["alice"], {"id": "alice"}]
)
async def test_sub_that_is_no_customer_id(customer: object) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims(sub=customer)).encode(), SECRET.get_secret_value(), "HS256")
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(signed)


@pytest.mark.parametrize(
    "topics", ["menu", {"menu": 1}, [1], [None], [["menu"]], ["a b"], ["*"], [""], ["menu", "x:y"]]
)
async def test_topics_that_are_none(topics: object) -> None:
    with pytest.raises(InvalidToken, match="topic"):
        await VERIFIER.verify(sign(topics=topics))


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
    for token in (sign(sub="a secret name"), sign(topics=["a secret name"]), "a.secret.name"):
        with pytest.raises(InvalidToken) as caught:
            await VERIFIER.verify(token)
        assert "secret name" not in str(caught.value)


# --- tokens with published keys

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}
PUBLISHED = {
    "keys": [
        {**json.loads(RSAAlgorithm.to_jwk(RSA_KEY.public_key())), "kid": "RS256", "use": "sig"},
        {**json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key())), "kid": "ES256", "use": "sig"},
        {**json.loads(OKPAlgorithm.to_jwk(ED_KEY.public_key())), "kid": "EdDSA", "use": "sig"},
    ]
}


class Issuer(HTTPServer):
    """Publishes its keys; counts how often it was asked; may answer something else."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), IssuerHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/keys"
        self.asked = 0
        self.status = 200
        self.body = json.dumps(PUBLISHED).encode()


class IssuerHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Issuer)
        self.server.asked += 1
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sign_with(algorithm: str, *, kid: str | None = None, **changes: Any) -> str:
    return jwt.encode(
        claims(**changes), KEYS[algorithm], algorithm=algorithm, headers={"kid": kid or algorithm}
    )


@pytest.mark.parametrize("algorithm", KEYS)
async def test_token_signed_with_a_published_key(issuer: Issuer, algorithm: str) -> None:
    identity = await JwksVerifier(issuer.url, AUDIENCE, None).verify(sign_with(algorithm, topics=["menu"]))
    assert identity.channels == ("customer:alice", "topic:menu")


async def test_keys_are_fetched_once_for_a_crowd(issuer: Issuer) -> None:
    verifier = JwksVerifier(issuer.url, AUDIENCE, None)
    async with anyio.create_task_group() as crowd:
        for _ in range(20):
            crowd.start_soon(verifier.verify, sign_with("ES256"))
    assert issuer.asked == 1


async def test_secret_made_of_a_published_key(issuer: Issuer) -> None:
    """The confusion of algorithms: a public key is no secret."""
    pem = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, payload = part({"alg": "HS256", "typ": "JWT", "kid": "RS256"}), part(claims())
    algorithm = jwt.get_algorithm_by_name("HS256")
    signature = algorithm.sign(f"{header}.{payload}".encode(), pem)
    token = f"{header}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(token)


async def test_asymmetric_token_where_a_secret_is_shared() -> None:
    with pytest.raises(InvalidToken):
        await VERIFIER.verify(sign_with("RS256"))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_published_keys_take_no_token_without_their_signature(issuer: Issuer, algorithm: str) -> None:
    token = f"{part({'alg': algorithm, 'kid': 'RS256'})}.{part(claims())}."
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(token)


async def test_key_of_another_kind_than_the_algorithm(issuer: Issuer) -> None:
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(sign_with("RS256", kid="ES256"))


async def test_key_that_nobody_published(issuer: Issuer) -> None:
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(sign_with("RS256", kid="other"))


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk"])
async def test_key_that_the_token_brings_along(issuer: Issuer, header: str) -> None:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    value: Any = json.loads(RSAAlgorithm.to_jwk(own.public_key())) if header == "jwk" else issuer.url
    token = jwt.encode(claims(), own, algorithm="RS256", headers={"kid": "RS256", header: value})
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(token)


@pytest.mark.parametrize("changes", [{"exp": 1}, {"aud": "shop"}, {"sub": None}, {"iss": "elsewhere"}])
async def test_published_keys_do_not_replace_claims(issuer: Issuer, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, "shop").verify(
            sign_with("ES256", **{"iss": "shop", **changes})
        )


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * (MAX_TOKEN_BYTES + 1), "é"])
async def test_garbage_asks_no_issuer(issuer: Issuer, token: str) -> None:
    with pytest.raises(InvalidToken):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(token)
    assert issuer.asked == 0


async def test_issuer_that_is_away_is_not_the_tokens_fault(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_FAILED_SECONDS", 0)
    verifier = JwksVerifier(issuer.url, AUDIENCE, None)
    issuer.status = 503
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign_with("ES256"))
    issuer.status = 200
    assert (await verifier.verify(sign_with("ES256"))).customer == "alice"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"keys":[]}', b'{"keys":[{}]}', b'{"keys":1}', b"\xff"]
)
async def test_issuer_that_answers_nonsense_is_not_the_tokens_fault(issuer: Issuer, body: bytes) -> None:
    issuer.body = body
    with pytest.raises(KeysUnavailable):
        await JwksVerifier(issuer.url, AUDIENCE, None).verify(sign_with("ES256"))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """An issuer that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def test_issuer_that_never_answers_keeps_a_crowd_no_longer_than_one(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_ISSUER_SECONDS", 0.2)
    verifier = JwksVerifier(f"http://127.0.0.1:{silent.getsockname()[1]}/keys", AUDIENCE, None)
    verifying = [verifier.verify(sign_with("ES256")) for _ in range(20)]
    with anyio.fail_after(2):
        failures = await asyncio.gather(*verifying, return_exceptions=True)
    assert {type(failure) for failure in failures} == {KeysUnavailable}


async def test_token_waits_for_keys_no_longer_than_its_deadline(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly an issuer answers: each byte of it begins urllib's time-out anew."""
    monkeypatch.setattr(jwks, "KEYS_SECONDS", 0.1)
    monkeypatch.setattr(jwks, "_ISSUER_SECONDS", 2)
    verifier = JwksVerifier(f"http://127.0.0.1:{silent.getsockname()[1]}/keys", AUDIENCE, None)
    with anyio.fail_after(1), pytest.raises(KeysUnavailable, match="in time"):
        await verifier.verify(sign_with("ES256"))


async def test_issuer_that_failed_is_not_asked_again_at_once(issuer: Issuer) -> None:
    verifier = JwksVerifier(issuer.url, AUDIENCE, None)
    issuer.status = 503
    for _ in range(20):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256"))
    assert issuer.asked <= 3  # how many seconds that takes, on a slow machine


async def test_made_up_keys_do_not_make_us_ask_each_time(issuer: Issuer) -> None:
    """Or anybody could make us hammer the issuer, and hold the lock meanwhile."""
    verifier = JwksVerifier(issuer.url, AUDIENCE, None)
    await verifier.verify(sign_with("ES256"))
    for n in range(20):
        with contextlib.suppress(InvalidToken):
            await verifier.verify(sign_with("ES256", kid=f"made-up-{n}"))
    assert issuer.asked <= 3


def test_settings_choose_how_tokens_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERBELL_API_KEYS", "k" * 16)
    monkeypatch.setenv("ORDERBELL_JWT_SECRET", "s" * 32)
    assert isinstance(create_verifier(ReceiverSettings()), SecretVerifier)
    monkeypatch.delenv("ORDERBELL_JWT_SECRET")
    monkeypatch.setenv("ORDERBELL_JWKS_URL", "http://127.0.0.1:1/keys")
    assert isinstance(create_verifier(ReceiverSettings()), JwksVerifier)
