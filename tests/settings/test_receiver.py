"""A gateway's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import ReceiverSettings, load
from tests.certificates import Certificates
from tests.settings.values import KEY, SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from tests.settings.conftest import Faults, Set


def test_tokens_are_verified_in_exactly_one_way(set: Set, faults: Faults) -> None:
    set(api_keys=KEY)
    assert "exactly one" in faults(ReceiverSettings)[0]
    set(jwt_secret=SECRET, jwks_url="https://issuer.example/keys")
    assert "exactly one" in faults(ReceiverSettings)[0]


def test_secret_that_is_too_short(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secret="s" * 31)
    assert "at least 32 bytes" in faults(ReceiverSettings)[0]


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEA\\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY----- MCowBQYDK2VwAyEA -----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA",
        '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}',
    ],
)
def test_public_key_as_secret_is_a_fault(set: Set, faults: Faults, key: str) -> None:
    """Anyone who knows it could sign tokens, and it is public."""
    set(api_keys=KEY, jwt_secret=key)
    assert "a key of another kind" in faults(ReceiverSettings)[0]


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/", "https://shop.example/x", "*", "ftp://h", "null"]
)
def test_origin_that_is_none(set: Set, faults: Faults, origin: str) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, allowed_origins=f"https://a.example,{origin}")
    (line,) = faults(ReceiverSettings)
    assert f"{origin!r} is not an origin" in line


def test_origins_are_kept_as_browsers_send_them(set: Set) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, allowed_origins="HTTPS://Shop.Example:443, http://büro.example:8080")
    assert load(ReceiverSettings).allowed_origins == (
        "https://shop.example",
        "http://xn--bro-hoa.example:8080",
    )


@pytest.mark.parametrize("name", ["a b", "token;path", "token=", "jetón"])
def test_cookie_that_no_browser_sends_is_refused(set: Set, faults: Faults, name: str) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, jwt_cookie=name)
    (line,) = faults(ReceiverSettings)
    assert line.startswith("orderbell: ORDERBELL_JWT_COOKIE: ")


def test_authority_for_a_sender_without_tls_is_a_fault(set: Set, faults: Faults, tmp_path: Path) -> None:
    """The certificate would prove nothing."""
    authority = Certificates.make(tmp_path).ca
    set(api_keys=KEY, jwt_secret=SECRET, sender_ca_file=str(authority))
    assert faults(ReceiverSettings) == [
        "orderbell: ORDERBELL_SENDER_CA needs an ORDERBELL_SENDER_URL with https://"
    ]
    set(sender_url="https://sender")
    assert load(ReceiverSettings).sender_ca == authority.read_text().strip()


def test_several_secrets_while_one_replaces_another(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secrets=f"{'t' * 32},{SECRET}")
    assert [secret.get_secret_value() for secret in load(ReceiverSettings).secrets] == ["t" * 32, SECRET]
    set(jwt_secret="u" * 32)
    assert load(ReceiverSettings).secrets[0].get_secret_value() == "u" * 32
    set(jwt_secrets=f"{SECRET},short")
    (line,) = faults(ReceiverSettings)
    assert line.startswith("orderbell: ORDERBELL_JWT_SECRETS: needs at least 32 bytes")


def test_audiences_may_be_several(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, jwt_audience="shop-web, shop-app")
    assert load(ReceiverSettings).jwt_audiences == ("shop-web", "shop-app")
    set(jwt_audience=" , ")
    assert "at least one audience" in faults(ReceiverSettings)[0]


@pytest.mark.parametrize("claim", [".", "a\x00b"[:1] + "\x07", "\u200b\x1b"])
def test_claim_that_has_no_name(set: Set, faults: Faults, claim: str) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, jwt_customer_claim=claim)
    (line,) = faults(ReceiverSettings)
    assert line.startswith("orderbell: ORDERBELL_JWT_CUSTOMER_CLAIM: expected the name of a claim")
