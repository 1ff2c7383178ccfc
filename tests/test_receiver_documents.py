"""A gateway's `/openapi.json` and `/asyncapi.json` are valid and complete, and match what really comes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import jsonschema
import pytest
from redis.asyncio import Redis

from receiver.connections.messages import MESSAGES, parse_message
from receiver.connections.notices import Notice
from receiver.serving import app as serving
from receiver.serving import asyncapi, openapi
from receiver.transports.stomp.endpoint import SOCKJS_PREFIXES
from shared.channels import customer_channel
from shared.redis.keys import Names
from tests.conformance.sse import EventStreamDriver
from tests.stomp_client import stomp
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess

ASYNC = asyncapi.document(Names())
OPEN = openapi.document()


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender, heartbeat_seconds="1")


def complete(sender: SenderProcess, processes: Processes, order_id: str, customer: str) -> None:
    with httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as client:
        client.post("/orders", json={"order_id": order_id, "customer_id": customer}).raise_for_status()
        client.post(f"/orders/{order_id}/complete").raise_for_status()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "$ref")
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize("document", [ASYNC, OPEN])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def check(document: dict[str, Any], reference: str, value: object) -> None:
    """Raises jsonschema's `ValidationError`."""
    jsonschema.Draft202012Validator({**document, "$ref": reference}).validate(value)


def check_streamed(message: dict[str, Any]) -> str:
    """Check a message by its kind; returns the name of its message in the document."""
    kind = message["type"]
    name = kind.removeprefix("orderbell.") if "seq" not in message else "event"
    check(ASYNC, ASYNC["components"]["messages"][name]["payload"]["$ref"], message)
    return str(name)


@pytest.mark.long
def test_openapi_is_valid() -> None:
    import schemathesis  # here: it takes half a second of each process that collects this file

    schemathesis.openapi.from_dict(OPEN).validate()


def test_both_are_served_as_they_are(gateway: ReceiverProcess, module_processes: Processes) -> None:
    served = [
        httpx2.get(f"{gateway.url}{path}", trust_env=False) for path in ("/openapi.json", "/asyncapi.json")
    ]
    assert {answer.headers["content-type"] for answer in served} == {"application/json"}
    assert served[0].json() == OPEN
    assert served[1].json() == asyncapi.document(
        Names.of(module_processes.redis_url, module_processes.key_prefix)
    )


def test_every_path_of_the_document_answers_and_every_method_that_is_not_in_it_is_refused(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    headers = {"authorization": f"Bearer {module_processes.token('paths')}", "accept": "application/json"}
    with httpx2.Client(base_url=gateway.url, headers=headers, trust_env=False) as client:
        for path, operations in OPEN["paths"].items():
            for method in ("get", "post", "delete"):
                with client.stream(method, path.format(server="000", session="s-1")) as answer:
                    if not path.endswith("xhr_streaming") or answer.status_code != 200:
                        answer.read()
                described = operations.get(method)
                if described is None:
                    assert answer.status_code == 405, (method, path)
                else:
                    assert str(answer.status_code) in described["responses"], (method, path, answer.text)
                    content = described["responses"][str(answer.status_code)].get("content", {})
                    kind = answer.headers.get("content-type", "").partition(";")[0]
                    if kind in content and answer.is_stream_consumed:
                        _check_body(content[kind]["schema"], answer)


def _check_body(schema: dict[str, Any], answer: httpx2.Response) -> None:
    body = answer.json() if "json" in answer.headers["content-type"] else answer.text
    jsonschema.Draft202012Validator({**OPEN, **schema}).validate(body)


def test_every_route_of_the_app_is_described() -> None:
    """Except pages, their files, and routes that a setting adds."""
    source = Path(serving.__file__).read_text(encoding="utf-8")
    paths = set(re.findall(r'(?:Route|_shared)\(\s*"(/[a-z./]+)"', source))
    assert {"/events", "/alerts", "/livez"} <= paths
    assert paths - {"/submit"} <= OPEN["paths"].keys()
    for prefix in SOCKJS_PREFIXES:
        for name in ("xhr", "xhr_streaming", "xhr_send"):
            assert "post" in OPEN["paths"][f"{prefix}/{{server}}/{{session}}/{name}"]


@pytest.mark.anyio
async def test_real_messages_over_websocket_are_as_described(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    token = module_processes.token("wendy")
    seen: set[str] = set()
    async with (
        connected(gateway, token, hello=False) as listening,
        connected(gateway, token) as reporting,
    ):
        await asyncio.to_thread(complete, sender, module_processes, "w1", "wendy")
        report = json.dumps({"type": "orderbell.seen", "data": {"cursor": "customer:wendy=1.1"}})
        ping = json.dumps({"type": "orderbell.ping", "data": {"visible": True, "shows": True}})
        for sent in (report, ping):
            name = "client" + json.loads(sent)["type"].removeprefix("orderbell.").title()
            check(ASYNC, ASYNC["components"]["messages"][name]["payload"]["$ref"], json.loads(sent))
        async with asyncio.timeout(20):
            while "event" not in seen:
                seen.add(check_streamed(json.loads(await listening.websocket.recv())))
            await reporting.websocket.send(report)
            await listening.websocket.send(ping)
            while not {"hello", "event", "seen", "pong", "heartbeat"} <= seen:
                seen.add(check_streamed(json.loads(await listening.websocket.recv())))
    async with connected(gateway, token, query="after=customer:wendy=1.99") as lost:
        async with asyncio.timeout(20):
            while "reset" not in seen:
                seen.add(check_streamed(json.loads(await lost.websocket.recv())))


@pytest.mark.anyio
async def test_real_bodies_over_stomp_are_as_described(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    async with stomp(gateway, module_processes.token("stan")) as client:
        await client.subscribe("/user/queue/notices", "n")
        await client.subscribe()
        await asyncio.to_thread(complete, sender, module_processes, "s1", "stan")
        await client.receive_events(1)
        for message in client.messages:
            check_streamed(json.loads(message.body))
            destinations = {channel["address"] for channel in ASYNC["channels"].values()}
            assert message.headers["destination"] in destinations


@pytest.mark.anyio
async def test_what_really_goes_over_redis_is_as_described(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    names = Names.of(module_processes.redis_url, module_processes.key_prefix)
    document = asyncapi.document(names)
    patterns = [
        document["components"]["messages"][name]["payload"]["pattern"]
        for name in ("liveEvent", "liveSeen", "liveErased")
    ]
    assert document["channels"]["live"]["address"].replace("{channel}", "customer:rita") == names.live(
        customer_channel("rita")
    )
    async with Redis.from_url(module_processes.redis_url) as redis, redis.pubsub() as hearing:
        await hearing.subscribe(names.live(customer_channel("rita")))
        heard: list[str] = []

        async def hear(count: int) -> None:
            async with asyncio.timeout(20):
                while len(heard) < count:
                    message = await hearing.get_message(ignore_subscribe_messages=True, timeout=1)
                    if message is not None:
                        heard.append(message["data"].decode())

        await asyncio.to_thread(complete, sender, module_processes, "r1", "rita")
        await hear(1)
        async with httpx2.AsyncClient(
            base_url=sender.url, headers=module_processes.api_headers, trust_env=False
        ) as client:
            await client.post("/seen", json={"cursors": ["customer:rita=1.1"]})
            await hear(2)
            await client.delete("/customers/rita")
            await hear(3)
    for pattern, text in zip(patterns, heard, strict=True):
        assert re.search(pattern, text), (pattern, text)
    check(document, "#/components/schemas/event", json.loads(heard[0].split(" ", 2)[2]))


@pytest.mark.anyio
async def test_what_senders_ask_and_what_gateways_answer_is_as_described(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    names = Names.of(module_processes.redis_url, module_processes.key_prefix)
    document = asyncapi.document(names)
    questions, answers = (document["channels"][name] for name in ("questions", "answers"))

    def payload(name: str) -> str:
        return str(document["components"]["messages"][name]["payload"]["$ref"])

    async with (
        connected(gateway, module_processes.token("quinn")),
        Redis.from_url(module_processes.redis_url) as redis,
        redis.pubsub() as hearing,
        httpx2.AsyncClient(
            base_url=sender.url, headers=module_processes.api_headers, trust_env=False
        ) as client,
    ):
        (name,) = questions["parameters"]["name"]["enum"]
        await hearing.subscribe(questions["address"].replace("{name}", name))
        await hearing.get_message(timeout=5)  # that it is subscribed
        assert (await client.get("/connections?customer_id=quinn")).status_code == 200
        message = await hearing.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message is not None
        question = json.loads(message["data"])
        check(document, payload("question"), question)
        key = answers["address"].replace("{question}", question["id"])
        given = [json.loads(answer) for answer in await redis.lrange(key, 0, -1)]
    assert sum(len(answer["listening"]) for answer in given) == 1
    for answer in given:
        check(document, payload("answer"), answer)
        with pytest.raises(jsonschema.ValidationError):
            check(document, payload("answer"), {**answer, "channels": "many"})


@pytest.mark.anyio
async def test_how_a_stream_really_ends_is_as_described(
    sender: SenderProcess, module_processes: Processes
) -> None:
    gateway = module_processes.start_receiver(sender=sender)
    async with EventStreamDriver().connected(gateway, module_processes.token("elias")) as stream:
        gateway.process.terminate()
        await stream.receive_end()
    kinds = [check_streamed(notice) for notice in stream.notices]
    assert kinds[-2:] == ["bye", "end"]


def test_document_has_every_notice_and_every_message() -> None:
    messages = ASYNC["components"]["messages"]
    assert {kind.type.removeprefix("orderbell.") for kind in Notice.__subclasses__()} <= messages.keys()
    for kind in MESSAGES:
        parse_message(json.dumps({"type": kind}).encode())
        assert f"client{kind.removeprefix('orderbell.').title()}" in messages
