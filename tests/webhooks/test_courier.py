"""Delivering webhooks to a real server, which answers, refuses, is slow or away."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from standardwebhooks import WebhookVerificationError

from sender.webhooks.message import Kind
from tests.senders import one_database, postgres_is_long
from tests.waiting import await_until
from tests.webhooks.receiver import (
    IMPATIENT,
    OTHER_SECRET,
    SECRET,
    SENDING,
    Answer,
    LivingClock,
    Receiver,
    alert,
    read,
    report,
    run_reporting,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sender(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> AsyncIterator[RunningSender]:
    async with run_reporting(receiver, database_url, redis_url, key_prefix) as sender:
        yield sender


async def none_waits(sender: RunningSender) -> None:
    async def delivered() -> bool:
        text = (await sender.client.get("/metrics")).text
        return "\norderbell_webhooks_waiting 0.0\n" in text

    await await_until(delivered)


async def test_what_a_device_has_shown_is_reported_once_and_signed(
    sender: RunningSender, receiver: Receiver
) -> None:
    await alert(sender, "1042")
    await report(sender, "customer:alice=1.1")
    (message,) = await receiver.wait(1)
    assert message.path == "/alerts?shop=1"
    assert message.headers["content-type"] == "application/cloudevents+json"
    told = message.verified()
    (listed,) = (await sender.client.get("/channels/customer:alice/alerts")).json()["alerts"]
    assert told == {
        "specversion": "1.0",
        "id": message.headers["webhook-id"],
        "source": "/orderbell/sender",
        "type": "alert.shown",
        "subject": "customer:alice=1.1",
        "time": told["time"],
        "datacontenttype": "application/json",
        "data": {
            "customer_id": "alice",
            "cursor": "customer:alice=1.1",
            "recorded_at": listed["event"]["time"],
            "event": {
                "source": "/orderbell/sender",
                "id": listed["event"]["id"],
                "type": "order.completed",
                "subject": "1042",
            },
        },
    }
    assert told["time"] >= told["data"]["recorded_at"]
    assert "." not in message.headers["webhook-id"]
    await report(sender, "customer:alice=1.1")  # another device of hers
    await read(sender, "customer:alice=1.1")
    await receiver.wait(2)
    await none_waits(sender)
    assert receiver.types == ["alert.shown", "alert.read"]
    assert sender.counted("orderbell_webhook_attempts_total", type="alert.shown", result="delivered") == 1


async def test_what_was_read_is_reported_once_however_it_was_marked(
    sender: RunningSender, receiver: Receiver
) -> None:
    for order_id in ("1", "2", "3"):
        await alert(sender, order_id)
    listed = (await sender.client.get("/channels/customer:alice/alerts")).json()["alerts"]
    second = listed[1]["event"]
    assert second["subject"] == "2"
    for _ in range(2):
        answer = await sender.client.post("/read", json={"customer_id": "alice", "ids": [second["id"]]})
        assert answer.status_code == 200
    await receiver.wait(1)
    await read(sender, "customer:alice=1.3")
    await read(sender, "customer:alice=1.3")
    await receiver.wait(3)
    await none_waits(sender)
    read_ones = [message.event["data"]["event"]["subject"] for message in receiver.got]
    assert receiver.types == ["alert.read"] * 3
    assert (read_ones[0], sorted(read_ones)) == ("2", ["1", "2", "3"])


async def test_seen_beyond_a_hole_is_reported_alone_and_the_hole_when_it_is_filled(
    sender: RunningSender, receiver: Receiver
) -> None:
    for order_id in ("1", "2", "3"):
        await alert(sender, order_id)
    await report(sender, "customer:alice=1.0+2")
    (first,) = await receiver.wait(1)
    assert first.event["data"]["cursor"] == "customer:alice=1.2"
    await report(sender, "customer:alice=1.3")
    await receiver.wait(3)
    await none_waits(sender)
    assert sorted(one.event["data"]["cursor"][-1] for one in receiver.got) == ["1", "2", "3"]


@postgres_is_long
async def test_what_had_ended_or_never_was_an_alert_was_not_shown(
    sender: RunningSender, receiver: Receiver
) -> None:
    await alert(sender, "1")
    await sender.client.post("/retractions", json={"order_id": "1"})  # 1.2 is the retraction
    await sender.client.post("/trials", json={"customer_id": "alice"})
    await alert(sender, "2")  # 1.4
    await read(sender, "customer:alice=1.4")  # 1.5; forgets which events were the system's
    await report(sender, "customer:alice=1.5")
    await none_waits(sender)
    assert sorted((one.event["type"], one.event["data"]["cursor"]) for one in receiver.got) == [
        ("alert.read", "customer:alice=1.4"),
        ("alert.shown", "customer:alice=1.4"),
    ]


@one_database
async def test_message_is_signed_with_each_secret_while_one_replaces_another(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    running = run_reporting(receiver, database_url, redis_url, key_prefix, secrets=(OTHER_SECRET, SECRET))
    async with running as sender:
        await alert(sender, "1")
        await report(sender, "customer:alice=1.1")
        (message,) = await receiver.wait(1)
    assert message.verified(SECRET) == message.verified(OTHER_SECRET) == message.event
    with pytest.raises(WebhookVerificationError):
        message._replace(body=message.body + b" ").verified(SECRET)
    with pytest.raises(WebhookVerificationError):
        message.verified("whsec_" + "bm8gc2VjcmV0IG9mIHRoaXMgc2VuZGVyIQ==")


@pytest.mark.parametrize("refusal", [Answer(500), Answer(404), Answer(301, ("location: /elsewhere",))])
@one_database
async def test_refused_message_comes_again_with_its_id_and_a_signature_of_that_moment(
    sender: RunningSender, receiver: Receiver, refusal: Answer
) -> None:
    receiver.next.extend([refusal, refusal])
    await alert(sender, "1")
    await report(sender, "customer:alice=1.1")
    await receiver.wait(3)
    await none_waits(sender)
    assert len(set(receiver.ids)) == 1
    assert len({message.body for message in receiver.got}) == 1
    assert {message.path for message in receiver.got} == {"/alerts?shop=1"}
    assert all(message.verified() for message in receiver.got)
    ((webhook,), (line,)) = await traced(sender, "1")
    assert (webhook["attempts"], webhook["outcome"]) == (3, "delivered")
    assert "alert.shown was delivered" in line
    assert "tried 3 times" in line


@one_database
async def test_answer_that_comes_too_late_is_none(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.next.append(Answer(200, seconds=60))
    running = run_reporting(receiver, database_url, redis_url, key_prefix, sending=IMPATIENT)
    async with running as sender:
        await alert(sender, "1")
        await report(sender, "customer:alice=1.1")
        await receiver.wait(2)
        await none_waits(sender)
        ((webhook,), _) = await traced(sender, "1")
    assert webhook["attempts"] >= 2
    assert len(set(receiver.ids)) == 1


@one_database
async def test_a_head_of_2xx_is_a_delivery_whatever_becomes_of_the_body(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.usual = Answer(202, promised=1_000_000)
    running = run_reporting(receiver, database_url, redis_url, key_prefix, sending=IMPATIENT)
    async with running as sender:
        await alert(sender, "1")
        await report(sender, "customer:alice=1.1")
        await none_waits(sender)
        ((webhook,), _) = await traced(sender, "1")
    assert webhook["outcome"] == "delivered"


@one_database
async def test_endless_answer_is_read_no_further_than_its_limit(
    sender: RunningSender, receiver: Receiver
) -> None:
    receiver.next.append(Answer(200, body=b"x" * 200_000, promised=10**12))
    await alert(sender, "1")
    await report(sender, "customer:alice=1.1")
    await none_waits(sender)
    assert len(receiver.got) == 1


@postgres_is_long
async def test_receiver_that_comes_back_gets_what_waited(sender: RunningSender, receiver: Receiver) -> None:
    gone = Receiver(port=receiver.port)  # the same address, once the other one has left it
    await alert(sender, "1")
    receiver.usual = Answer(503)
    await report(sender, "customer:alice=1.1")
    await receiver.wait(1)
    ((webhook,), (line,)) = await await_until(lambda: _tried(sender))
    assert webhook["detail"] == "it answers 503"
    assert "is still to be delivered: tried" in line
    assert sender.counted.value("orderbell_webhook_failing") == 1
    for order_id in ("2", "3", "4"):
        await alert(sender, order_id)
    await report(sender, "customer:alice=1.4")
    receiver.usual = Answer()
    await none_waits(sender)
    delivered = {one.event["data"]["cursor"] for one in receiver.got}
    assert delivered == {f"customer:alice=1.{seq}" for seq in (1, 2, 3, 4)}
    assert sender.counted.value("orderbell_webhook_failing") == 0
    assert gone.got == []


async def _tried(sender: RunningSender) -> Any:
    found = await traced(sender, "1")
    return found if found[0] and found[0][0]["detail"] else None


@one_database
async def test_where_nothing_listens_it_is_tried_until_something_does(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver = Receiver()
    async with receiver.listening():
        pass  # now its port is known, and nothing listens there
    async with run_reporting(receiver, database_url, redis_url, key_prefix) as sender:
        await alert(sender, "1")
        await report(sender, "customer:alice=1.1")
        ((webhook,), _) = await await_until(lambda: _tried(sender))
        assert webhook["detail"] == "nothing listens there (connection refused)"
        async with receiver.listening():
            await receiver.wait(1)
            await none_waits(sender)
    assert sender.counted("orderbell_webhook_attempts_total", type="alert.shown", result="unreachable") >= 1


@one_database
async def test_receiver_that_fails_is_asked_by_one_attempt_at_a_time(
    sender: RunningSender, receiver: Receiver
) -> None:
    receiver.usual = Answer(500)
    for number in range(12):
        await alert(sender, f"{number}")
    await report(sender, "customer:alice=1.1")
    await receiver.wait(2)
    receiver.most_at_once = 0
    receiver.usual = Answer(500, seconds=0.03)
    await report(sender, "customer:alice=1.12")
    await receiver.wait(8)
    assert receiver.most_at_once == 1
    receiver.usual = Answer(200, seconds=0.03)
    await none_waits(sender)
    assert 1 < receiver.most_at_once <= SENDING.at_once


@one_database
async def test_410_ends_the_delivery_and_leaves_the_receiver_alone_for_a_time(
    sender: RunningSender, receiver: Receiver
) -> None:
    receiver.next.append(Answer(410))
    await alert(sender, "1")
    await alert(sender, "2")
    await report(sender, "customer:alice=1.1")
    await receiver.wait(1)
    await report(sender, "customer:alice=1.2")
    await receiver.wait(2)
    assert receiver.got[1].at - receiver.got[0].at > SENDING.gone * 0.8
    await none_waits(sender)
    assert len(set(receiver.ids)) == 2
    ((webhook,), (line,)) = await traced(sender, "1")
    assert (webhook["outcome"], webhook["attempts"]) == ("given-up", 1)
    assert "was given up" in line
    assert "the address is no longer in use" in line
    assert sender.counted("orderbell_webhooks_given_up_total") == 1


@one_database
@pytest.mark.parametrize("status", [429, 503])
async def test_nothing_comes_before_retry_after(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str, status: int
) -> None:
    async with run_reporting(receiver, database_url, redis_url, key_prefix) as sender:
        receiver.next.append(Answer(status, ("retry-after: 1",)))
        await alert(sender, "1")
        await alert(sender, "2")
        await report(sender, "customer:alice=1.1")
        await receiver.wait(1)
        await report(sender, "customer:alice=1.2")
        await receiver.wait(2)
        # Of everything; the pace of these tests bounds it by its own pause after 410.
        assert receiver.got[1].at - receiver.got[0].at > SENDING.gone * 0.8
        await none_waits(sender)


@postgres_is_long
async def test_slow_receiver_holds_up_nobody(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.usual = Answer(200, seconds=60)
    patient = dataclasses.replace(SENDING, answer=60.0)
    async with run_reporting(receiver, database_url, redis_url, key_prefix, sending=patient) as sender:
        for number in range(20):
            await alert(sender, f"{number}", f"customer-{number}")
        await report(sender, *(f"customer:customer-{number}=1.1" for number in range(20)))
        await receiver.wait(SENDING.at_once)
        for number in range(20, 30):
            await alert(sender, f"{number}")
        await report(sender, "customer:alice=1.10")
        # All that was done while the first attempts were still under way.
        assert receiver.answering == len(receiver.got) == SENDING.at_once


async def test_two_senders_deliver_each_message_once(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.usual = Answer(200, seconds=0.005)
    patient = dataclasses.replace(SENDING, lease_slack=30)
    async with (
        run_reporting(receiver, database_url, redis_url, key_prefix, sending=patient) as one,
        run_reporting(receiver, database_url, redis_url, key_prefix, sending=patient) as other,
    ):
        for number in range(30):
            await alert(one, f"{number}", f"customer-{number}")
        await report(one, *(f"customer:customer-{number}=1.1" for number in range(15)))
        await report(other, *(f"customer:customer-{number}=1.1" for number in range(15, 30)))
        await receiver.wait(30)
        await none_waits(one)
    assert len(receiver.got) == len(set(receiver.ids)) == 30


async def test_sender_that_dies_in_an_attempt_leaves_it_to_the_next_one(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.next.append(Answer(200, seconds=30))
    reporting = partial(run_reporting, receiver, database_url, redis_url, key_prefix, sending=IMPATIENT)
    async with reporting() as sender:
        await alert(sender, "1")
        await report(sender, "customer:alice=1.1")
        await receiver.wait(1)
    async with reporting() as sender:
        await receiver.wait(2)
        await none_waits(sender)
    assert len(set(receiver.ids)) == 1


@one_database
async def test_delivery_that_never_succeeds_is_given_up_and_that_is_logged_without_secrets(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.usual = Answer(500, body=b"what the shop's server says of alice")
    short = dataclasses.replace(SENDING, give_up=0.05)
    running = run_reporting(receiver, database_url, redis_url, key_prefix, sending=short)
    with structlog.testing.capture_logs() as lines:
        async with running as sender:
            await alert(sender, "1042")
            await report(sender, "customer:alice=1.1")
            await none_waits(sender)
            ((webhook,), _) = await traced(sender, "1042")
    assert webhook["outcome"] == "given-up"
    assert len(receiver.got) == webhook["attempts"]
    assert sender.counted("orderbell_webhooks_given_up_total") == 1
    assert "a webhook was given up" in [line["event"] for line in lines]
    for secret in ("alice", "1042", SECRET.removeprefix("whsec_"), "shop=1", "v1,"):
        assert secret not in str(lines)


@one_database
async def test_what_was_due_for_days_is_given_up_without_its_turn(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    receiver.usual = Answer(500)
    slow = dataclasses.replace(SENDING, pause=0.05, max_pause=0.1, again=(600.0,))
    clock = LivingClock()
    running = run_reporting(receiver, database_url, redis_url, key_prefix, sending=slow, clock=clock)
    async with running as sender:
        for number in range(40):
            await alert(sender, f"{number}")
        await report(sender, "customer:alice=1.1")
        await receiver.wait(1)
        await report(sender, "customer:alice=1.40")
        clock.advance(days=3, hours=1)
        await none_waits(sender)
    assert sender.counted("orderbell_webhooks_given_up_total") == 40
    assert len(receiver.got) < 20


async def test_erased_customer_is_reported_no_more(sender: RunningSender, receiver: Receiver) -> None:
    receiver.usual = Answer(500)
    await alert(sender, "1")
    await report(sender, "customer:alice=1.1")
    await receiver.wait(1)
    erased = await sender.client.delete("/customers/alice")
    assert erased.status_code == 200, erased.text
    await none_waits(sender)
    receiver.usual = Answer()
    attempts = len(receiver.got)
    await alert(sender, "2", "bob")
    await report(sender, "customer:bob=1.1")
    await await_until(lambda: any(one.event["data"]["customer_id"] == "bob" for one in receiver.got))
    of_alice = [one for one in receiver.got if one.event["data"]["customer_id"] == "alice"]
    assert len(of_alice) <= attempts + 1  # one may have been under way


@one_database
async def test_kinds_that_nobody_asked_for_are_not_recorded(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    kinds = frozenset({Kind.READ})
    async with run_reporting(receiver, database_url, redis_url, key_prefix, kinds=kinds) as sender:
        await alert(sender, "1")
        await report(sender, "customer:alice=1.1")
        await read(sender, "customer:alice=1.1")
        await receiver.wait(1)
        await none_waits(sender)
        ((webhook,), _) = await traced(sender, "1")
    assert webhook["type"] == "alert.read"
    assert receiver.types == ["alert.read"]
