"""Polling beyond what every transport does: its shape, its sockets, its sessions, and what it costs Redis."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import uuid
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.conformance.conftest import DRIVERS
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conformance.client import Driver
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender, allowed_origins=SHOP)


@pytest.fixture(scope="module")
def other_gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


@pytest.fixture
def customer() -> str:
    return f"c{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def http(
    gateway: ReceiverProcess, module_processes: Processes, customer: str
) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {module_processes.token(customer)}"}
    async with httpx2.AsyncClient(
        base_url=gateway.url, headers=headers, trust_env=False, timeout=60
    ) as client:
        yield client


@pytest.fixture
async def post(sender: SenderProcess, module_processes: Processes) -> AsyncIterator[Any]:
    headers = module_processes.api_headers | {"content-type": "application/cloudevents-batch+json"}
    async with httpx2.AsyncClient(
        base_url=sender.url, headers=headers, trust_env=False, timeout=20
    ) as client:

        async def post(channel: str, count: int = 1, size: int = 0) -> None:
            event = {"specversion": "1.0", "source": "/tests", "type": "news", "channel": channel}
            events = [event | {"id": uuid.uuid4().hex, "data": "x" * size} for _ in range(count)]
            answer = await client.post("/events", json=events)
            assert answer.status_code == 202, answer.text

        yield post


def seqs(answer: httpx2.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [event["seq"] for event in answer.json()["events"]]


def figure(gateway: ReceiverProcess, name: str) -> float:
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    found = re.search(rf"^{re.escape(name)} ([\d.e+]+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_answer_has_the_same_shape_whether_something_came_or_not(
    http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    nothing = await http.get("/events?wait=0.2")
    assert nothing.json().keys() == {"events", "notices", "cursor"}
    assert (nothing.json()["events"], nothing.json()["cursor"]) == ([], f"customer:{customer}=1.0")
    assert nothing.headers["cache-control"] == "no-store"
    asked = asyncio.create_task(http.get(f"/events?wait=25&after={nothing.json()['cursor']}"))
    await post(f"customer:{customer}")
    answer = await asked
    assert seqs(answer) == [1]
    assert answer.json()["cursor"] == f"customer:{customer}=1.1"
    assert answer.json()["notices"][0]["type"] == "orderbell.hello"
    plain = await http.get(f"/events?wait=0&after=customer:{customer}=1.0")
    assert seqs(plain) == [1]
    assert plain.json().keys() == nothing.json().keys()


async def test_request_waits_no_longer_than_it_asks_for(http: httpx2.AsyncClient) -> None:
    before = asyncio.get_running_loop().time()
    assert seqs(await http.get("/events?wait=1")) == []
    assert 1 <= asyncio.get_running_loop().time() - before < 10


async def test_json_without_a_wait_is_polling_and_a_stream_is_still_a_stream(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.get("/events", headers={"Accept": "application/json"})
    assert answer.json()["events"] == []
    async with http.stream("GET", "/events?wait=5", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"] == "text/event-stream"


async def test_client_that_has_the_same_already_gets_304_until_something_comes(
    http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    first = await http.get("/events?wait=0")
    etag = {"If-None-Match": first.headers["etag"]}
    assert first.headers["cache-control"] == "private, no-cache"
    again = await http.get("/events?wait=0", headers=etag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    await post(f"customer:{customer}")

    async def came() -> bool:
        return (await http.get("/events?wait=0", headers=etag)).status_code == 200

    await await_until(came)
    changed = await http.get("/events?wait=0", headers=etag)
    assert seqs(changed) == [1]
    assert changed.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ("{weak}", 304),
        ("{strong}", 304),  # as a proxy may have made it
        ('"other", {weak}', 304),
        ('"a,b",{weak},"c"', 304),
        ("*", 304),
        ('W/"other"', 200),
        ("other", 200),
        ("", 200),
    ],
)
async def test_tags_are_compared_weakly_each_of_a_list(
    http: httpx2.AsyncClient, known: str, status: int
) -> None:
    """RFC 9110 13.1.2."""
    weak = (await http.get("/events?wait=0")).headers["etag"]
    given = known.format(weak=weak, strong=weak.removeprefix("W/"))
    answer = await http.get("/events?wait=0", headers={"If-None-Match": given})
    assert answer.status_code == status


async def test_tag_of_one_gateway_counts_at_another(
    http: httpx2.AsyncClient, other_gateway: ReceiverProcess, customer: str, post: Any
) -> None:
    """A balancer that takes turns would make every poll a whole answer."""
    await post(f"customer:{customer}")
    query = f"/events?wait=0&after=customer:{customer}=1.1"

    async def tag_at(url: str) -> str:
        return str((await http.get(url + query)).headers["etag"])

    tag = await tag_at("")
    assert await tag_at(other_gateway.url) == tag
    known = await http.get(other_gateway.url + query, headers={"If-None-Match": tag})
    assert known.status_code == 304


async def test_tag_in_a_second_header_counts_too(http: httpx2.AsyncClient) -> None:
    tag = (await http.get("/events?wait=0")).headers["etag"]
    both = [("If-None-Match", '"other"'), ("If-None-Match", tag)]
    assert (await http.get("/events?wait=0", headers=both)).status_code == 304


@pytest.mark.parametrize("wait", ["86400", "999999999", "1.123456789"])
async def test_wait_beyond_the_longest_is_the_longest(
    http: httpx2.AsyncClient, customer: str, post: Any, wait: str
) -> None:
    waiting = asyncio.create_task(http.get(f"/events?wait={wait}&after=customer:{customer}=1.0"))
    await post(f"customer:{customer}")
    assert seqs(await waiting) == [1]


async def test_polls_with_nothing_but_the_cursor_lose_no_event_and_repeat_none(
    http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    posting = asyncio.create_task(_post_often(post, f"customer:{customer}", 100))
    had: list[int] = []
    cursor = f"customer:{customer}=1.0"
    for turn in range(10_000):
        answer = await http.get(f"/events?wait={25 if turn % 2 else 0}&after={cursor}")
        had += seqs(answer)
        cursor = answer.json()["cursor"]
        if len(had) >= 100:
            break
    await posting
    assert had == list(range(1, 101))


async def _post_often(post: Any, channel: str, count: int) -> None:
    for _ in range(count):
        await post(channel)


async def test_more_than_one_answer_holds_comes_in_several(
    http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    await post(f"customer:{customer}", 12, 60_000)
    for session in ("", "&session=s"):
        had: list[int] = []
        cursor, answers = f"customer:{customer}=1.0", 0
        while len(had) < 12:
            answer = await http.get(f"/events?wait=10&after={cursor}{session}")
            assert len(answer.content) < 300_000
            had += seqs(answer)
            cursor, answers = answer.json()["cursor"], answers + 1
        assert had == list(range(1, 13))
        assert answers > 3


async def test_no_subscription_is_made_anew_between_two_polls(
    gateway: ReceiverProcess, http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    """A gateway looks for feeds without members every 3 s; these polls leave them empty for 4 s."""
    cursor = (await http.get("/events?wait=0")).json()["cursor"]
    before = figure(gateway, 'orderbell_feed_repairs_total{cause="subscribed"}')
    assert before > 0
    await asyncio.sleep(4)
    await post(f"customer:{customer}")
    assert seqs(await http.get(f"/events?wait=10&after={cursor}")) == [1]
    assert figure(gateway, 'orderbell_feed_repairs_total{cause="subscribed"}') == before


async def test_notice_that_comes_between_two_polls_of_a_session_is_in_the_second(
    gateway: ReceiverProcess, http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    await post(f"customer:{customer}", 2)
    first = await http.get(f"/events?wait=25&session=one&after=customer:{customer}=1.0")
    cursor = first.json()["cursor"]
    while cursor != f"customer:{customer}=1.2":
        cursor = (await http.get(f"/events?wait=25&session=one&after={cursor}")).json()["cursor"]
    other = await http.get(f"/events?wait=0&session=other&after={cursor}")
    assert other.json()["notices"][0]["type"] == "orderbell.hello"
    await http.post("/seen", json={"cursor": cursor})

    async def told() -> bool:
        answer = await http.get(f"/events?wait=0&session=other&after={cursor}")
        return "orderbell.seen" in [one["type"] for one in answer.json()["notices"]]

    await await_until(told)
    answer = await http.get(f"/events?wait=25&session=one&after={cursor}")
    assert "orderbell.seen" in [one["type"] for one in answer.json()["notices"]]
    assert seqs(answer) == []


async def test_answer_that_was_lost_on_its_way_comes_again(
    http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    await post(f"customer:{customer}", 2)
    query = f"/events?wait=10&session=s&after=customer:{customer}=1.0"
    for _ in range(2):
        assert seqs(await http.get(query)) == [1, 2]


async def test_request_that_was_given_up_takes_nothing_from_the_one_that_follows(
    gateway: ReceiverProcess, http: httpx2.AsyncClient, customer: str, post: Any
) -> None:
    hello = await http.get("/events?wait=10&session=s")
    query = f"/events?wait=20&session=s&after={hello.json()['cursor']}"
    asked = [asyncio.create_task(http.get(query)) for _ in range(2)]
    # The second request makes the gateway answer the first one.
    (given_up,), (waiting,) = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert seqs(given_up.result()) == []
    await post(f"customer:{customer}")
    answer = await waiting
    if not seqs(answer):  # a notice was there before the event, and is an answer of its own
        assert answer.json()["notices"]
        answer = await http.get(f"/events?wait=20&session=s&after={answer.json()['cursor']}")
    assert seqs(answer) == [1]


async def test_waiting_request_gives_its_socket_back_for_the_next_one(
    gateway: ReceiverProcess, module_processes: Processes, customer: str
) -> None:
    """Also if the client sends it before it has its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = (
        f"GET /events?wait=1 HTTP/1.1\r\nHost: localhost\r\nOrigin: {SHOP}\r\n"
        f"Authorization: Bearer {module_processes.token(customer)}\r\n\r\n"
    )
    for _ in range(2):
        writer.write(head.encode())
        await asyncio.sleep(0.3)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await _read_answer(reader)
        assert b"connection: close" not in answer
        assert f"access-control-allow-origin: {SHOP}".encode() in answer
        assert b'"events":[]' in answer
        assert b'{"status":"ok"}' in await _read_answer(reader)
    writer.write(head.replace("Host:", "Connection: close\r\nHost:").encode())
    assert b"connection: close" in await _read_answer(reader)
    assert await reader.read() == b""
    writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = re.search(rb"content-length: (\d+)", head)
    assert size is not None
    return head + await reader.readexactly(int(size[1]))


async def test_client_that_leaves_while_it_waits_is_forgotten_at_once(
    sender: SenderProcess, module_processes: Processes, customer: str
) -> None:
    gateway = module_processes.start_receiver(sender=sender)  # without lingering sessions of other tests
    name = 'orderbell_connections{transport="long-polling"}'
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        sock.sendall(
            b"GET /events?wait=50 HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % module_processes.token(customer).encode()
        )
        await await_until(lambda: figure(gateway, name) == 1)
    await await_until(lambda: figure(gateway, name) == 0, 5)


@pytest.mark.parametrize(
    ("query", "headers", "status", "kind"),
    [
        ("wait=25", {}, 401, "unauthenticated"),
        ("wait=0&ticket=never-was", {}, 401, "unauthenticated"),
        ("wait=0&token=x", {}, 400, "token-in-url"),
        ("wait=0", {"Origin": "https://evil.example"}, 403, "foreign-origin"),
        ("wait=25&after=garbage", {"Authorization": "good"}, 400, "bad-message"),
        ("wait=25&after=customer:bob=1.1", {"Authorization": "good"}, 403, "forbidden"),
        ("wait=soon", {"Authorization": "good"}, 400, "bad-message"),
        ("wait=-1", {"Authorization": "good"}, 400, "bad-message"),
        ("wait=nan", {"Authorization": "good"}, 400, "bad-message"),
        ("wait=0&session=a%20b", {"Authorization": "good"}, 400, "bad-message"),
    ],
)
async def test_what_is_refused_is_a_status_and_a_problem(
    gateway: ReceiverProcess,
    module_processes: Processes,
    query: str,
    headers: dict[str, str],
    status: int,
    kind: str,
) -> None:
    if headers.get("Authorization"):
        headers = {"Authorization": f"Bearer {module_processes.token('rhea')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.get(f"/events?{query}", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:orderbell:problem:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_ticket_and_cookie_serve_a_poll_as_a_header_does(
    gateway: ReceiverProcess, http: httpx2.AsyncClient, module_processes: Processes, customer: str
) -> None:
    ticket = (await http.post("/tickets")).json()["ticket"]
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as bare:
        assert seqs(await bare.get(f"/events?wait=0&ticket={ticket}")) == []
        cookie = {"Cookie": f"orderbell_token={module_processes.token(customer)}"}
        assert seqs(await bare.get("/events?wait=0", headers=cookie)) == []


async def test_page_of_an_allowed_origin_may_read_answers_and_refusals(http: httpx2.AsyncClient) -> None:
    for query in ("wait=0", "wait=0.1"):
        answer = await http.get(f"/events?{query}", headers={"Origin": SHOP})
        assert answer.headers["access-control-allow-origin"] == SHOP, query
        assert answer.headers["access-control-allow-credentials"] == "true"
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "authorization,if-none-match"
    assert (await http.options("/events?wait=0", headers=asked)).status_code == 200


@pytest.mark.long
async def test_customer_that_polls_without_a_pause_is_asked_to_come_later(
    gateway: ReceiverProcess, http: httpx2.AsyncClient
) -> None:
    # None of these waits: the time is too short, or a session that begins is greeted at once.
    asked = itertools.cycle(("wait=0", "wait=0.001", "wait=5&session={}"))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = http.headers["authorization"]
    answer = b""
    for number in range(3_000):
        query = next(asked).format(number % 10)
        writer.write(f"GET /events?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        answer = await _read_answer(reader)
        if not answer.startswith(b"HTTP/1.1 200"):
            break
    writer.close()
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"urn:orderbell:problem:too-fast" in answer
    assert int(answer.partition(b"retry-after: ")[2].split()[0]) >= 1
    for query in ("wait=0.9", "wait=5&session=x{}"):  # some a second are allowed, but not so many at once
        answers = await asyncio.gather(*[http.get(f"/events?{query.format(n)}") for n in range(40)])
        assert 429 in {answer.status_code for answer in answers}
    assert 'orderbell_requests_refused_total{kind="too-many-polls"}' in (await http.get("/metrics")).text
    assert seqs(await http.get("/events?wait=1")) == []


async def test_full_gateway_says_when_to_come_back(
    module_processes: Processes, sender: SenderProcess
) -> None:
    gateway = module_processes.start_receiver(sender=sender, max_connections="1")
    headers = {"Authorization": f"Bearer {module_processes.token('fay')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        first = await http.get("/events?wait=10&session=one")
        answer = await http.get("/events?wait=0")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["type"] == "urn:orderbell:problem:overloaded"
        # A session that exists is served.
        cursor = first.json()["cursor"]
        assert seqs(await http.get(f"/events?wait=0.1&session=one&after={cursor}")) == []
        assert (await http.delete("/events?session=one")).status_code == 204
        assert seqs(await http.get("/events?wait=0")) == []


@pytest.mark.parametrize("first", DRIVERS, ids=[driver.name for driver in DRIVERS])
async def test_cursor_of_any_transport_resumes_on_any_other_and_on_another_gateway(
    first: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    module_processes: Processes,
    customer: str,
    post: Any,
) -> None:
    token = module_processes.token(customer, topics=[customer])
    channel, topic = f"customer:{customer}", f"topic:{customer}"
    await post(channel, 2)
    await post(topic, 1)
    async with first.connected(gateway, token, after=f"{channel}=1.0,{topic}=1.0") as client:
        await client.receive_events(3)
        cursor = client.cursor
    await post(channel, 1)
    await post(topic, 1)
    for home in (gateway, other_gateway):
        for second in DRIVERS:
            async with second.connected(home, token, after=cursor) as back:
                await back.receive_events(2)
                assert (back.seqs_of(channel), back.seqs_of(topic)) == ([3], [2]), second.name


async def test_answer_is_json_that_parses_whatever_the_customers_name_is(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    name = 'we"ird\\näme|'
    headers = {"Authorization": f"Bearer {module_processes.token(name)}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        answer = await http.get("/events?wait=0")
    assert json.loads(answer.content)["cursor"].startswith("customer:we%22ird")
