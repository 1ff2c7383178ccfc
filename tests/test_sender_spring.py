"""`POST /submit` of ORDERBELL_SPRING_COMPAT at the sender."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from sender.http import openapi
from sender.http.routes import CALLS, SPRING_CALLS
from tests.machine import program

if TYPE_CHECKING:
    from tests.processes import Processes, SenderProcess


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender(spring_compat="1")


def submit(sender: SenderProcess, body: bytes, **headers: str) -> httpx2.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(f"{sender.url}/submit", content=body, headers=headers, trust_env=False)


def events(sender: SenderProcess, processes: Processes) -> list[dict[str, Any]]:
    """The events of `topic:messages`."""
    url = f"{sender.url}/channels/topic:messages/events?after=topic:messages%3D1.0&limit=1000"
    answer = httpx2.get(url, headers=processes.api_headers, trust_env=False)
    return list(json.loads(answer.content)["events"])


def test_curl_as_people_type_it_is_a_text(sender: SenderProcess, module_processes: Processes) -> None:
    curl = program("curl", "curl")
    url = f"{sender.url}/submit"
    for arguments in (
        ["-d", "Hello World & co=1"],
        ["-H", "Content-Type: text/plain", "--data-binary", "a\nb"],
    ):
        done = subprocess.run([curl, "-sSf", *arguments, url], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
    texts = [event["data"] for event in events(sender, module_processes)[-2:]]
    assert texts == ["Received message: Hello World & co=1", "Received message: a\nb"]


def test_answer_comes_once_it_is_recorded(sender: SenderProcess, module_processes: Processes) -> None:
    before = len(events(sender, module_processes))
    answer = submit(sender, "für".encode(), content_type="text/plain")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    event = events(sender, module_processes)[before]
    assert event["data"] == answer.text == "Received message: für"
    assert (event["type"], event["datacontenttype"]) == ("spring.message", "text/plain")


def test_repetition_with_its_key_is_recorded_once(sender: SenderProcess, module_processes: Processes) -> None:
    first, again = (submit(sender, b"once", idempotency_key="k1") for _ in range(2))
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert "idempotency-replayed" not in first.headers
    assert [event["data"] for event in events(sender, module_processes)].count("Received message: once") == 1
    assert submit(sender, b"other", idempotency_key="k1").status_code == 422


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "text/plain", 400),
        (b"\xff", "text/plain", 400),
        (b"x", "image/png", 415),
        (b"x" * 65_500, "text/plain", 413),
        (b"x" * 120_000, "text/plain", 413),
    ],
)
def test_what_is_no_text_or_too_much_is_refused(
    sender: SenderProcess, body: bytes, content_type: str, status: int
) -> None:
    answer = submit(sender, body, content_type=content_type)
    assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_other_calls_still_need_a_key(sender: SenderProcess) -> None:
    assert httpx2.post(f"{sender.url}/orders", json={}, trust_env=False).status_code == 401
    assert httpx2.get(f"{sender.url}/submit", trust_env=False).status_code == 405


def test_document_describes_the_call_in_this_mode_alone(sender: SenderProcess) -> None:
    import schemathesis  # here: it takes half a second of each process that collects this file

    served = httpx2.get(f"{sender.url}/openapi.json", trust_env=False).json()
    schemathesis.openapi.from_dict(served).validate()
    assert "/submit" in served["paths"]
    assert served == openapi.document((*CALLS, *SPRING_CALLS))
    assert "/submit" not in openapi.document(CALLS)["paths"]
