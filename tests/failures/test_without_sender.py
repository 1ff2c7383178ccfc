"""As test_without.py, of what a sender has by itself: each test with its safeguard, and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import test_sender_idempotency as idempotency
from tests import test_sender_poison as poison
from tests import test_sender_relay as relay
from tests.chaos.without import SAFEGUARDS
from tests.failures import test_sender as senders
from tests.failures.proof import fails, soon
from tests.senders import run_sender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.relays import Bench

    Holds = Callable[[str, Awaitable[None], str], Awaitable[None]]

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("on", [True, False], ids=["with", "without"])]


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch, *, on: bool) -> Holds:
    """Of a safeguard and a test: that it passes, or, with the safeguard off, fails in that statement."""
    soon(monkeypatch)

    async def run(safeguard: str, test: Awaitable[None], at: str) -> None:
        if on:
            await test
            return
        SAFEGUARDS[safeguard](monkeypatch.setattr)
        await fails(test, at)

    return run


async def test_idempotency_keys_make_a_repetition_harmless(
    database_url: str, redis_url: str, key_prefix: str, holds: Holds
) -> None:
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        test = idempotency.test_repetition_gets_the_first_answer(sender)
        await holds("idempotency-keys", test, "assert (first.status_code, again.status_code) == (201, 201)")


@pytest.mark.postgres
async def test_lock_on_the_channel_keeps_its_events_in_the_order_of_their_commits(
    postgres_database_url: str, holds: Holds
) -> None:
    test = senders.test_08_transactions_of_one_customer_commit_in_the_order_of_their_seqs(
        postgres_database_url
    )
    await holds("channel-lock", test, "assert committed == [1, 2, 3, 4, 5]")


async def test_search_for_what_redis_refuses_lets_all_others_go_on(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch, holds: Holds
) -> None:
    test = poison.test_event_that_only_redis_refuses_is_given_up_after_some_attempts_alone
    await holds(
        "poison-search",
        test(sqlite_bench, poison.refuser(monkeypatch)),
        "await await_until(lambda: nothing_waits(bench))",
    )


async def test_rehearsal_keeps_events_from_being_blamed_for_what_redis_refuses_to_all(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch, holds: Holds
) -> None:
    test = poison.test_redis_that_refuses_everything_makes_no_dead_letter
    await holds(
        "rehearsal",
        test(sqlite_bench, poison.refuser(monkeypatch)),
        "await await_until(lambda: relay._failures > 2 * relay_module.ATTEMPTS)",
    )


async def test_polling_finds_what_its_sender_did_not_live_to_publish(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch, holds: Holds
) -> None:
    test = relay.test_what_nobody_woke_it_for_is_found_by_polling
    await holds(
        "outbox-poll",
        test(sqlite_bench, monkeypatch),
        "await await_until(lambda: sqlite_bench.logged(ALICE))",
    )
