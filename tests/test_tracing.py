"""Traces at a collector that takes OTLP over HTTP: one for an order, from its caller to the gateways."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.process.tracing import Tracing
from tests.end_to_end.test_main_path import api
from tests.processes import REPOSITORY, clean_environment
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import Processes

pytestmark = pytest.mark.anyio

CALLER = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector:
    """Collects spans by trace, with the name of their service."""

    def __init__(self) -> None:
        self.traces: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Requests are not of interest."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = next(
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces[span.trace_id.hex()].append((service, span))

    def names(self, trace: str) -> list[str]:
        return sorted(f"{service}: {span.name}" for service, span in self.traces[trace])


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


async def test_one_trace_leads_from_the_caller_through_database_and_redis_to_the_gateways(
    processes: Processes, collector: Collector
) -> None:
    sender = processes.start_sender(traces="true")
    gateways = [processes.start_receiver(traces="true") for _ in range(2)]
    async with (
        api(processes, sender) as client,
        connected(gateways[0], processes.token("alice")) as phone,
        connected(gateways[1], processes.token("alice")) as desktop,
    ):
        await client.post("/orders", json={"order_id": "order-1042", "customer_id": "alice"})
        headers = {"traceparent": f"00-{CALLER}-{PARENT}-01"}
        event = (await client.post("/orders/order-1042/complete", headers=headers)).json()["event"]
        assert await phone.receive() == event
        assert await desktop.receive() == event
        await await_until(lambda: len(collector.traces[CALLER]) >= 4)
        assert collector.names(CALLER) == [
            "orderbell-receiver: deliver",
            "orderbell-receiver: deliver",
            "orderbell-sender: POST /orders/{order_id}/complete",
            "orderbell-sender: database",
        ]
        spans = {span.name: span for _, span in collector.traces[CALLER]}
        request = spans["POST /orders/{order_id}/complete"]
        assert request.parent_span_id.hex() == PARENT
        assert spans["database"].parent_span_id == request.span_id
        assert spans["deliver"].parent_span_id == request.span_id
        assert event["traceparent"] == f"00-{CALLER}-{request.span_id.hex()}-01"

        def links() -> list[str]:
            spans = [span for some in list(collector.traces.values()) for _, span in some]
            return [link.trace_id.hex() for span in spans if span.name == "publish" for link in span.links]

        await await_until(lambda: CALLER in links())
        told = repr([str(span) for some in collector.traces.values() for _, span in some])
        assert "alice" not in told
        assert "order-1042" not in told


async def test_a_collector_that_is_away_costs_no_order_and_no_event(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    sender, gateway = processes.start_sender(traces="true"), processes.start_receiver(traces="true")
    async with api(processes, sender) as client, connected(gateway, processes.token("alice")) as browser:
        await client.post("/orders", json={"order_id": "1042", "customer_id": "alice"})
        event = (await client.post("/orders/1042/complete")).json()["event"]
        assert await browser.receive() == event


def test_gateway_records_a_hundred_deliveries_a_second_and_examines_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events whose caller does not want them recorded take no room."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    exporter = InMemorySpanExporter()
    tracing = Tracing("receiver", exporter)
    unwanted = [message("00") for _ in range(200)]
    wanted = iter([message("01") for _ in range(150)])
    tracing.delivered([*unwanted, b"no event"])
    tracing.delivered(wanted)
    assert len(exporter.get_finished_spans()) == 100
    assert len(list(wanted)) == 49  # the one that found no room was taken, the others were not looked at
    now += 1
    tracing.delivered([message("01")])
    assert len(exporter.get_finished_spans()) == 101
    tracing.close()


def message(flags: str) -> bytes:
    return b'1 7 {"id":"x","traceparent":"00-%b-%b-%b"}' % (CALLER.encode(), PARENT.encode(), flags.encode())


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from receiver.__main__ import main
main(["--port", "0"])
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("traces", "says"), [("true", "pip install 'orderbell[traces]'"), ("", "JWT_SECRET")]
)
def test_services_start_without_opentelemetry_and_say_so_if_it_is_asked_for(traces: str, says: str) -> None:
    """In either case the missing setting ends it, so it got that far."""
    environment = {
        **clean_environment(),
        "ORDERBELL_API_KEYS": "a-key-for-tests-only",
        "ORDERBELL_TRACES": traces,
    }
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
