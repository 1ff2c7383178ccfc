"""Tokens signed with published keys: which are accepted, and how a gateway survives its issuer's faults."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import resource
import socket
import ssl
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from structlog.testing import capture_logs

from receiver.access.claims import MAX_TOKEN_BYTES, Rules
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.access.jwks import MAX_BYTES, JwksVerifier, Pace
from shared import __version__
from tests.certificates import Certificates
from tests.issuers import Issuer, claims, part, private_key, published, running_issuer, sign_with
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

ALGORITHMS = ("RS256", "ES256", "EdDSA")
SOON = Pace(retry=0.02, max_retry=0.05)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@asynccontextmanager
async def verifier_of(
    issuer: Issuer | str, rules: Rules | None = None, pace: Pace | None = None
) -> AsyncIterator[JwksVerifier]:
    url = issuer if isinstance(issuer, str) else issuer.url
    async with JwksVerifier(url, rules or Rules(), pace) as verifier:
        yield verifier


async def fetched(verifier: JwksVerifier) -> None:
    """Wait until its keys are here."""
    await await_until(lambda: verifier.unable is None)


# --- which keys count


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_token_signed_with_a_published_key(issuer: Issuer, algorithm: str) -> None:
    async with verifier_of(issuer) as verifier:
        identity = await verifier.verify(sign_with(algorithm, topics=["menu"]))
    assert identity.channels == ("customer:alice", "topic:menu")


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"])
async def test_key_without_alg_verifies_what_its_kind_can(issuer: Issuer, algorithm: str) -> None:
    """Entra publishes such keys."""
    issuer.publish(published(algorithm, alg=None, use=None))
    async with verifier_of(issuer) as verifier:
        assert (await verifier.verify(sign_with(algorithm))).customer == "alice"


async def test_key_with_alg_verifies_that_one_alone(issuer: Issuer) -> None:
    issuer.publish(published("RS256", alg="RS256"))
    async with verifier_of(issuer) as verifier:
        await verifier.verify(sign_with("RS256"))
        with pytest.raises(InvalidToken):
            await verifier.verify(sign_with("RS256", algorithm="RS512"))


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits long")
@pytest.mark.parametrize(
    "unusable",
    [
        published("RS-enc", use="enc"),
        published("RS-enc", use="enc", alg="RSA-OAEP"),
        published("RS-enc", use=None, alg="RSA-OAEP"),
        published("RS-enc", key_ops=["encrypt"]),
        published("RS-enc", n="!"),
        published("RS-enc", n=7),
        published("ES256-x", crv="secp256k1"),
        published("weak"),
        {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "kid": "RS-enc", "alg": "HS256"},
        {"kty": "unheard-of", "kid": "x"},
        {},
        [],
        None,
        7,
    ],
)
async def test_keys_that_verify_nothing_are_passed_over(issuer: Issuer, unusable: object) -> None:
    """Keycloak publishes such keys beside the one that signs, sometimes under the same id."""
    issuer.publish(unusable, published("ES256"), unusable)
    async with verifier_of(issuer) as verifier:
        assert (await verifier.verify(sign_with("ES256"))).customer == "alice"
        if isinstance(unusable, dict) and unusable.get("kty") == "RSA":
            with pytest.raises(InvalidToken):
                await verifier.verify(
                    sign_with(
                        "RS256" if unusable["kid"] != "weak" else "weak",
                        algorithm="RS256",
                        kid=unusable["kid"],
                    )
                )


async def test_two_keys_of_one_id_are_distinguished_by_their_use(issuer: Issuer) -> None:
    issuer.publish(
        published("RS-enc", kid="1", use="enc"), published("RS256", kid="1"), published("ES256", kid="1")
    )
    async with verifier_of(issuer) as verifier:
        for algorithm in ("RS256", "ES256"):
            assert (await verifier.verify(sign_with(algorithm, kid="1"))).customer == "alice"


async def test_each_of_two_keys_that_share_an_id_verifies_its_tokens(issuer: Issuer) -> None:
    """RFC 7517 4.5 allows it, and some issuers do it while they replace a key."""
    issuer.publish(published("ES256", kid="1"), published("ES256-other", kid="1"))
    async with verifier_of(issuer) as verifier:
        for name in ("ES256", "ES256-other"):
            assert (await verifier.verify(sign_with(name, algorithm="ES256", kid="1"))).customer == "alice"
        with pytest.raises(InvalidToken):
            await verifier.verify(sign_with("ES256-third", algorithm="ES256", kid="1"))


async def test_token_without_a_key_id_is_good_where_one_key_fits(issuer: Issuer) -> None:
    async with verifier_of(issuer) as verifier:
        assert (await verifier.verify(sign_with("ES256", kid=None))).customer == "alice"
    issuer.publish(published("ES256"), published("ES256-other"))
    async with verifier_of(issuer) as verifier:
        with pytest.raises(InvalidToken):
            await verifier.verify(sign_with("ES256", kid=None))


async def test_secret_made_of_a_published_key(issuer: Issuer) -> None:
    """The confusion of algorithms: a public key is not secret."""
    pem = (
        private_key("RS256")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    header, payload = part({"alg": "HS256", "typ": "JWT", "kid": "RS256"}), part(claims())
    signature = jwt.get_algorithm_by_name("HS256").sign(f"{header}.{payload}".encode(), pem)
    token = f"{header}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    async with verifier_of(issuer) as verifier:
        with pytest.raises(ForbiddenToken, match="not signed with"):
            await verifier.verify(token)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "", "ES256K", None, 7, []])
async def test_published_keys_take_no_token_without_their_signature(
    issuer: Issuer, algorithm: object
) -> None:
    token = f"{part({'alg': algorithm, 'kid': 'RS256'})}.{part(claims())}."
    async with verifier_of(issuer) as verifier:
        with pytest.raises(ForbiddenToken, match="not signed with"):
            await verifier.verify(token)


@pytest.mark.parametrize("kid", ["ES256", "other"])
async def test_key_of_another_kind_and_key_that_nobody_published(issuer: Issuer, kid: str) -> None:
    async with verifier_of(issuer) as verifier:
        with pytest.raises(InvalidToken):
            await verifier.verify(sign_with("RS256", kid=kid))


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk"])
async def test_key_that_the_token_brings_along(issuer: Issuer, header: str) -> None:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    value: Any = json.loads(RSAAlgorithm.to_jwk(own.public_key())) if header == "jwk" else issuer.url
    token = jwt.encode(claims(), own, algorithm="RS256", headers={"kid": "RS256", header: value})
    async with verifier_of(issuer) as verifier:
        with pytest.raises(InvalidToken):
            await verifier.verify(token)


@pytest.mark.parametrize("changes", [{"exp": 1}, {"aud": "shop"}, {"sub": None}, {"iss": "elsewhere"}])
async def test_published_keys_do_not_replace_claims(issuer: Issuer, changes: dict[str, Any]) -> None:
    async with verifier_of(issuer, Rules(issuer="shop")) as verifier:
        with pytest.raises(InvalidToken):
            await verifier.verify(sign_with("ES256", **{"iss": "shop", **changes}))


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * (MAX_TOKEN_BYTES + 1), "é", f"{part([])}.{part({})}."])
async def test_garbage_asks_no_issuer(issuer: Issuer, token: str) -> None:
    async with verifier_of(issuer) as verifier:
        await fetched(verifier)
        with pytest.raises(InvalidToken):
            await verifier.verify(token)
    assert len(issuer.asked) == 1


# --- fetching them


async def test_keys_are_fetched_once_for_a_crowd(issuer: Issuer) -> None:
    async with verifier_of(issuer) as verifier:
        issuer.waits_for.clear()
        verifying = [asyncio.create_task(verifier.verify(sign_with("ES256"))) for _ in range(20)]
        await asyncio.sleep(0)
        issuer.waits_for.set()
        await asyncio.gather(*verifying)
    assert len(issuer.asked) == 1


async def test_requests_to_the_issuer_carry_our_name(issuer: Issuer) -> None:
    """Some firewalls refuse every `Python-…`, which would silently lock out all customers."""
    issuer.refuses = lambda headers: "python" in headers["user-agent"].lower()
    async with verifier_of(issuer) as verifier:
        assert (await verifier.verify(sign_with("ES256"))).customer == "alice"
    assert issuer.asked[0]["user-agent"] == f"orderbell/{__version__}"


async def test_new_key_is_fetched_for_at_once(issuer: Issuer) -> None:
    async with verifier_of(issuer) as verifier:
        await verifier.verify(sign_with("ES256"))
        issuer.publish(published("ES256"), published("ES256-new"))
        started = time.monotonic()
        assert (await verifier.verify(sign_with("ES256-new", algorithm="ES256"))).customer == "alice"
        assert time.monotonic() - started < 20  # and not when all are fetched anew
    assert len(issuer.asked) == 2


async def test_new_key_is_found_while_made_up_ones_come_in_crowds(issuer: Issuer) -> None:
    """Meanwhile no page is closed for good: until the keys are fetched again, its token may be valid."""
    async with verifier_of(issuer, pace=Pace(burst=2, refill=0.3)) as verifier:
        await fetched(verifier)
        outcomes = []
        for n in range(20):
            try:
                await verifier.verify(sign_with("ES256", kid=f"made-up-{n}"))
            except (InvalidToken, KeysUnavailable) as error:
                outcomes.append(type(error))
        assert outcomes == [InvalidToken] * 2 + [KeysUnavailable] * 18
        assert len(issuer.asked) == 3  # the first, and the burst
        issuer.publish(published("ES256-new"))

        with anyio.fail_after(5):
            while True:
                try:
                    await verifier.verify(sign_with("ES256-new", algorithm="ES256"))
                    break
                except KeysUnavailable:
                    await asyncio.sleep(0.02)
    assert len(issuer.asked) == 4


async def test_known_tokens_wait_for_no_issuer(issuer: Issuer) -> None:
    async with verifier_of(issuer, pace=Pace(refresh=0.05, answer=30)) as verifier:
        await fetched(verifier)
        issuer.waits_for.clear()
        await await_until(lambda: len(issuer.asked) == 2)  # under way
        with anyio.fail_after(10):
            assert (await verifier.verify(sign_with("ES256"))).customer == "alice"


async def test_key_that_is_withdrawn_counts_no_more(issuer: Issuer) -> None:
    async with verifier_of(issuer, pace=Pace(refresh=0.05)) as verifier:
        await verifier.verify(sign_with("ES256"))
        issuer.publish(published("RS256"))
        asked = len(issuer.asked)
        await await_until(lambda: len(issuer.asked) > asked + 1)
        with pytest.raises(InvalidToken):
            await verifier.verify(sign_with("ES256"))


async def test_token_that_comes_as_a_fetch_ends_holds_nothing_up(issuer: Issuer) -> None:
    """In each turn of the loop one token begins to look for its key, so also in the turn in which a fetch
    ends.
    """
    async with verifier_of(issuer, pace=Pace(refresh=0.01)) as verifier:
        await fetched(verifier)
        asked, looking = len(issuer.asked), []
        while len(issuer.asked) < asked + 5:
            looking.append(asyncio.create_task(verifier.verify(sign_with("ES256", kid="made-up"))))
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*looking, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {InvalidToken, KeysUnavailable}


# --- an issuer that fails


async def test_issuer_that_is_away_is_not_the_tokens_fault(issuer: Issuer) -> None:
    issuer.status = 503
    async with verifier_of(issuer, pace=SOON) as verifier:
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256"))
        assert verifier.unable is not None
        assert "answers 503" in verifier.unable
        issuer.status = 200
        await fetched(verifier)  # without a token that asks
        assert (await verifier.verify(sign_with("ES256"))).customer == "alice"


async def test_keys_that_are_had_count_while_the_issuer_is_away(issuer: Issuer) -> None:
    async with verifier_of(issuer, pace=Pace(refresh=0.02, retry=0.02, max_retry=0.02)) as verifier:
        await fetched(verifier)
        issuer.status = 500
        asked = len(issuer.asked)
        await await_until(lambda: len(issuer.asked) > asked + 2)
        assert verifier.unable is None
        assert (await verifier.verify(sign_with("ES256"))).customer == "alice"
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256-new", algorithm="ES256"))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "its answer is not JSON"),
        (b"<html>", "its answer is not JSON"),
        (b"\xff", "its answer is not JSON"),
        (b"[" * 100_000, "its answer is not JSON"),
        (b"[]", "list `keys`"),
        (b"{}", "list `keys`"),
        (b'{"keys":1}', "list `keys`"),
        (
            b'{"issuer":"x","jwks_uri":"https://id.example/keys"}',
            "it names 'https://id.example/keys' for them",
        ),
        (b'{"keys":[]}', "none of its keys"),
        (b'{"keys":[{}]}', "none of its keys"),
        (b'{"keys":[' + b"{}," * 1000 + b"{}]}", "none of its keys"),
    ],
)
async def test_issuer_that_answers_nonsense_is_reported(issuer: Issuer, body: bytes, why: str) -> None:
    issuer.body = body
    async with verifier_of(issuer) as verifier:
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256"))
        assert verifier.unable is not None
        assert why in verifier.unable


async def test_endless_answer_costs_no_more_than_its_limit(issuer: Issuer) -> None:
    issuer.body = iter(lambda: b" " * 65536, None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with verifier_of(issuer) as verifier:
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256"))
        assert verifier.unable is not None
        assert f"more than {MAX_BYTES} bytes" in verifier.unable
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


async def test_compressed_answer_is_not_unpacked(issuer: Issuer) -> None:
    issuer.headers = {"content-encoding": "gzip"}
    async with verifier_of(issuer) as verifier:
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256"))
        assert verifier.unable is not None
        assert "compressed" in verifier.unable
    assert issuer.asked[0]["accept-encoding"] == "identity"


async def test_redirects_are_followed_but_not_for_ever(issuer: Issuer) -> None:
    with running_issuer() as door:
        door.status, door.headers = 302, {"location": issuer.url}
        async with verifier_of(door) as verifier:
            assert (await verifier.verify(sign_with("ES256"))).customer == "alice"
        door.headers = {"location": door.url}
        async with verifier_of(door) as verifier:
            with pytest.raises(KeysUnavailable):
                await verifier.verify(sign_with("ES256"))
        assert len(door.asked) < 8


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("https"))


def over_tls(issuer: Issuer, of: Certificates) -> str:
    """Its URL from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(of.server_cert, of.server_key)
    issuer.socket = context.wrap_socket(issuer.socket, server_side=True)
    return issuer.url.replace("http:", "https:")


@pytest.mark.parametrize("hops", ["https", "http", "https http", "http https", "https https"])
async def test_keys_of_an_issuer_with_tls_come_by_tls_alone(
    https: Certificates, monkeypatch: pytest.MonkeyPatch, hops: str
) -> None:
    """An answer over http could name any other place, so no hop on the way may be one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(https.ca))
    with contextlib.ExitStack() as stack:
        url = ""
        for scheme in reversed(["https", *hops.split()]):  # the last one has the keys
            hop = stack.enter_context(running_issuer())
            if url:
                hop.status, hop.headers = 302, {"location": url}
            url = over_tls(hop, https) if scheme == "https" else hop.url
        async with verifier_of(url) as verifier:
            if "http" in hops.split():
                with pytest.raises(KeysUnavailable):
                    await verifier.verify(sign_with("ES256"))
                assert verifier.unable is not None
                assert "it redirects from https to http" in verifier.unable
            else:
                assert (await verifier.verify(sign_with("ES256"))).customer == "alice"


async def test_gateways_that_were_started_together_do_not_ask_together_for_ever(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.Event().wait()

    monkeypatch.setattr("receiver.access.jwks.asyncio", _AsyncioThatSleeps(note))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(verifier_of(issuer))
        await await_until(lambda: len(waited) == 3)
    assert len(set(waited)) == 3
    assert all(270 <= seconds <= 330 for seconds in waited)


class _AsyncioThatSleeps:
    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of an issuer that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/keys"


async def test_issuer_that_never_answers_keeps_a_crowd_no_longer_than_one(silent: str) -> None:
    async with verifier_of(silent, pace=Pace(answer=0.2)) as verifier:
        verifying = [verifier.verify(sign_with("ES256")) for _ in range(20)]
        with anyio.fail_after(3.5):  # one after the other would take four
            failures = await asyncio.gather(*verifying, return_exceptions=True)
        assert {type(failure) for failure in failures} == {KeysUnavailable}
        assert verifier.unable is not None
        assert "no answer within 0.2 s" in verifier.unable


async def test_token_waits_for_keys_no_longer_than_its_deadline(silent: str) -> None:
    async with verifier_of(silent, pace=Pace(answer=30, keys=0.1)) as verifier:
        with anyio.fail_after(10), pytest.raises(KeysUnavailable, match="in time"):
            await verifier.verify(sign_with("ES256"))


async def test_issuer_that_drips_is_held_to_the_same_deadline(issuer: Issuer) -> None:
    """Each byte would restart a socket's time-out."""
    over = threading.Event()

    def drip() -> Iterator[bytes]:
        while not over.wait(0.02):
            yield b" "

    issuer.body = drip()
    async with verifier_of(issuer, pace=Pace(answer=0.3)) as verifier:
        with anyio.fail_after(10), pytest.raises(KeysUnavailable):
            await verifier.verify(sign_with("ES256"))
        assert verifier.unable is not None
        assert "no answer within 0.3 s" in verifier.unable
    over.set()


async def test_issuer_that_failed_is_not_asked_for_each_token(issuer: Issuer) -> None:
    issuer.status = 503
    async with verifier_of(issuer) as verifier:
        for _ in range(50):
            with pytest.raises(KeysUnavailable):
                await verifier.verify(sign_with("ES256"))
    assert len(issuer.asked) <= 6  # the burst, and those of its own, on a slow machine


async def test_failure_is_logged_once_and_its_end_too(issuer: Issuer) -> None:
    issuer.status = 503
    with capture_logs() as logs:
        async with verifier_of(issuer, pace=SOON) as verifier:
            await await_until(lambda: len(issuer.asked) > 3)
            issuer.status = 200
            await fetched(verifier)
    assert [line["event"] for line in logs] == [
        "the issuer's keys cannot be fetched",
        "the issuer's keys were fetched",
    ]
    assert logs[0]["reason"] == "it answers 503"


async def test_nothing_is_left_running_when_it_is_left(silent: str) -> None:
    before = asyncio.all_tasks()
    async with verifier_of(silent) as verifier:
        waiting = asyncio.create_task(verifier.verify(sign_with("ES256")))
        await asyncio.sleep(0.02)
    with pytest.raises((KeysUnavailable, asyncio.CancelledError)):
        await waiting
    assert asyncio.all_tasks() == before
