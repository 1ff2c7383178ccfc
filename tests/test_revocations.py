"""Revocations: what they touch, how gateways learn of them, and that no fault lets a revoked token in."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from receiver.access.identity import Identity
from receiver.access.revocations import Page, Revocation, RevocationList, Revocations
from receiver.connections.connection import End
from sender import revocations
from sender.revocations import InvalidRevocation
from tests.chaos.proxy import Proxy, Toxics
from tests.connections import Handed
from tests.senders import run_sender
from tests.waiting import await_until, wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sender.database.protocol import Database
    from tests.processes import Processes, ReceiverProcess, SenderProcess
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
LATER = NOW.timestamp() + 86_400


def identity(customer: str = "alice", *, jti: str | None = None, iat: float | None = 100.0) -> Identity:
    return Identity(customer, (), 4e9, jti, iat)


def customer_revocation(name: str, before: float, position: int = 1) -> Revocation:
    return Revocation(position, 4e9, customer_id=name, issued_before=before)


# --- what it touches


def test_a_customers_tokens_issued_before_the_time_are_touched_and_no_others() -> None:
    ours = Revocations()
    ours.add(customer_revocation("alice", 100.5))
    assert ours.touches(identity(iat=100))
    assert ours.touches(identity(iat=None))  # it is unknown when it was issued
    assert not ours.touches(identity(iat=101))
    for other in ("Alice", "alice.", "alicе", "bob"):  # the third has a Cyrillic letter
        assert not ours.touches(identity(other))


def test_a_token_is_touched_by_its_own_id_alone() -> None:
    ours = Revocations()
    ours.add(Revocation(1, 4e9, jti="one"))
    assert ours.touches(identity(jti="one"))
    assert not ours.touches(identity(jti="One"))
    assert not ours.touches(identity())


def test_what_must_have_ended_is_forgotten() -> None:
    now = 1_000.0
    ours = Revocations(lambda: now)
    ours.add(Revocation(1, 1_500.0, jti="one"))
    ours.add(Revocation(2, 2_500.0, customer_id="alice", issued_before=900.0))
    for now, left in ((1_400.0, 2), (1_600.0, 1), (2_600.0, 0)):  # noqa: B007 - the clock reads it
        ours.forget_ended()
        assert len(ours) == left


class Sender:
    """Gives its answers in order; then reports nothing new."""

    def __init__(self, *answers: Page | None) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def revocations(self, after: int) -> Page | None:
        self.asked.append(after)
        return self.answers.pop(0) if self.answers else Page([], 0 if after == 0 else after)


async def test_a_database_that_went_back_is_read_from_the_beginning() -> None:
    sender = Sender(Page([customer_revocation("alice", 1.0, 9)], 9), Page([], 3))
    listing = RevocationList(sender, Revocations(), list, ask_seconds=0.001)
    task = asyncio.create_task(listing.run())
    await await_until(lambda: len(sender.asked) >= 3)
    task.cancel()
    assert sender.asked[:3] == [0, 9, 0]


async def test_open_connections_that_are_touched_end_and_others_stay() -> None:
    alice, bob, stranger = Handed(), Handed(), Handed()
    alice.identity, bob.identity = identity("alice"), identity("bob")
    sender = Sender(Page([customer_revocation("alice", 200.0)], 1))
    listing = RevocationList(sender, Revocations(), lambda: [alice, bob, stranger], ask_seconds=0.001)
    task = asyncio.create_task(listing.run())
    await await_until(lambda: len(sender.asked) >= 2)
    task.cancel()
    assert (alice.ends, bob.ends, stranger.ends) == ([End.UNAUTHENTICATED], [], [])


# --- the sender's list


@pytest.fixture
async def sender(tmp_path: Path, redis_url: str, key_prefix: str) -> AsyncIterator[RunningSender]:
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    async with run_sender(url, redis_url, key_prefix, relaying=False) as sender:
        yield sender


async def revoke(database: Database, customer: str, before: float) -> int:
    return (
        await database.write(
            lambda connection: revocations.revoke_customer(
                connection, customer, issued_before=before, now=NOW, kept_until=LATER
            )
        )
    ).position


async def test_a_repetition_gets_a_new_place_and_never_an_earlier_time(sender: RunningSender) -> None:
    database = sender.database
    assert [await revoke(database, "alice", before) for before in (100.0, 200.0, 50.0)] == [1, 2, 3]
    page = await database.read(lambda connection: revocations.read(connection, after=0, now=NOW))
    assert [(one.position, one.customer_id, one.issued_before) for one in page.revocations] == [
        (3, "alice", 200.0)
    ]


async def test_a_time_to_come_is_refused(sender: RunningSender) -> None:
    with pytest.raises(InvalidRevocation):
        await revoke(sender.database, "alice", NOW.timestamp() * 1000)


async def test_ended_ones_are_pruned_and_places_go_on(sender: RunningSender) -> None:
    database, later = sender.database, NOW + timedelta(days=2)
    for customer in ("alice", "bob"):
        await revoke(database, customer, 100.0)
    assert await database.write(lambda one: revocations.prune(one, now=later, limit=10)) == 1
    page = await database.read(lambda one: revocations.read(one, after=0, now=later))
    assert (list(page.revocations), page.newest) == ([], 2)
    assert await revoke(database, "carol", 100.0) == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"jti": "a", "customer_id": "alice"},
        {"jti": ""},
        {"jti": "a\0b"},
        {"jti": "x" * 257},
        {"jti": "a", "issued_before": 5},
        {"customer_id": ""},
        {"customer_id": "a\x00b"},
        {"customer_id": "alice", "issued_before": "yesterday"},
        {"customer_id": "alice", "issued_before": "2026-11-23T14:25:00"},
        {"customer_id": "alice", "issued_before": 1_800_000_000_000},
        {"customer_id": "alice", "issued_before": -1},
        {"customer_id": "alice", "other": 1},
    ],
)
async def test_what_is_no_revocation_is_400(sender: RunningSender, body: dict[str, object]) -> None:
    answer = await sender.client.post("/revocations", json=body)
    assert answer.status_code == 400, answer.text
    assert (await sender.client.get("/revocations")).json() == {"revocations": [], "newest": 0}


async def test_it_needs_a_key(sender: RunningSender) -> None:
    headers = {"Authorization": "Bearer wrong"}
    for answer in (
        await sender.client.post("/revocations", json={"customer_id": "alice"}, headers=headers),
        await sender.client.get("/revocations", headers=headers),
    ):
        assert answer.status_code == 401


async def test_the_answer_names_what_was_revoked_and_gateways_read_it(sender: RunningSender) -> None:
    by_text = {"customer_id": "alice", "issued_before": "2026-11-23T14:00:00Z"}
    first = (await sender.client.post("/revocations", json=by_text)).json()
    assert (first["customer_id"], first["issued_before"]) == ("alice", NOW.timestamp() - 25 * 60)
    second = (await sender.client.post("/revocations", json={"customer_id": "bob"})).json()
    assert second["issued_before"] == NOW.timestamp()  # all until now
    third = (await sender.client.post("/revocations", json={"jti": "one"})).json()
    listed = (await sender.client.get("/revocations", params={"after": first["position"]})).json()
    assert listed == {"revocations": [second, third], "newest": 3}


# --- real processes


@pytest.fixture(scope="module")
def services(module_processes: Processes) -> tuple[SenderProcess, ReceiverProcess]:
    sender = module_processes.start_sender()
    return sender, module_processes.start_receiver()


def post(processes: Processes, sender: SenderProcess, **body: object) -> None:
    answer = httpx2.post(
        f"{sender.url}/revocations",
        json=body,
        headers={"Authorization": f"Bearer {processes.api_key}"},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text


def token_of(processes: Processes, customer: str, **claims: object) -> str:
    """A token as an issuer signed it a while ago."""
    now = int(time.time())
    claims = {"sub": customer, "aud": "orderbell", "iat": now - 60, "exp": now + 600, **claims}
    return jwt.encode(claims, processes.jwt_secret, algorithm="HS256")


@pytest.mark.long
async def test_a_customers_connections_end_within_a_second_and_their_tokens_count_no_more(
    services: tuple[SenderProcess, ReceiverProcess], module_processes: Processes
) -> None:
    sender, gateway = services
    old, other = (token_of(module_processes, customer) for customer in ("kicked", "other"))
    async with connected(gateway, old) as client, connected(gateway, other) as stays:
        began = time.monotonic()
        post(module_processes, sender, customer_id="kicked")
        code, reason = await client.receive_close()
        assert (code, reason) == (4401, "the token was revoked")
        assert time.monotonic() - began < 1.0
        async with connected(gateway, old, hello=False) as again:
            assert await again.receive_close() == (4401, "the token was revoked")
        stream = httpx2.get(
            f"{gateway.url}/events",
            headers={"Accept": "text/event-stream", "Authorization": f"Bearer {old}"},
            trust_env=False,
        )
        assert stream.status_code == 401
        new = token_of(module_processes, "kicked", iat=int(time.time()) + 2)
        async with connected(gateway, new):
            pass
        await stays.send("orderbell.ping", {})
        while (await stays.receive())["type"] != "orderbell.pong":
            pass  # notices of what is unread


async def test_a_ticket_of_a_revoked_token_is_refused(
    services: tuple[SenderProcess, ReceiverProcess], module_processes: Processes
) -> None:
    sender, gateway = services
    token = token_of(module_processes, "ticketed", jti="of-the-ticket")
    answer = httpx2.post(
        f"{gateway.url}/tickets", headers={"Authorization": f"Bearer {token}"}, trust_env=False
    )
    async with connected(gateway, token) as client:
        post(module_processes, sender, jti="of-the-ticket")
        assert (await client.receive_close())[0] == 4401
    query = f"ticket={answer.json()['ticket']}"
    async with connected(gateway, None, query=query, hello=False) as client:
        assert await client.receive_close() == (4401, "the token was revoked")


async def test_a_gateway_that_starts_later_knows_it_and_so_does_a_sender_that_started_again(
    services: tuple[SenderProcess, ReceiverProcess], module_processes: Processes
) -> None:
    sender, _ = services
    token = token_of(module_processes, "earlier")
    post(module_processes, sender, customer_id="earlier")
    sender.terminate()
    sender.start()
    late = module_processes.start_receiver(sender=sender)

    async def refused() -> bool:
        try:
            async with connected(late, token, hello=False) as client:
                return (await client.receive_close())[0] == 4401
        except InvalidStatus:
            return False

    await await_until(refused)


@pytest.mark.long
async def test_a_gateway_that_is_cut_off_from_redis_ends_what_is_revoked_within_a_second(
    module_processes: Processes, process_group: int, services: tuple[SenderProcess, ReceiverProcess]
) -> None:
    sender, _ = services
    url = urlsplit(module_processes.redis_url)
    assert url.port is not None
    with Proxy(process_group) as proxy:
        port = proxy.open("redis", url.port)
        there = url._replace(netloc=url.netloc.rpartition(":")[0] + f":{port}").geturl()
        gateway = module_processes.start_receiver(sender=sender, redis_url=there)
        by_time = token_of(module_processes, "cut-off")
        by_id = token_of(module_processes, "cut-off-too", jti="of-the-cut-off")
        async with connected(gateway, by_time) as first, connected(gateway, by_id) as second:
            proxy.change("redis", up=Toxics(black_hole=True), down=Toxics(black_hole=True), refuse=True)
            proxy.cut("redis")
            began = time.monotonic()
            post(module_processes, sender, customer_id="cut-off")
            post(module_processes, sender, jti="of-the-cut-off")
            for client in (first, second):
                assert await client.receive_close() == (4401, "the token was revoked")
            assert time.monotonic() - began < 1.0
        gateway.kill()


@pytest.mark.long
async def test_a_gateway_that_started_while_the_sender_was_away_ends_what_was_revoked_at_its_return(
    module_processes: Processes,
) -> None:
    sender = module_processes.start_sender()
    by_time = token_of(module_processes, "before-all")
    by_id = token_of(module_processes, "before-all-too", jti="of-before-all")
    post(module_processes, sender, customer_id="before-all")
    post(module_processes, sender, jti="of-before-all")
    sender.terminate()
    gateway = module_processes.start_receiver(sender=sender, wait_ready=False)
    await asyncio.to_thread(wait_until, lambda: gateway.answers("/livez"))
    async with (
        connected(gateway, by_time, hello=False) as first,
        connected(gateway, by_id, hello=False) as second,
    ):
        sender.start()
        returned = time.monotonic()
        for client in (first, second):
            assert await client.receive_close() == (4401, "the token was revoked")
        assert time.monotonic() - returned < 1.0
    gateway.kill()
