"""Questions that support is asked, each set up for real: `trace` names the cause."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from receiver.access.identity import Identity
from receiver.connections.connection import End
from receiver.connections.messages import SeenReport
from receiver.transports.polling.poll import Poll
from receiver.transports.polling.sessions import Sessions
from sender.database.tables import events
from sender.lives import Life
from sender.publishing.pace import Pace
from sender.trace import Known, Relaying, explain, with_publication
from sender.verdicts import Verdict
from shared.api_keys import ApiKey
from shared.channels import customer_channel
from shared.redis.inquiries import GatewayReport
from shared.times import format_time
from tests.commands import REPOSITORY
from tests.gateways import RunningGateway, run_gateway
from tests.pruned import prune_events
from tests.senders import RunningSender, run_sender
from tests.test_sender_poison import Refusing
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")


@pytest.fixture
async def sender(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    async with run_sender(f"sqlite:///{tmp_path / 'o'}.db", redis_url, key_prefix) as running:
        yield running


@pytest.fixture
async def gateway(sender: RunningSender, redis_url: str, key_prefix: str) -> AsyncIterator[RunningGateway]:
    async with run_gateway(sender.client, redis_url, key_prefix) as running:
        yield running


async def trace(sender: RunningSender, **asked: str) -> dict[str, Any]:
    """The newest alert found, with its findings as one text."""
    answer = await sender.client.get("/trace", params=asked)
    assert answer.status_code == 200, answer.text
    alert: dict[str, Any] = answer.json()["alerts"][0]
    return alert | {"said": "\n".join(alert["findings"])}


async def complete(sender: RunningSender, order_id: str, customer_id: str = "alice") -> None:
    assert (await sender.place(order_id, customer_id)).status_code == 201
    assert (await sender.complete(order_id)).status_code == 200


async def test_an_order_that_was_never_placed(sender: RunningSender) -> None:
    alert = await trace(sender, order_id="1042")
    assert (alert["event"], alert["verdict"]) == (None, "not-placed")


async def test_an_order_that_is_still_open(sender: RunningSender) -> None:
    await sender.place("1042", "alice")
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "not-completed"
    assert "alice's order was placed at" in alert["said"]
    assert "nothing was sent" in alert["said"]


async def test_nobody_is_connected(sender: RunningSender, gateway: RunningGateway) -> None:
    await complete(sender, "1042")
    await await_relayed(sender)
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "nobody-connected"
    assert "Nobody is connected as alice" in alert["said"]
    assert "remember no connection of this customer since" in alert["said"]


async def test_a_connection_that_has_ended_is_remembered(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    async with gateway.connected("alice"):
        pass
    await complete(sender, "1042")
    await await_relayed(sender)
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "nobody-connected"
    assert "A connection to in-process by websocket ended at" in alert["said"]
    assert "the test is over" in alert["said"]


async def test_a_slow_reader_that_was_ended(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice") as browser:
        browser.connection.end(End.SLOW, "too slow")
        await browser.wait_close()
    await complete(sender, "1042")
    await await_relayed(sender)
    assert "with 4408: too slow" in (await trace(sender, order_id="1042"))["said"]


async def test_a_token_that_names_another_customer(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("Alice"):
        await complete(sender, "1042")
        await await_relayed(sender)
        alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "nobody-connected"
    assert "differ only in case: Alice" in alert["said"]
    assert "its token names somebody else" in alert["said"]


async def test_a_token_that_was_refused(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice", greeted=False) as browser:
        browser.connection.identity = None  # as before it has authenticated
        browser.connection.end(End.UNAUTHENTICATED, "the token has expired")
        await browser.wait_close()
    await complete(sender, "1042")
    await await_relayed(sender)
    said = (await trace(sender, order_id="1042"))["said"]
    assert "Refused lately, of unknown customers: 1 with 4401: the token has expired" in said


async def test_it_was_handed_over_but_not_shown(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice") as browser:
        await complete(sender, "1042")
        await browser.wait_seqs([1])
        alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "delivered"
    assert "alice has been connected to in-process by websocket since" in alert["said"]
    assert "The event was handed over to this connection" in alert["said"]
    assert "not reported as shown" in alert["said"]


async def test_it_was_shown_on_another_device(sender: RunningSender, gateway: RunningGateway) -> None:
    await complete(sender, "1042")
    await sender.client.post("/seen", json={"cursors": [f"{ALICE}=1.1"]})
    async with gateway.connected("alice"):
        alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "shown"
    assert "others then show no pop-up for it" in alert["said"]


async def test_it_was_taken_back(sender: RunningSender, gateway: RunningGateway) -> None:
    await complete(sender, "1042")
    assert (await sender.client.post("/retractions", json={"order_id": "1042"})).status_code == 200
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "retracted"
    assert "It was taken back" in alert["said"]
    [listed] = (await sender.client.get("/trace", params={"customer_id": "alice"})).json()["alerts"]
    assert listed["event"]["subject"] == "1042"  # not the retraction, which is the system's


async def test_it_was_read(sender: RunningSender, gateway: RunningGateway) -> None:
    await complete(sender, "1042")
    await sender.client.post("/read", json={"cursors": [f"{ALICE}=1.1"]})
    assert (await trace(sender, order_id="1042"))["verdict"] == "read"


async def test_a_later_one_shown_elsewhere_leaves_the_earlier_unshown(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    await complete(sender, "1042")
    await complete(sender, "1043")
    await sender.client.post("/seen", json={"cursors": [f"{ALICE}=1.0+2"]})
    assert (await trace(sender, order_id="1043"))["verdict"] == "shown"
    assert (await trace(sender, order_id="1042"))["verdict"] != "shown"


async def test_it_is_older_than_the_history(sender: RunningSender, gateway: RunningGateway) -> None:
    await complete(sender, "1042")
    sender.clock.advance(days=8)
    await complete(sender, "1043")
    await await_relayed(sender)
    week = partial(prune_events, before=sender.clock() - timedelta(days=7), limit=500)
    await await_until(lambda: sender.database.write(week))
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "deleted"
    assert "older than the history" in alert["said"]


async def test_it_could_not_be_published(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    database = f"sqlite:///{tmp_path / 'o'}.db"
    async with run_sender(database, redis_url, key_prefix, relaying=False) as sender:
        await complete(sender, "1042")
        spoiled = update(events).values(text="lunch")
        await sender.database.write(lambda connection: connection.execute(spoiled))
    async with run_sender(database, redis_url, key_prefix) as sender:
        await await_relayed(sender)
        alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "given-up"
    assert "was given up at" in alert["said"]
    assert "not-an-event" in alert["said"]


async def test_it_waits_because_redis_is_away(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str, anyio_backend: object
) -> None:
    async with run_sender(f"sqlite:///{tmp_path / 'o'}.db", redis_server.url, key_prefix) as sender:
        await await_until(lambda: sender.relay.redis_up is True)
        redis_server.kill()
        await complete(sender, "1042")
        await await_until(lambda: sender.relay.redis_up is False)
        alert = await trace(sender, order_id="1042")
        assert alert["verdict"] == "waiting"
        assert "Redis is away or takes no events" in alert["said"]
        assert (await sender.client.get("/connections")).json() == {"connections": 0, "gateways": None}


async def test_a_topic_that_the_token_does_not_name(sender: RunningSender, gateway: RunningGateway) -> None:
    event = {
        "specversion": "1.0",
        "id": "soup",
        "source": "/kitchen",
        "type": "menu",
        "channel": "topic:menu",
    }
    answer = await sender.client.post(
        "/events", json=event, headers={"Content-Type": "application/cloudevents+json"}
    )
    assert answer.status_code == 202
    await await_relayed(sender)
    async with gateway.connected("alice"):
        alert = await trace(sender, source="/kitchen", event_id="soup", customer_id="alice")
    assert alert["verdict"] == "nobody-connected"
    assert "No connection of alice may read topic:menu" in alert["said"]
    nobody = await trace(sender, source="/kitchen", event_id="soup")
    assert "No connection may read topic:menu: its token must name the topic." in nobody["said"]


async def test_no_gateway_answers(sender: RunningSender) -> None:
    await complete(sender, "1042")
    await await_relayed(sender)
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "no-answer"


async def test_a_gateway_that_is_not_ready_says_why(
    sender: RunningSender, redis_url: str, key_prefix: str
) -> None:
    async with run_gateway(
        sender.client, redis_url, key_prefix, not_ready=["the sender refuses our key"]
    ) as gateway:
        async with gateway.connected("alice"):
            await complete(sender, "1042")
            await await_relayed(sender)
            said = (await trace(sender, order_id="1042"))["said"]
    assert "in-process is not ready: the sender refuses our key" in said


async def test_a_customers_newest_alerts(sender: RunningSender, gateway: RunningGateway) -> None:
    for number in range(7):
        await complete(sender, f"10{number}")
    answer = (await sender.client.get("/trace", params={"customer_id": "alice"})).json()
    assert [alert["event"]["subject"] for alert in answer["alerts"]] == ["106", "105", "104", "103", "102"]
    nobody = await trace(sender, customer_id="nobody")
    assert (nobody["event"], nobody["verdict"]) == (None, "not-sent")


@pytest.mark.parametrize(
    "asked", [{}, {"order_id": "1", "event_id": "1"}, {"order_id": ""}, {"source": "/s"}, {"unknown": "1"}]
)
async def test_a_question_about_nothing_or_two_things_is_refused(
    sender: RunningSender, asked: dict[str, str]
) -> None:
    assert (await sender.client.get("/trace", params=asked)).status_code == 400


async def test_all_connections_are_counted_and_the_one_that_lags_comes_first(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    async with gateway.connected("alice"), gateway.connected("bob"), gateway.connected("alice"):
        everybody = (await sender.client.get("/connections")).json()
        alices = (await sender.client.get("/connections", params={"customer_id": "alice"})).json()
    assert everybody["connections"] == 3
    [report] = everybody["gateways"]
    assert (report["gateway"], report["connections"]) == ("in-process", {"websocket": 3})
    assert (alices["connections"], alices["gateways"][0]["listening"][0]["customer"]) == (2, "alice")
    assert all(one["live"] for one in alices["gateways"][0]["listening"])


async def await_relayed(sender: RunningSender) -> None:
    """Wait until nothing waits in the outbox."""

    async def relayed() -> bool:
        return "orderbell_outbox_events 0.0" in (await sender.client.get("/metrics")).text

    await await_until(relayed, 60)  # on a busy machine a sender takes long to start


async def test_the_key_that_an_event_came_with_is_named(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    keys = (
        "till:orders:a-key-of-the-till,kitchen:events:a-key-of-the-kitchen,office:admin:a-key-of-the-office"
    )
    given = [ApiKey.parse(key) for key in keys.split(",")]
    bearer = {key.name: {"Authorization": f"Bearer {key.get_secret_value()}"} for key in given}
    url = f"sqlite:///{tmp_path / 'o'}.db"
    async with run_sender(url, redis_url, key_prefix, api_keys=given) as sender:
        order = {"order_id": "1042", "customer_id": "alice"}
        await sender.client.post("/orders", json=order, headers=bearer["till"])
        await sender.client.post("/orders/1042/complete", headers=bearer["till"])
        soup = {"specversion": "1.0", "id": "soup", "source": "/kitchen", "type": "soup", "channel": ALICE}
        headers = bearer["kitchen"] | {"Content-Type": "application/cloudevents+json"}
        assert (await sender.client.post("/events", json=soup, headers=headers)).status_code == 202
        for asked, name in (
            ({"order_id": "1042"}, "till"),
            ({"event_id": "soup", "source": "/kitchen"}, "kitchen"),
        ):
            answer = await sender.client.get("/trace", params=asked, headers=bearer["office"])
            [alert] = answer.json()["alerts"]
            assert alert["event"]["accepted_by"] == name
            assert f"accepted with the API key {name}." in alert["findings"][0]


async def test_how_long_it_waited_and_why_is_known_afterwards(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str, anyio_backend: object
) -> None:
    url = f"sqlite:///{tmp_path / 'o'}.db"
    async with run_sender(url, redis_server.url, key_prefix) as sender:
        await complete(sender, "before")
        await await_relayed(sender)
        redis_server.kill()
        sender.clock.advance(seconds=1)
        await complete(sender, "1042")
        await await_until(lambda: sender.relay.redis_up is False)
        sender.clock.advance(seconds=60)
        redis_server.start()
        await await_published(sender)
        sender.clock.advance(seconds=1)
        await complete(sender, "after")
        await await_published(sender)
        alert = await trace(sender, order_id="1042")
        [waited] = alert["event"]["waited"]
        assert waited["cause"] == "redis"
        assert waited["began_at"] <= alert["event"]["recorded_at"] < waited["ended_at"]
        assert f"to {waited['ended_at']}: {waited['sender']} found that Redis was away" in alert["said"]
        assert f"{waited['sender']} published it to Redis at " in alert["said"]
        for other in ("before", "after"):
            assert (await trace(sender, order_id=other))["event"]["waited"] == []
    async with run_sender(url, redis_server.url, key_prefix) as later:  # which remembers nothing itself
        assert (await trace(later, order_id="1042"))["event"]["waited"] == [waited]


async def test_what_waited_for_a_sender_to_start_says_so(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    url = f"sqlite:///{tmp_path / 'o'}.db"
    async with run_sender(url, redis_url, key_prefix, relaying=False) as dying:
        await complete(dying, "1042")
    dying.clock.advance(minutes=5)
    async with run_sender(url, redis_url, key_prefix, clock=dying.clock) as sender:
        await await_published(sender)
        alert = await trace(sender, order_id="1042")
    assert [one["cause"] for one in alert["event"]["waited"]] == ["restart"]
    assert "no sender published it before" in alert["said"]


async def test_what_waited_behind_an_event_that_redis_refused_says_so(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    class Poisoned(Refusing):
        refusal = (
            """if string.find(ARGV[i + 1], '"subject":"refused"', 1, true)"""
            " then return redis.error_reply('ERR this one never') end"
        )

    url, pace = f"sqlite:///{tmp_path / 'o'}.db", Pace(attempts=2, first_backoff_seconds=1)
    async with run_sender(url, redis_url, key_prefix, pace=pace, writer=Poisoned) as sender:
        for order_id, customer_id in (("refused", "alice"), ("1042", "alice"), ("bobs", "bob")):
            await complete(sender, order_id, customer_id)
        await await_until(lambda: sender.relay.stops.are_open)
        sender.clock.advance(seconds=3)
        await await_published(sender)
        alert = await trace(sender, order_id="1042")
        assert [one["cause"] for one in alert["event"]["waited"]] == ["poison"]
        assert "Redis refused an earlier event of this channel (ERR this one never)" in alert["said"]
        assert (await trace(sender, order_id="bobs"))["event"]["waited"] == []


async def await_published(sender: RunningSender) -> None:
    await await_relayed(sender)
    await await_until(lambda: not (sender.relay.stops.are_open or sender.relay.stops.unkept), 60)


# Ten more.


async def test_a_newer_alert_has_replaced_it(sender: RunningSender, gateway: RunningGateway) -> None:
    for number in ("1", "2"):
        event = {
            "specversion": "1.0",
            "id": f"table-7/{number}",
            "source": "/kitchen",
            "type": "meal.ready",
            "subject": "table-7",
            "channel": ALICE,
            "replaces": True,
        }
        headers = {"Content-Type": "application/cloudevents+json"}
        assert (await sender.client.post("/events", json=event, headers=headers)).status_code == 202
    await await_relayed(sender)
    alert = await trace(sender, source="/kitchen", event_id="table-7/1")
    assert alert["verdict"] == "replaced"
    assert "A newer alert, meal.ready for table-7 of " in alert["said"]
    assert f"({ALICE}=1.2), has replaced it" in alert["said"]
    assert "No device had reported it as shown before." in alert["said"]


async def test_it_was_taken_back_before_anybody_saw_it(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    await complete(sender, "1042")
    sender.clock.advance(minutes=3)
    body = {"order_id": "1042", "reason": "completed by mistake"}
    assert (await sender.client.post("/retractions", json=body)).status_code == 200
    async with gateway.connected("alice"):
        await await_relayed(sender)
        alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "retracted"
    assert "It was taken back at 2026-11-23T14:28:00" in alert["said"]
    assert "The reason given: completed by mistake" in alert["said"]
    assert "No device had reported it as shown before." in alert["said"]
    assert "alice has been connected to in-process by websocket since" in alert["said"]


async def test_it_expired_while_she_was_away(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice"):
        pass
    ends = sender.clock() + timedelta(minutes=10)
    await sender.place("1042", "alice")
    body = {"expirytime": format_time(ends)}
    assert (await sender.complete("1042", json=body)).status_code == 200
    sender.clock.advance(minutes=11)
    await await_relayed(sender)
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "expired"
    assert "It expired at 2026-11-23T14:35:00" in alert["said"]
    assert "Nobody is connected as alice now." in alert["said"]
    assert "A connection to in-process by websocket ended at" in alert["said"]


async def test_her_tokens_were_revoked(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice") as browser:
        answer = await sender.client.post("/revocations", json={"customer_id": "alice"})
        assert answer.status_code == 200
        await browser.wait_close()
    await complete(sender, "1042")
    await await_relayed(sender)
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "nobody-connected"
    assert "with 4401: the token was revoked (its token was not, or no longer, valid;" in alert["said"]


async def test_her_page_polls_and_all_its_requests_are_one_line(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    life = gateway.gateway.life
    for _ in range(30):
        poll = Poll(life, Sessions(), Identity("alice", (), expires_at=4e9))
        life.open(poll)
        await life.serve(poll, poll.identity, {})  # type: ignore[arg-type] # it was given one
        poll.leave("answered")
    await complete(sender, "1042")
    await await_relayed(sender)
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "nobody-connected"
    assert (
        "Their page asks in-process by polling, and is connected only while it asks: 30 times"
        in alert["said"]
    )
    assert "ended at" not in alert["said"]


async def test_her_gateway_is_cut_off_from_redis(
    sender: RunningSender, gateway: RunningGateway, redis_server: EmbeddedServer
) -> None:
    """Her gateway can't be asked, but pulls from the sender; the other one answers that she is not there."""
    async with run_gateway(sender.client, redis_server.url, "elsewhere", name="cut-off") as other:
        async with other.connected("alice") as browser:
            redis_server.kill()
            await await_until(lambda: not other.hears)
            await complete(sender, "1042")
            await browser.wait_seqs([1])
            await await_relayed(sender)
            alert = await trace(sender, order_id="1042")
            assert alert["verdict"] == "no-answer"
            assert "cut-off does not hear Redis, so it can't be asked who is connected." in alert["said"]
            assert (await sender.client.get("/connections")).json()["silent"] == ["cut-off"]


async def test_the_sender_restarted_meanwhile(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    url = f"sqlite:///{tmp_path / 'o'}.db"
    async with run_sender(url, redis_url, key_prefix) as before:
        await complete(before, "1042")
        await await_published(before)
    async with (
        run_sender(url, redis_url, key_prefix) as after,
        run_gateway(after.client, redis_url, key_prefix),
    ):
        alert = await trace(after, order_id="1042")
    assert "It was published to Redis. When, is no longer known" in alert["said"]


async def test_it_was_shown_and_closed_at_once(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice") as browser:
        await complete(sender, "1042")
        await browser.wait_seqs([1])
        gateway.gateway.life.report_seen(browser.connection, SeenReport(f"{ALICE}=1.1"))

        async def seen() -> bool:
            return bool((await trace(sender, order_id="1042"))["verdict"] == "shown")

        await await_until(seen)
        alert = await trace(sender, order_id="1042")
    assert "has shown it, even if the pop-up was closed at once" in alert["said"]


async def test_her_page_comes_from_a_foreign_origin_among_strangers_with_bad_tokens(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    life = gateway.gateway.life
    for _ in range(3):
        life.note_refusal(
            "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.", transport="sse"
        )
    life.note_refusal("overloaded", "Try again in a moment.")
    await complete(sender, "1042")
    await await_relayed(sender)
    said = (await trace(sender, order_id="1042"))["said"]
    assert (
        "of unknown customers: 3 with foreign-origin: This origin is not in ORDERBELL_ALLOWED_ORIGINS."
        in said
    )
    assert "of unknown customers: 1 with overloaded: Try again in a moment." in said


async def test_she_has_too_many_connections(sender: RunningSender, gateway: RunningGateway) -> None:
    async with gateway.connected("alice") as browser:
        browser.connection.end(End.TOO_MANY_CONNECTIONS, "too many connections of one customer")
        await browser.wait_close()
    await complete(sender, "1042")
    await await_relayed(sender)
    said = (await trace(sender, order_id="1042"))["said"]
    assert "with 4409: too many connections of one customer (the customer had too many connections;" in said


# And others, whose cause is seldom the first that comes to mind.


async def test_it_was_shown_and_then_expired_or_was_taken_back(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    await sender.place("1042", "alice")
    ends = format_time(sender.clock() + timedelta(minutes=10))
    assert (await sender.complete("1042", json={"expirytime": ends})).status_code == 200
    await complete(sender, "1043")
    await sender.client.post("/seen", json={"cursors": [f"{ALICE}=1.2"]})
    sender.clock.advance(minutes=11)
    assert (await sender.client.post("/retractions", json={"order_id": "1043"})).status_code == 200
    for order_id, verdict in (("1042", "expired"), ("1043", "retracted")):
        alert = await trace(sender, order_id=order_id)
        assert alert["verdict"] == verdict
        assert "A device has reported it as seen" in alert["said"]


async def test_it_expired_or_was_taken_back_before_redis_was_back(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str, anyio_backend: object
) -> None:
    async with run_sender(f"sqlite:///{tmp_path / 'o'}.db", redis_server.url, key_prefix) as sender:
        await await_until(lambda: sender.relay.redis_up is True)
        redis_server.kill()
        await sender.place("1042", "alice")
        ends = format_time(sender.clock() + timedelta(minutes=10))
        assert (await sender.complete("1042", json={"expirytime": ends})).status_code == 200
        await complete(sender, "1043")
        await await_until(lambda: sender.relay.redis_up is False)
        sender.clock.advance(minutes=11)
        assert (await sender.client.post("/retractions", json={"order_id": "1043"})).status_code == 200
        for order_id, verdict in (("1042", "expired"), ("1043", "retracted")):
            alert = await trace(sender, order_id=order_id)
            assert alert["verdict"] == verdict
            assert "Redis is away or takes no events" in alert["said"]
            assert "No device had reported it as shown before." in alert["said"]


async def test_it_was_another_customers(sender: RunningSender, gateway: RunningGateway) -> None:
    await complete(sender, "1042")
    assert (await sender.place("1042", "bob")).status_code == 409  # so the shop was not heard
    alert = await trace(sender, order_id="1042", customer_id="bob")
    assert alert["verdict"] == "not-sent"
    assert "It was sent to alice, so bob has no such alert." in alert["said"]
    assert "differ only in case" not in alert["said"]
    assert "differ only in case" in (await trace(sender, order_id="1042", customer_id="ALICE"))["said"]


async def test_the_shops_call_was_refused(sender: RunningSender) -> None:
    key = {"Idempotency-Key": "one"}
    for order_id, status in (("1041", 201), ("1042", 422)):
        order = {"order_id": order_id, "customer_id": "alice"}
        assert (await sender.client.post("/orders", json=order, headers=key)).status_code == status
    alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "not-placed"
    assert "the shop's call was refused" in alert["said"]


async def test_what_was_just_published_does_not_wait(sender: RunningSender, gateway: RunningGateway) -> None:
    """The database notes it some milliseconds later."""
    life = Life(f"{ALICE}=1.1", format_time(sender.clock()), position=1, waiting=True)
    relaying = Relaying(redis_up=True, contested=False, sender="one", published_at=lambda _: sender.clock())
    published = with_publication(life, relaying)
    assert explain(published, relaying, Known([])).verdict is Verdict.NO_ANSWER
    assert explain(published, relaying._replace(redis_up=False), Known([])).verdict is Verdict.WAITING
    assert explain(life, relaying, Known([])).verdict is Verdict.WAITING


async def test_one_of_her_devices_has_it_and_another_was_closed_as_slow(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    async with gateway.connected("alice"):
        pass
    async with gateway.connected("alice") as phone, gateway.connected("alice") as desktop:
        phone.connection.end(End.SLOW, "too slow")
        await phone.wait_close()
        await complete(sender, "1042")
        await desktop.wait_seqs([1])
        alert = await trace(sender, order_id="1042")
    assert alert["verdict"] == "delivered"
    assert "Another connection to in-process by websocket ended at" in alert["said"]
    assert "with 4408: too slow (it read too slowly;" in alert["said"]
    assert alert["said"].count("Another connection") == 1  # the first one just left


async def test_damaged_event_is_not_called_published(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> None:
    """What was published in its place is a tombstone, which means nothing to support."""
    database = f"sqlite:///{tmp_path / 'o'}.db"
    async with run_sender(database, redis_url, key_prefix, relaying=False) as sender:
        await complete(sender, "1042")
        spoiled = update(events).values(text="lunch")
        await sender.database.write(lambda connection: connection.execute(spoiled))
    async with run_sender(database, redis_url, key_prefix) as sender:
        await await_relayed(sender)
        said = (await trace(sender, order_id="1042"))["said"]
    assert "An event was recorded at" in said
    assert "tombstone" not in said
    assert "published it to Redis" not in said
    assert "not-an-event: its row in the database was damaged" in said
    assert "The shop may send it again" in said


async def test_clocks_that_differ_are_named_since_times_of_both_are_shown(
    sender: RunningSender, gateway: RunningGateway
) -> None:
    """The sender's clock is that of the tests, days behind the gateway's."""
    async with gateway.connected("alice") as browser:
        await complete(sender, "1042")
        await browser.wait_seqs([1])
        said = (await trace(sender, order_id="1042"))["said"]
        assert re.search(r"The clock of in-process is [\d,]+ s ahead of this sender's", said)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(-30, "30 s behind"), (-1, ""), (0.5, ""), (2.5, ""), (3_700, "3,700 s ahead of")],  # 1 s to answer
)
def test_clocks_that_differ_by_moments_are_not_named(seconds: float, says: str) -> None:
    asked_at = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
    now = format_time(asked_at + timedelta(seconds=seconds))
    life = Life(f"{ALICE}=1.1", format_time(asked_at), position=1)
    relaying = Relaying(redis_up=True, contested=False)
    for answered, said in ((now, says), ("", "")):  # a gateway of an earlier version does not report it
        report = GatewayReport("g", now, True, [], {}, 0, now=answered)
        findings = explain(life, relaying, Known([report], asked_at=asked_at)).findings
        told = [one for one in findings if one.startswith("The clock of g is ")]
        assert told == (
            [f"The clock of g is {said} this sender's: times that it reports are its own."] if said else []
        )


def test_docs_quote_what_these_tests_hold() -> None:
    """Each quotation in the docs stands in a test above, which holds it against what `trace` really says."""
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition("## Questions that support is asked")[2].partition("\n## ")[0]
    quoted = re.findall(r'^\|.*\| "(.+)" \|$', section, re.MULTILINE)
    tests = re.sub(r'"\s*\n\s*f?"', "", Path(__file__).read_text(encoding="utf-8"))
    assert len(quoted) == 26
    assert [one for one in quoted if one not in tests] == []
