"""Headers that every answer of both services has, whichever part made it."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.processes import Processes, ServiceProcess

ANSWERS = [
    ("GET", "/livez", {}, 200),
    ("GET", "/nothing", {}, 404),
    ("PATCH", "/livez", {}, 405),
    ("GET", "/", {"Host": "a b"}, 400),  # the edge's own
]


@pytest.fixture(scope="module")
def services(module_processes: Processes) -> dict[str, ServiceProcess]:
    return {"sender": module_processes.start_sender(), "receiver": module_processes.start_receiver()}


@pytest.mark.parametrize("name", ["sender", "receiver"])
@pytest.mark.parametrize(("method", "path", "headers", "status"), ANSWERS)
def test_every_answer_forbids_sniffing_and_has_its_date_once(
    services: dict[str, ServiceProcess],
    name: str,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    answer = httpx2.request(method, services[name].url + path, headers=headers, trust_env=False)
    assert (answer.status_code, answer.headers.get_list("x-content-type-options")) == (status, ["nosniff"])
    assert len(answer.headers.get_list("cache-control")) == 1
    check_date(answer)


def check_date(answer: httpx2.Response) -> None:
    """RFC 9110 6.6.1."""
    (date,) = answer.headers.get_list("date")
    assert abs(time.time() - parsedate_to_datetime(date).timestamp()) < 10


@pytest.mark.parametrize("name", ["sender", "receiver"])
def test_hsts_is_sent_over_tls_alone(services: dict[str, ServiceProcess], name: str) -> None:
    for scheme, expected in (("https", "max-age=31536000"), ("http", None)):
        answer = httpx2.get(
            f"{services[name].url}/livez", headers={"X-Forwarded-Proto": scheme}, trust_env=False
        )
        assert answer.headers.get("strict-transport-security") == expected


@pytest.mark.parametrize("name", ["sender", "receiver"])
def test_pages_run_no_inline_script_are_framed_by_nobody_and_make_no_html_of_text(
    services: dict[str, ServiceProcess], name: str
) -> None:
    page = httpx2.get(f"{services[name].url}/", trust_env=False)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    for part in ("default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
        assert part in policy
    assert "camera=()" in page.headers["permissions-policy"]


STREAMS = [
    ("GET", "/events", {"Accept": "text/event-stream"}),
    ("GET", "/events?wait=0", {}),
    ("GET", "/events?wait=0.01", {}),
    ("GET", "/alerts", {}),
    ("POST", "/tickets", {}),
    ("POST", "/websocket/000/headers-1/xhr", {}),
    ("POST", "/websocket/000/headers-2/xhr_streaming", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), STREAMS)
def test_answers_of_transports_and_private_ones_have_them_too(
    services: dict[str, ServiceProcess],
    module_processes: Processes,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    own = {"Authorization": f"Bearer {module_processes.token('alice')}", **headers}
    for scheme in ("http", "https"):
        url = services["receiver"].url + path.replace("headers", f"headers-{scheme}")
        given = {**own, "X-Forwarded-Proto": scheme}
        with httpx2.stream(method, url, headers=given, trust_env=False) as answer:
            assert answer.status_code in (200, 201)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
            assert len(answer.headers.get_list("strict-transport-security")) == (scheme == "https")
            check_date(answer)
            (kept,) = answer.headers.get_list("cache-control")
            assert "no-store" in kept or "no-cache" in kept


def test_answers_to_callers_are_kept_by_nobody(
    services: dict[str, ServiceProcess], module_processes: Processes
) -> None:
    for path in (
        "/orders",
        "/channels/customer:alice/events",
        "/revocations",
        "/dead-letters",
        "/trace?order=1",
    ):
        url = services["sender"].url + path
        answer = httpx2.get(url, headers=module_processes.api_headers, trust_env=False)
        assert answer.headers.get_list("cache-control") == ["no-store"], path
