"""ORDERBELL_SPRING_COMPAT at the gateway: what pages send to `/app/hello`, and what they get."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx2
import pytest

from receiver.transports.stomp.session import Sent
from receiver.transports.stomp.spring import Unreadable, answer_to, body_of, html_escape
from shared.spring import GREETINGS, MESSAGES
from tests.stomp_client import ORDERS, StompClient, stomp
from tests.waiting import await_until, wait_until

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

GUIDE = "/gs-guide-websocket"
ARTICLE = "/websocket/123/abcdefgh/websocket"
OLDER_GUIDE = "/gs-guide-websocket/123/abcdefgh/websocket"


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender(spring_compat="1")


@pytest.fixture(scope="module")
def gateways(module_processes: Processes, sender: SenderProcess) -> list[ReceiverProcess]:
    return [module_processes.start_receiver(sender=sender, spring_compat="1") for _ in range(2)]


async def connect(client: StompClient, *destinations: str, **headers: str) -> None:
    """As the pages do: no token, no receipts asked for; returns when it listens."""
    await client.send("CONNECT", {"accept-version": "1.1,1.0", "heart-beat": "10000,10000", **headers})
    await client.expect("CONNECTED")
    for n, destination in enumerate(destinations):
        await client.subscribe(destination, f"sub-{n}")


async def hello(client: StompClient, body: str, **headers: str) -> None:
    await client.send("SEND", {"destination": "/app/hello", **headers}, body.encode())


@pytest.mark.parametrize("path", [ARTICLE, "/websocket/websocket", "/stomp"])
async def test_text_of_the_articles_page_reaches_the_pages_at_both_gateways(
    gateways: list[ReceiverProcess], path: str
) -> None:
    async with stomp(gateways[0], path=path) as here, stomp(gateways[1], path=path) as there:
        await connect(here, "/topic/messages")
        await connect(there, "/topic/messages")
        await hello(here, "Hi <b>there</b>")
        for client in (here, there):
            message = await client.expect("MESSAGE")
            assert message.body == b"Submitted message: Hi <b>there</b>"
            assert message.headers["content-type"] == "text/plain;charset=UTF-8"
            assert message.headers["destination"] == "/topic/messages"


@pytest.mark.parametrize("path", [GUIDE, OLDER_GUIDE, "/stomp"])
async def test_name_of_the_guides_page_is_greeted_at_both_gateways(
    gateways: list[ReceiverProcess], path: str
) -> None:
    async with stomp(gateways[0], path=path) as here, stomp(gateways[1], path=path) as there:
        await connect(here, "/topic/greetings")
        await connect(there, "/topic/greetings")
        await hello(here, '{"name":"<Zoë> & \'co\'"}')
        for client in (here, there):
            message = await client.expect("MESSAGE")
            assert json.loads(message.body) == {"content": "Hello, &lt;Zo&euml;&gt; &amp; &#39;co&#39;!"}
            assert message.headers["content-type"] == "application/json"


@pytest.mark.parametrize("at", ["sender", "gateway"])
async def test_text_that_is_posted_reaches_the_pages_at_both_gateways(
    gateways: list[ReceiverProcess], sender: SenderProcess, at: str
) -> None:
    async with stomp(gateways[0], path=ARTICLE) as here, stomp(gateways[1], path=GUIDE) as there:
        await connect(here, "/topic/messages")
        await connect(there, "/topic/messages")
        url = {"sender": sender, "gateway": gateways[0]}[at].url
        headers = {"content-type": "text/plain"}
        answer = await asyncio.to_thread(
            httpx2.post, f"{url}/submit", content="☕ für zwei".encode(), headers=headers, trust_env=False
        )
        assert (answer.status_code, answer.text) == (200, "Received message: ☕ für zwei")
        for client in (here, there):
            assert (await client.expect("MESSAGE")).body.decode() == "Received message: ☕ für zwei"


async def test_messages_the_applications_could_not_read_are_dropped_and_the_page_stays(
    gateways: list[ReceiverProcess],
) -> None:
    async with stomp(gateways[0], path=GUIDE) as client:
        await connect(client, "/topic/greetings")
        for body in (
            "",
            "{",
            "[]",
            "null",
            "7",
            "{}",
            '{"name":null}',
            '{"name":["x"]}',
            '{"name":{}}',
            "{" * 999,
        ):
            await hello(client, body)
        await hello(client, "x" * 1000, **{"content-type": "text/plain;charset=utf-7"})
        await hello(client, '{"name":"still here"}')
        assert (await client.expect("MESSAGE")).body == b'{"content":"Hello, still here!"}'
    lines = gateways[0].records("a message could not be read and was dropped")
    assert lines
    assert "still here" not in gateways[0].text()


async def test_text_too_large_for_an_event_is_dropped_and_the_page_stays(
    gateways: list[ReceiverProcess],
) -> None:
    async with stomp(gateways[0], path="/websocket/websocket") as client:
        await connect(client, "/topic/messages")
        await hello(client, "\n" * 60_000)  # of which JSON makes twice as many
        await hello(client, "small")
        assert (await client.expect("MESSAGE")).body == b"Submitted message: small"


async def test_receipt_of_a_message_comes_after_it_is_kept(gateways: list[ReceiverProcess]) -> None:
    async with stomp(gateways[0]) as client:
        await connect(client)
        await hello(client, "kept", receipt="r1")
        assert (await client.expect("RECEIPT")).headers["receipt-id"] == "r1"


@pytest.mark.parametrize("destination", ["/topic/greetings", "/topic/messages", "/app/other", "/queue/x"])
async def test_other_destinations_are_refused_in_this_mode_too(
    gateways: list[ReceiverProcess], destination: str
) -> None:
    async with stomp(gateways[0]) as client:
        await connect(client)
        await client.send("SEND", {"destination": destination}, b"x")
        assert (await client.receive()).command == "ERROR"
        assert await client.receive_close() == 1002


async def test_topics_are_open_and_customers_are_not(
    gateways: list[ReceiverProcess], module_processes: Processes
) -> None:
    async with stomp(gateways[0]) as client:
        await connect(client, "/topic/any/thing", "/topic/menu", "/user/queue/notices")
        await client.send("SUBSCRIBE", {"id": "mine", "destination": ORDERS})
        error = await client.receive()
        assert error.command == "ERROR"
        assert "token is required" in error.headers["message"]
    async with stomp(gateways[0], module_processes.token("alice")) as client:
        assert client.frames[0].headers["user-name"] == "alice"
        await client.subscribe(ORDERS, "mine")
        await client.subscribe("/topic/not-in-the-token", "open")


async def test_password_is_passed_over_and_a_bad_token_is_not(
    gateways: list[ReceiverProcess], module_processes: Processes
) -> None:
    async with stomp(gateways[0]) as client:
        await connect(client, "/topic/messages", login="guest", passcode="guest")
    bad = module_processes.token("alice")[:-3] + "AAA"
    async with stomp(gateways[0]) as client:
        await client.send("CONNECT", {"accept-version": "1.2", "passcode": bad})
        assert (await client.receive()).command == "ERROR"
        assert await client.receive_close() == 4401


async def test_other_topics_still_send_whole_events(
    gateways: list[ReceiverProcess], sender: SenderProcess, module_processes: Processes
) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/t", "type": "t", "channel": "topic:soup", "data": 1}
    headers = {**module_processes.api_headers, "content-type": "application/cloudevents+json"}
    async with stomp(gateways[0]) as client:
        await connect(client, "/topic/soup")
        answer = await asyncio.to_thread(
            httpx2.post, f"{sender.url}/events", json=event, headers=headers, trust_env=False
        )
        assert answer.status_code == 202
        assert json.loads((await client.expect("MESSAGE")).body)["data"] == 1


async def test_page_that_comes_back_with_its_place_gets_what_it_missed(
    gateways: list[ReceiverProcess], sender: SenderProcess
) -> None:
    async with stomp(gateways[0]) as client:
        await connect(client, "/topic/messages")
        await hello(client, "one")
        place = (await client.expect("MESSAGE")).headers["place"]
    httpx2.post(f"{sender.url}/submit", content=b"two", trust_env=False)
    async with stomp(gateways[1]) as client:
        await connect(client)
        await client.send("SUBSCRIBE", {"id": "a", "destination": "/topic/messages", "after": place})
        assert (await client.expect("MESSAGE")).body == b"Received message: two"


async def test_start_is_warned_about_at_both_services(
    gateways: list[ReceiverProcess], sender: SenderProcess
) -> None:
    for process in (sender, *gateways):
        warnings = [one for one in process.records() if "ORDERBELL_SPRING_COMPAT" in one["event"]]
        assert [one["level"] for one in warnings] == ["warning"], process.text()


def test_off_by_default_nothing_of_it_is_there(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    for process in (sender, gateway):
        assert httpx2.post(f"{process.url}/submit", content=b"x", trust_env=False).status_code == 404
        assert "SPRING" not in process.text()

    async def refused() -> None:
        async with stomp(gateway) as client:
            await client.send("CONNECT", {"accept-version": "1.2"})
            assert (await client.receive()).command == "ERROR"
        async with stomp(gateway, processes.token("alice", topics=["messages"])) as client:
            await client.subscribe("/topic/messages")
            await client.send("SEND", {"destination": "/app/hello"}, b"x")
            assert (await client.receive()).command == "ERROR"

    asyncio.run(refused())


async def test_gateway_says_that_its_sender_lacks_the_mode_and_pages_still_work(
    processes: Processes,
) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(spring_compat="1")
    wait_until(lambda: "not at the sender" in gateway.text())
    async with stomp(gateway, path=ARTICLE) as client:
        await connect(client, "/topic/messages")
        await hello(client, "hi")
        assert (await client.expect("MESSAGE")).body == b"Submitted message: hi"


async def test_page_is_sent_away_while_the_sender_is_gone(processes: Processes) -> None:
    sender = processes.start_sender(spring_compat="1")
    gateway = processes.start_receiver(spring_compat="1")
    async with stomp(gateway) as client:
        await connect(client)
        sender.kill()
        await hello(client, "lost")
        assert await client.receive_close() == 1013
    answer = httpx2.post(f"{gateway.url}/submit", content=b"x", trust_env=False)
    assert answer.status_code == 503
    sender.start()
    await await_until(lambda: httpx2.post(f"{gateway.url}/submit", content=b"x", trust_env=False).is_success)


def sent(body: str, content_type: str = "") -> Sent:
    return Sent("/app/hello", content_type, body.encode())


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"name":""}', ""),
        ('{"name":"a","other":1}', "a"),
        ('{"name":1.50}', "1.50"),
        ('{"name":true}', "true"),
        ('"Ann"', "Ann"),
        ('{"name":"\\u0000"}', "\0"),
    ],
)
def test_names_are_read_as_jackson_reads_them(body: str, name: str) -> None:
    assert answer_to(sent(body), {GREETINGS}) == (GREETINGS, {"content": f"Hello, {name}!"})


def test_what_a_page_listens_to_decides_which_it_is() -> None:
    both = '{"name":"x"}'
    assert answer_to(sent(both), {MESSAGES})[0] == MESSAGES
    assert answer_to(sent(both), {GREETINGS})[0] == GREETINGS
    assert answer_to(sent(both), ())[0] == GREETINGS
    assert answer_to(sent("x"), {MESSAGES, GREETINGS}) == (MESSAGES, "Submitted message: x")
    with pytest.raises(Unreadable):
        answer_to(sent("x"), {GREETINGS})


def test_charset_of_a_message_counts() -> None:
    latin = Sent("/app/hello", "text/plain;charset=ISO-8859-1", b"\xe9")
    assert answer_to(latin, {MESSAGES}) == (MESSAGES, "Submitted message: é")
    with pytest.raises(Unreadable, match="not utf-8"):
        answer_to(Sent("/app/hello", "", b"\xe9"), {MESSAGES})
    with pytest.raises(Unreadable, match="NUL"):
        answer_to(sent("a\0b"), {MESSAGES})


def test_html_is_escaped_by_name_where_html_4_has_one() -> None:
    assert html_escape("""<a href="x">'&'</a>""") == "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
    assert html_escape("é€ü☕Ω") == "&eacute;&euro;&uuml;☕&Omega;"


def test_event_that_could_not_be_published_is_no_message() -> None:
    assert body_of(b'{"type":"orderbell.tombstone","data":{"reason":"too-large"}}') is None
    assert body_of(b'{"type":"t"}') == ("application/json", b"null")
