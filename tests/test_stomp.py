"""STOMP at a real gateway: delivering, acknowledging, resuming, refusing."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from receiver.transports.stomp.frames import Frame
from tests.stomp_client import ORDERS, StompClient, stomp
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

SOCKJS = "/websocket/123/abcdefgh/websocket"


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


@pytest.fixture
def customer() -> str:
    return f"c-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def token(module_processes: Processes, customer: str) -> str:
    return module_processes.token(customer, topics=["menu"])


@pytest.fixture
def publish(module_processes: Processes, sender: SenderProcess, customer: str) -> Callable[..., None]:
    def publish(count: int = 1, channel: str = "") -> None:
        events = [
            {
                "specversion": "1.0",
                "id": uuid.uuid4().hex,
                "source": "/tests",
                "type": "soup",
                "channel": channel or f"customer:{customer}",
                "data": {"n": n, "text": "a\\c: ☕"},
            }
            for n in range(count)
        ]
        response = httpx2.post(
            f"{sender.url}/events",
            content=json.dumps(events),
            headers={**module_processes.api_headers, "content-type": "application/cloudevents-batch+json"},
            trust_env=False,
        )
        assert response.status_code == 202, response.text

    return publish


@pytest.mark.parametrize("path", ["/stomp", "/gs-guide-websocket", "/websocket/websocket", SOCKJS])
async def test_events_arrive_in_order_on_every_path(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None], path: str
) -> None:
    async with stomp(gateway, token, path=path) as client:
        await client.subscribe()
        publish(5)
        assert [event["data"]["n"] for event in await client.receive_events(5)] == list(range(5))
        message = client.messages[-1]
        assert (message.headers["destination"], message.headers["subscription"]) == (ORDERS, "a")
        assert message.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v12.stomp", "v11.stomp", "v10.stomp"], "v12.stomp"),
        (["v10.stomp", "v11.stomp"], "v11.stomp"),
        ([], None),
    ],
)
async def test_best_subprotocol_is_chosen_and_none_is_no_fault(
    gateway: ReceiverProcess, token: str, offered: list[str], chosen: str | None
) -> None:
    async with stomp(gateway, token, subprotocols=offered) as client:
        assert isinstance(client.websocket, ClientConnection)
        assert client.websocket.subprotocol == chosen


async def test_connected_says_version_heartbeat_and_user(
    gateway: ReceiverProcess, token: str, customer: str
) -> None:
    async with stomp(gateway) as client:
        frame = await client.connect(token)
    assert frame.headers["version"] == "1.2"
    assert frame.headers["heart-beat"] == "20000,20000"
    assert frame.headers["user-name"] == customer


async def test_what_was_missed_comes_first_and_once(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    publish(3)
    async with stomp(gateway, token) as client:
        await client.subscribe(ack="client")
        publish(2)
        await client.receive_events(5)
        assert client.seqs == [1, 2, 3, 4, 5]


async def test_place_of_a_message_resumes_behind_it_on_a_websocket_too(
    gateway: ReceiverProcess, token: str, customer: str, publish: Callable[..., None]
) -> None:
    publish(4)
    async with stomp(gateway, token) as client:
        await client.subscribe(ack="client")
        await client.receive_events(2)
        place = client.messages[1].headers["place"]
    async with stomp(gateway, token) as again:
        await again.subscribe(ack="client", after=place)
        await again.receive_events(2)
        assert again.seqs == [3, 4]
    async with connected(gateway, token, query=f"after=customer:{customer}={place}") as browser:
        assert [event["seq"] for event in await browser.receive_events(2)] == [3, 4]


@pytest.mark.parametrize(("acknowledge", "expected"), [("client", [3]), ("auto", [])])
async def test_ack_moves_where_the_next_connection_starts(
    gateway: ReceiverProcess,
    token: str,
    customer: str,
    publish: Callable[..., None],
    acknowledge: str,
    expected: list[int],
) -> None:
    """With STOMP's `auto`, an event that was sent counts as acknowledged."""
    publish(3)
    async with connected(gateway, token) as other, stomp(gateway, token) as client:
        await other.receive_events(3)
        await client.subscribe(ack=acknowledge)
        await client.receive_events(3)
        if acknowledge == "client":
            await client.send("ACK", {"id": client.messages[1].headers["ack"]})
        while not other.notices or other.notices[-1]["type"] != "orderbell.seen":
            await other.receive()
        assert other.notices[-1]["data"]["cursor"] == f"customer:{customer}=1.{2 if expected else 3}"
    async with stomp(gateway, token) as again:
        await again.subscribe(ack="client")
        publish(1)
        await again.receive_events(len(expected) + 1)
        assert again.seqs == [*expected, 4]


async def test_nack_moves_nothing(gateway: ReceiverProcess, token: str, publish: Callable[..., None]) -> None:
    publish(1)
    async with stomp(gateway, token) as client:
        await client.subscribe(ack="client")
        await client.receive_events(1)
        await client.send("NACK", {"id": client.messages[0].headers["ack"], "receipt": "n"})
        await client.expect("RECEIPT")
    async with stomp(gateway, token) as again:
        await again.subscribe(ack="client")
        await again.receive_events(1)
        assert again.seqs == [1]


async def test_topic_of_the_token_arrives_beside_the_orders(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    async with stomp(gateway, token) as client:
        await client.subscribe("/topic/menu", "menu")
        await client.subscribe(ORDERS, "orders")
        publish(1, channel="topic:menu")
        await client.receive_events(1)
        publish(1)
        await client.receive_events(2)
        assert [message.headers["subscription"] for message in client.messages] == [
            "menu",
            "orders",
        ]


async def test_subscribed_client_is_listed_as_live(
    gateway: ReceiverProcess,
    sender: SenderProcess,
    module_processes: Processes,
    customer: str,
    token: str,
    publish: Callable[..., None],
) -> None:
    async with stomp(gateway, token) as client:
        await client.subscribe("/topic/menu", "menu")
        await client.subscribe(ORDERS, "orders")
        publish(1)
        await client.receive_events(1)
        answer = httpx2.get(
            f"{sender.url}/connections",
            params={"customer_id": customer},
            headers=module_processes.api_headers,
            trust_env=False,
        )
        [listed] = [one for report in answer.json()["gateways"] for one in report["listening"]]
        assert (listed["transport"], listed["live"]) == ("stomp", True)


async def test_unsubscribed_gets_nothing_more(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    async with stomp(gateway, token) as client:
        await client.subscribe(name="a")
        await client.subscribe("/topic/menu", "menu")
        await client.send("UNSUBSCRIBE", {"id": "a", "receipt": "gone"})
        await client.expect("RECEIPT")
        publish(1)
        publish(1, channel="topic:menu")
        await client.receive_events(1)
        assert client.events[0]["channel"] == "topic:menu"


async def test_cursor_that_cannot_be_honoured_gets_a_reset_on_its_subscription(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    publish(2)
    async with stomp(gateway, token) as client:
        await client.subscribe(after="1.99")
        [message] = client.messages
        assert json.loads(message.body)["type"] == "orderbell.reset"
        assert message.headers["place"] == "1.2"


async def test_notices_come_to_clients_that_subscribe_to_them(
    gateway: ReceiverProcess, token: str, customer: str, publish: Callable[..., None]
) -> None:
    publish(1)
    async with stomp(gateway, token) as client, connected(gateway, token) as other:
        await client.subscribe("/user/queue/notices", "notices")
        await client.subscribe(ack="client")
        await other.receive_events(1)
        await other.report_seen(f"customer:{customer}=1.1")
        expected = {"orderbell.hello", "orderbell.seen", "orderbell.unread", "soup"}
        types: list[str] = []
        while not expected <= set(types):
            await client.receive()
            types = [json.loads(message.body)["type"] for message in client.messages]
        assert set(types) == expected


async def test_disconnect_is_confirmed_and_closes(gateway: ReceiverProcess, token: str) -> None:
    async with stomp(gateway, token) as client:
        await client.send("DISCONNECT", {"receipt": "close-1"})
        assert (await client.expect("RECEIPT")).headers["receipt-id"] == "close-1"
        assert await client.receive_close() == 1000


@pytest.mark.parametrize(
    ("command", "headers"),
    [
        ("SUBSCRIBE", {"id": "a", "destination": "/topic/other"}),
        ("SUBSCRIBE", {"id": "a", "destination": "/user/bob/queue/orders"}),
        ("SUBSCRIBE", {"id": "a", "destination": "/queue/orders"}),
        ("SUBSCRIBE", {"id": "a", "destination": "/topic/*"}),
        ("SEND", {"destination": "/topic/menu"}),
        ("SEND", {"destination": "/app/hello"}),
        ("BEGIN", {"transaction": "t"}),
        ("ACK", {"id": "1-1.1"}),
        ("ACK", {"id": "1-1.1", "transaction": "t"}),
        ("SUBSCRIBE", {"id": "a", "destination": ORDERS, "selector": "total > 10"}),
        ("SUBSCRIBE", {"id": "a", "destination": "/exchange/orders/x"}),
    ],
)
async def test_what_is_not_allowed_gets_an_error_that_names_its_receipt_and_ends(
    gateway: ReceiverProcess, token: str, command: str, headers: dict[str, str]
) -> None:
    async with stomp(gateway, token) as client:
        await client.send(command, {**headers, "receipt": "r-1"})
        error = await client.receive()
        assert error.command == "ERROR"
        assert error.headers["receipt-id"] == "r-1"
        assert error.headers["message"]
        assert await client.receive_close() == 1002


async def test_ack_of_an_event_that_was_not_sent_is_refused_and_moves_nothing(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    publish(1)
    async with stomp(gateway, token) as client:
        await client.subscribe(ack="client", after="1.0")
        [first] = await client.receive_events(1)
        mark = client.messages[0].headers["ack"]
        publish(1)
        await client.receive_events(2)
        later = client.messages[1].headers["ack"].replace("1.2", "1.3")
        await client.send("ACK", {"id": later, "receipt": "r"})
        assert (await client.receive()).command == "ERROR"
        assert await client.receive_close() == 1002
    async with stomp(gateway, token) as client:
        await client.subscribe(ack="client")
        assert (await client.receive_events(2))[0] == first
        assert client.messages[0].headers["ack"] == mark


@pytest.mark.parametrize("cut", [1, 13, 90])
async def test_frames_may_come_as_bytes_cut_anywhere(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None], cut: int
) -> None:
    """stompjs sends them so with `forceBinaryWSFrames`. A cut may be within a character."""
    async with stomp(gateway) as client:
        assert isinstance(client.websocket, ClientConnection)
        data = f"CONNECT\naccept-version:1.2\nx:{'☕' * 40}\npasscode:{token}\n\n\0".encode()
        for piece in (data[:cut], data[cut:]):
            await client.websocket.send(piece)
        await client.expect("CONNECTED")
        live = f"SUBSCRIBE\nid:a\ndestination:{ORDERS}\nreceipt:r\n\n\0\n".encode()
        await client.websocket.send([live[:cut], live[cut:]])  # fragments of one message
        await client.expect("RECEIPT")
        publish(1)
        await client.receive_events(1)


async def test_session_names_differ_and_say_nothing_of_our_memory(
    gateway: ReceiverProcess, token: str
) -> None:
    names = set()
    for _ in range(5):
        async with stomp(gateway) as client:
            names.add((await client.connect(token)).headers["session"])
    assert len(names) == 5
    assert {len(name) for name in names} == {16}


@pytest.mark.parametrize(
    "data",
    [
        "HELLO\n\n\0",
        "SEND\nno colon\n\n\0",
        "SUBSCRIBE\nid:\\x\n\n\0",
        "SEND\ncontent-length:\x1e3\n\nabc\0",
    ],
)
async def test_what_is_no_frame_gets_an_error(gateway: ReceiverProcess, token: str, data: str) -> None:
    async with stomp(gateway, token) as client:
        await client.send_raw(data.encode())
        assert (await client.receive()).command == "ERROR"
        assert await client.receive_close() == 1002


@pytest.mark.parametrize(("token_given", "code"), [("", 4401), ("ey.no.token", 4401)])
async def test_token_that_proves_nothing_gets_an_error_and_4401(
    gateway: ReceiverProcess, token_given: str, code: int
) -> None:
    async with stomp(gateway) as client:
        await client.send("CONNECT", {"accept-version": "1.2", "passcode": token_given})
        assert (await client.receive()).command == "ERROR"
        assert await client.receive_close() == code


async def test_token_may_come_with_the_handshake(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    async with stomp(gateway, headers={"Authorization": f"Bearer {token}"}) as client:
        await client.send("CONNECT", {"accept-version": "1.1,1.0"})
        assert (await client.expect("CONNECTED")).headers["version"] == "1.1"
        await client.subscribe()
        publish(1)
        await client.receive_events(1)


async def test_frames_sent_before_connected_is_answered_are_done_in_order(
    gateway: ReceiverProcess, token: str, publish: Callable[..., None]
) -> None:
    async with stomp(gateway) as client:
        await client.send_raw(
            f"CONNECT\naccept-version:1.2\npasscode:{token}\n\n\0\nSUBSCRIBE\nid:a\ndestination:{ORDERS}"
            "\nreceipt:r\n\n\0".encode()
        )
        await client.expect("RECEIPT")
        assert [frame.command for frame in client.frames] == ["CONNECTED", "RECEIPT"]
        publish(1)
        await client.receive_events(1)


async def test_foreign_origin_is_refused_before_accepting(gateway: ReceiverProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with stomp(gateway, headers={"Origin": "https://evil.example"}):
            pass
    assert refused.value.response.status_code == 403


async def test_sockjs_info_says_that_there_are_websockets(gateway: ReceiverProcess) -> None:
    info = httpx2.get(f"{gateway.url}/websocket/info?t=1", trust_env=False)
    assert info.json()["websocket"] is True
    assert info.headers["cache-control"] == (
        "no-store, no-cache, no-transform, must-revalidate, max-age=0"  # the protocol's own
    )
    other = httpx2.get(f"{gateway.url}/websocket/info?t=1", trust_env=False)
    assert info.json()["entropy"] != other.json()["entropy"]
    assert info.json()["cookie_needed"] is False
    assert "no-store" in info.headers["cache-control"]


async def test_sockjs_opens_and_says_why_it_ends(gateway: ReceiverProcess) -> None:
    async with stomp(gateway, path=SOCKJS) as client:
        assert await client.websocket.recv() == "o"
        await client.websocket.send("not json")
        assert str(await client.websocket.recv()).startswith("a[")  # the ERROR
        assert str(await client.websocket.recv()).startswith("c[1002,")


async def test_heartbeats_come_as_line_ends_where_they_are_asked_for(
    module_processes: Processes, sender: SenderProcess, token: str
) -> None:
    gateway = module_processes.start_receiver(sender=sender, heartbeat_seconds="1")
    async with stomp(gateway) as client, stomp(gateway, path=SOCKJS) as sockjs:
        assert (await client.connect(token, **{"heart-beat": "0,1000"})).headers["heart-beat"] == "1000,1000"
        await sockjs.connect(token)
        for one in (client, sockjs):
            with pytest.raises(TimeoutError):
                await receive_for(one, seconds=2.5)
            assert one.beats >= 1


async def receive_for(client: StompClient, *, seconds: float) -> None:
    """Nothing but heartbeats is expected, so it ends with `TimeoutError`."""
    async with asyncio.timeout(seconds):
        await client.receive()


async def test_drained_client_is_sent_elsewhere_without_an_error(
    module_processes: Processes, sender: SenderProcess, token: str
) -> None:
    gateway = module_processes.start_receiver(sender=sender, drain_seconds="0.1")
    async with stomp(gateway, token) as client:
        await client.subscribe()
        gateway.process.terminate()
        assert await client.receive_close() == 1012
        assert [frame.command for frame in client.frames] == ["CONNECTED", "RECEIPT"]


@pytest.mark.parametrize("path", ["/stomp", SOCKJS])
@pytest.mark.parametrize("logged_in", [False, True], ids=["stranger", "customer"])
async def test_client_that_asks_and_leaves_in_one_packet_harms_nobody(
    gateway: ReceiverProcess, token: str, path: str, logged_in: bool
) -> None:
    frame = Frame("SUBSCRIBE" if logged_in else "CONNECT", {"id": "0", "destination": ORDERS}).encode()
    async with stomp(gateway, token if logged_in else None, path=path) as client:
        connection = client.websocket
        assert isinstance(connection, ClientConnection)
        text = frame if path == "/stomp" else json.dumps([frame.decode()]).encode()
        connection.protocol.send_text(text)
        connection.protocol.send_close()
        connection.transport.write(b"".join(connection.protocol.data_to_send()))
        await connection.wait_closed()
    assert gateway.answers("/livez")
