"""As test_without.py, for safeguards within a sender."""

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

    Misses = Callable[[str, Awaitable[None], str], Awaitable[None]]

pytestmark = [pytest.mark.anyio, pytest.mark.long]


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> Misses:
    """Asserts that the test fails without this safeguard, because this behaviour is missing."""
    soon(monkeypatch)

    async def run(safeguard: str, test: Awaitable[None], behaviour: str) -> None:
        SAFEGUARDS[safeguard](monkeypatch.setattr)
        await fails(test, behaviour)

    return run


async def test_idempotency_keys_make_a_repetition_harmless(
    database_url: str, redis_url: str, key_prefix: str, misses: Misses
) -> None:
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        test = idempotency.test_repetition_gets_the_first_answer(sender)
        await misses("idempotency-keys", test, "a repetition gets the first answer")


@pytest.mark.postgres
async def test_lock_on_the_channel_keeps_its_events_in_the_order_of_their_commits(
    postgres_database_url: str, misses: Misses
) -> None:
    test = senders.test_08_transactions_of_one_customer_commit_in_the_order_of_their_seqs(
        postgres_database_url
    )
    await misses("channel-lock", test, "events of one channel commit in the order of their seqs")


async def test_search_for_what_redis_refuses_lets_all_others_go_on(
    sqlite_bench: Bench, misses: Misses
) -> None:
    test = poison.test_event_that_only_redis_refuses_is_given_up_after_some_attempts_alone
    await misses(
        "poison-search",
        test(sqlite_bench),
        "one refused event holds up no other",
    )


async def test_rehearsal_keeps_events_from_being_blamed_for_what_redis_refuses_to_all(
    sqlite_bench: Bench, misses: Misses
) -> None:
    test = poison.test_redis_that_refuses_everything_makes_no_dead_letter
    await misses(
        "rehearsal",
        test(sqlite_bench),
        "a Redis that refuses everything is waited for",
    )


async def test_polling_finds_what_its_sender_did_not_live_to_publish(
    sqlite_bench: Bench, misses: Misses
) -> None:
    test = relay.test_what_nobody_woke_it_for_is_found_by_polling
    await misses(
        "outbox-poll",
        test(sqlite_bench),
        "what nobody woke it for is found",
    )
