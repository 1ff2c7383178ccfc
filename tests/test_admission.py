"""ORDERBELL_ADMIT: a function of the operator's own decides on each handshake, for every transport."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from receiver.access.admission import THREADS, Admission, InvalidHook, load_hook
from shared.problems import Problem
from tests.waiting import await_until, wait_until

if TYPE_CHECKING:
    from receiver.access.admission import Handshake
    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio

WEBSOCKETS = {
    "websocket": ("/events", ["cloudevents.json"]),
    "stomp": ("/stomp", ["v12.stomp"]),
    "sockjs": ("/websocket/123/abcdefgh/websocket", []),
}
STREAMS = {
    "sse": ("/events", {"accept": "text/event-stream"}),
    "polling": ("/events?wait=0", {}),
    "xhr": ("/websocket/123/{session}/xhr", {}),
    "xhr_streaming": ("/gs-guide-websocket/123/{session}/xhr_streaming", {}),
}
TRANSPORTS = [*WEBSOCKETS, *STREAMS]
HOOKS = ["by_header", "by_header_async"]
FAULTS = ["none", "raise", "exit", "stop", "cancel", "hang", "change"]


class Answer(NamedTuple):
    status: int
    text: str


@pytest.fixture(scope="module")
def gateways(module_processes: Processes) -> dict[str, ReceiverProcess]:
    module_processes.start_sender()
    return {
        hook: module_processes.start_receiver(admit=f"tests.admission_hooks:{hook}", admit_seconds="0.3")
        for hook in HOOKS
    }


@pytest.fixture(scope="module")
def token(module_processes: Processes) -> str:
    return module_processes.token("alice")


async def ask(gateway: ReceiverProcess, transport: str, how: str, token: str) -> Answer:
    """A handshake; 101 or 200 where it is accepted."""
    headers = {"x-how": how, "authorization": f"Bearer {token}"}
    if transport in WEBSOCKETS:
        path, subprotocols = WEBSOCKETS[transport]
        try:
            async with connect(
                f"ws://127.0.0.1:{gateway.port}{path}",
                subprotocols=subprotocols or None,  # type: ignore[arg-type] # plain texts will do
                additional_headers=headers,
                proxy=None,
            ) as websocket:
                return Answer(101, websocket.subprotocol or "")
        except InvalidStatus as refusal:
            return Answer(refusal.response.status_code, (refusal.response.body or b"").decode())
    path, more = STREAMS[transport]
    async with (
        httpx2.AsyncClient(trust_env=False) as client,
        client.stream(
            "POST" if "xhr" in path else "GET",
            gateway.url + path.format(session=uuid.uuid4().hex),
            headers={**headers, **more},
        ) as answer,
    ):
        return Answer(answer.status_code, "" if answer.is_success else (await answer.aread()).decode())


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("hook", HOOKS)
async def test_yes_admits_and_no_refuses_with_its_reason(
    gateways: dict[str, ReceiverProcess], token: str, transport: str, hook: str
) -> None:
    gateway = gateways[hook]
    assert (await ask(gateway, transport, "yes", token)).status in (101, 200)
    for how, reason in (("no", "not admitted"), ("reason", "come back on Monday"), ("pair", "closed")):
        refused = await ask(gateway, transport, how, token)
        assert refused.status == 403
        assert reason in refused.text
        assert "urn:orderbell:problem:not-admitted" in refused.text


# Every fault by one transport, and every transport with one fault.
@pytest.mark.parametrize(
    ("transport", "how"),
    [*((TRANSPORTS[0], how) for how in FAULTS), *((transport, "raise") for transport in TRANSPORTS[1:])],
)
@pytest.mark.parametrize("hook", HOOKS)
async def test_fault_or_time_out_refuses(
    gateways: dict[str, ReceiverProcess], token: str, transport: str, how: str, hook: str
) -> None:
    refused = await ask(gateways[hook], transport, how, token)
    assert refused.status == 503
    assert "admission-failed" in refused.text
    assert (await ask(gateways[hook], transport, "yes", token)).status in (101, 200)


async def test_faults_are_logged_and_never_what_they_quote(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:by_header")
    token = processes.token("alice")
    await ask(gateway, "websocket", "raise", token)
    failed = "ORDERBELL_ADMIT failed and the handshake was refused"
    await await_until(lambda: gateway.records(failed))
    (line,) = gateway.records(failed)
    assert line["fault"].startswith("ValueError at admission_hooks.py:")
    assert line["level"] == "warning"
    assert token not in gateway.text()


async def test_hook_sees_the_request(gateways: dict[str, ReceiverProcess], token: str) -> None:
    gateway = gateways["by_header"]
    for transport, path in (("websocket", "/events "), ("stomp", "/stomp "), ("polling", "/events wait=0")):
        seen = (await ask(gateway, transport, "see", token)).text
        assert f"{transport} GET {path}" in seen
        assert "127.0.0.1 http mappingproxy" in seen


async def test_handshakes_that_wait_together_do_not_pass_a_limit_together(processes: Processes) -> None:
    """Each of them finds room when it comes."""
    processes.start_sender()
    gateway = processes.start_receiver(
        admit="tests.admission_hooks:in_a_moment", max_connections_per_address="2"
    )
    headers = {"x-forwarded-for": "192.0.2.7", "authorization": f"Bearer {processes.token('alice')}"}

    async def come() -> None:
        try:
            async with connect(
                f"ws://127.0.0.1:{gateway.port}/events",
                subprotocols=["cloudevents.json"],  # type: ignore[list-item] # a plain text will do
                additional_headers=headers,
                proxy=None,
            ):
                came.append(101)
                await over.wait()
        except InvalidStatus as refusal:
            came.append(refusal.response.status_code)

    came: list[int] = []
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(6):
            tasks.create_task(come())
        await await_until(lambda: len(came) == 6)
        over.set()
    assert sorted(came) == [101, 101, 429, 429, 429, 429]


async def test_blocking_hook_holds_up_nobody_else(gateways: dict[str, ReceiverProcess], token: str) -> None:
    gateway = gateways["by_header"]
    hanging = [asyncio.create_task(ask(gateway, "sse", "hang", token)) for _ in range(3)]
    began = time.monotonic()
    assert (await ask(gateway, "websocket", "yes", token)).status == 101
    assert time.monotonic() - began < 3.5  # they sleep for four
    assert {answer.status for answer in await asyncio.gather(*hanging)} == {503}


async def test_hooks_that_all_hang_refuse_everybody_and_the_process_still_ends(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:by_header", admit_seconds="0.2")
    token = processes.token("alice")
    answers = await asyncio.gather(*(ask(gateway, "websocket", "hang", token) for _ in range(12)))
    assert {answer.status for answer in answers} == {503}
    assert (await ask(gateway, "websocket", "yes", token)).status == 503  # all its threads are stuck
    assert httpx2.get(f"{gateway.url}/livez", trust_env=False).status_code == 200
    assert await asyncio.to_thread(gateway.terminate) == 0


async def test_threads_outlive_whatever_is_raised_in_them(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:by_header")
    token = processes.token("alice")
    for _ in range(THREADS):
        assert (await ask(gateway, "websocket", "cancel", token)).status == 503
    assert (await ask(gateway, "websocket", "yes", token)).status == 101


@pytest.mark.parametrize("waits", [False, True])
async def test_calls_that_never_end_are_bounded(*, waits: bool) -> None:
    released = threading.Event()
    asked: list[object] = []

    def hang(handshake: Handshake) -> bool:
        asked.append(handshake)
        return released.wait(20)

    async def never_end(handshake: Handshake) -> bool:
        asked.append(handshake)
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return True

    gate = Admission(never_end if waits else hang, 0.01, max_asked=20)
    request = HTTPConnection(
        {
            "type": "http",
            "method": "GET",
            "path": "/events",
            "query_string": b"",
            "headers": [],
            "client": ("10.0.0.1", 1),
            "scheme": "http",
        }
    )
    try:
        for _ in range(40):
            with pytest.raises(Problem) as refused:
                await gate.check(request, "sse")
            assert refused.value.status == 503
        assert gate.unended == 20
        assert len(asked) == (20 if waits else THREADS)
    finally:
        released.set()
    await await_until(lambda: gate.unended == 0)
    await gate.check(request, "sse")  # it is of use again


async def test_object_whose_call_is_async_is_a_hook(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:gate")
    assert (await ask(gateway, "websocket", "yes", processes.token("alice"))).status == 101
    assert (await ask(gateway, "websocket", "other", processes.token("alice"))).status == 403


async def test_client_that_leaves_while_the_hook_thinks_leaves_nothing(
    gateways: dict[str, ReceiverProcess], token: str
) -> None:
    gateway = gateways["by_header_async"]
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(
            b"GET /events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-How: hang\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: cloudevents.json\r\n\r\n"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        del reader
    assert (await ask(gateway, "websocket", "yes", token)).status == 101
    metrics = f"{gateway.url}/metrics"

    def gone() -> bool:
        text = httpx2.get(metrics, trust_env=False).text
        return 'orderbell_connections{transport="websocket"} 0.0' in text

    await await_until(gone)
    assert "Traceback" not in gateway.text()


@pytest.mark.parametrize(
    ("admit", "fault"),
    [
        ("nonsense", "expected module:function"),
        ("no.such.module:f", "cannot import no.such.module"),
        ("tests.admission_hooks:nothing", "has no nothing"),
        ("tests.admission_hooks:NOT_CALLABLE", "is not a function"),
        ("tests.admission_hooks:two", "must take one argument"),
    ],
)
def test_wrong_value_is_one_line_and_exit_code_2(processes: Processes, admit: str, fault: str) -> None:
    gateway = processes.start_receiver(admit=admit, wait_ready=False)
    assert gateway.process.wait(30) == 2
    wait_until(lambda: fault in gateway.text())
    assert gateway.text().count("\n") == 1
    assert gateway.text().startswith("orderbell: ORDERBELL_ADMIT: ")


@pytest.mark.long
def test_workers_load_it_too(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:by_header", workers=2)
    token = processes.token("alice")

    async def statuses() -> set[int]:
        return {(await ask(gateway, "websocket", "no", token)).status for _ in range(8)}

    assert asyncio.run(statuses()) == {403}


@pytest.mark.parametrize("name", ["yields", "yields_async"])
def test_function_that_would_yield_its_answer_is_refused_from_the_start(name: str) -> None:
    """Each of its handshakes would be refused with a 503."""
    with pytest.raises(InvalidHook, match="must return its answer, not yield it"):
        load_hook(f"tests.admission_hooks:{name}")


def test_module_that_fails_when_it_is_imported_is_named(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with open(f"{tmp_path}/broken_gate.py", "w", encoding="utf-8") as file:
        file.write("raise RuntimeError('first\\nsecond')")
    with pytest.raises(InvalidHook, match=r"^cannot import broken_gate: RuntimeError: first$"):
        load_hook("broken_gate:admit")
