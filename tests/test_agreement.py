"""Settings that services must share: two that differ are found, by whatever both talk to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.agreement import LATELY_SECONDS, OF_GATEWAYS, SHARED, Agreement, announced
from shared.settings import ReceiverSettings
from tests.waiting import await_until

if TYPE_CHECKING:
    from tests.processes import Processes, ServiceProcess

WARNING = "services of this installation run with different settings"


def gateway(monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    given = {"api_keys": "k" * 40, "jwt_secret": "s" * 40, **settings}
    with monkeypatch.context() as patch:
        for name, value in given.items():
            patch.setenv(f"ORDERBELL_{name.upper()}", value)
        return announced(ReceiverSettings(), (*SHARED, *OF_GATEWAYS))


@pytest.mark.parametrize(
    ("one", "other", "differing"),
    [
        ({}, {}, ()),
        ({}, {"jwt_secret": "t" * 40}, ("jwt_secret",)),
        ({"jwt_audience": "a"}, {"jwt_audience": "a,b"}, ("jwt_audience",)),
        ({"redis_url": "redis://one/3"}, {"redis_url": "redis://other:6380/3"}, ()),
        ({"redis_url": "redis://one/3"}, {"redis_url": "redis://one/4"}, ("redis_url",)),
        (
            {"allowed_origins": "https://a.example,https://b.example"},
            {"allowed_origins": "https://b.example,https://a.example"},
            (),
        ),
        ({"key_prefix": "a"}, {"key_prefix": "b"}, ("key_prefix",)),
        ({"live_keys": f"k1:{'a' * 40}"}, {}, ("live_keys",)),
        ({"drain_seconds": "1"}, {"drain_seconds": "2"}, ()),  # may differ
    ],
)
def test_different_values_are_found_and_equal_ones_are_not(
    one: dict[str, str], other: dict[str, str], differing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement = Agreement("gateways", now=lambda: 0.0)
    agreement.note("one", gateway(monkeypatch, **one))
    agreement.note("other", gateway(monkeypatch, **other))
    assert agreement.differing() == differing


def test_who_is_gone_and_who_says_nothing_differ_from_nobody() -> None:
    now = 0.0
    agreement = Agreement("gateways", "key_prefix=aaaaaa", lambda: now)
    agreement.note("old", "")
    agreement.note("odd", "no announcement, =, key_prefix=zz")
    assert agreement.differing() == ()
    agreement.note("one", "key_prefix=bbbbbb,jwt_secret=cccccc")
    assert agreement.differing() == ("key_prefix",)
    now = LATELY_SECONDS + 1
    assert agreement.differing() == ()


def test_announcement_has_no_secret_and_too_little_of_its_hash_to_find_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = gateway(monkeypatch)
    assert "s" * 40 not in said
    assert re.fullmatch(r"([a-z_]+=[0-9a-f]{6},?)+", said)


def differing(service: ServiceProcess) -> set[str]:
    text = httpx2.get(f"{service.url}/metrics", trust_env=False).text
    return set(re.findall(r'orderbell_settings_differ\{setting="(\w+)"\} 1\.0', text))


@pytest.mark.anyio
async def test_gateways_that_differ_are_reported_by_their_sender_until_they_agree(
    processes: Processes,
) -> None:
    sender = processes.start_sender()
    processes.start_receiver(sender=sender)
    other = processes.start_receiver(sender=sender, jwt_issuer="https://issuer.example")

    async def found() -> bool:
        return differing(sender) == {"jwt_issuer"}

    await await_until(found)
    [line] = sender.records(WARNING)
    assert line["settings"] == ["ORDERBELL_JWT_ISSUER"]
    assert len(line["services"]) == 2
    other.terminate()


@pytest.mark.anyio
async def test_senders_of_one_database_that_differ_are_reported_by_a_gateway_that_talks_to_both(
    processes: Processes,
) -> None:
    one = processes.start_sender()
    gateway = processes.start_receiver(sender=one)

    async def heard() -> bool:
        return gateway.answers("/readyz")

    await await_until(heard)
    assert differing(gateway) == set()
    one.terminate()  # the next one takes its address, as behind a balancer
    one.environment["ORDERBELL_HISTORY_DAYS"] = "3"
    one.start()

    async def found() -> bool:
        return differing(gateway) == {"history_days"}

    await await_until(found)
    assert gateway.records(WARNING)[0]["settings"] == ["ORDERBELL_HISTORY_DAYS"]
