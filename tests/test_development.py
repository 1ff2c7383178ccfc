"""Development mode: sign in by name alone, on loopback alone, and nowhere else at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def gateway(module_processes: Processes) -> ReceiverProcess:
    module_processes.start_sender()
    return module_processes.start_receiver(development="1")


@pytest.fixture
def page(gateway: ReceiverProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, trust_env=False) as client:
        yield client


async def test_name_signs_in_orders_and_connects(gateway: ReceiverProcess, page: httpx2.Client) -> None:
    signed_in = page.post("/development/sign-in", json={"customer": "alice"})
    assert (signed_in.status_code, signed_in.json()) == (200, {"customer": "alice"})
    cookie = signed_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    placed = page.post("/development/orders", json={"order_id": "1", "customer_id": "bob"})
    assert (placed.status_code, placed.json()["customer_id"]) == (201, "alice")
    assert [order["order_id"] for order in page.get("/development/orders").json()["orders"]] == ["1"]
    headers = {"Cookie": f"orderbell_token={page.cookies['orderbell_token']}", "Origin": gateway.url}
    async with connected(gateway, None, headers=headers) as client:
        assert client.notices[0]["data"]["channels"] == ["customer:alice"]
    page.post("/development/sign-out")
    assert page.get("/development/orders").status_code == 401


@pytest.mark.parametrize("customer", ["", "a\n", "x" * 129, "\x00", None, 7, ["alice"]])
def test_what_is_no_customer_is_refused(page: httpx2.Client, customer: object) -> None:
    assert page.post("/development/sign-in", json={"customer": customer}).status_code == 400


def test_form_of_another_site_cannot_sign_in(page: httpx2.Client) -> None:
    body = '{"customer":"mallory"}'
    answer = page.post("/development/sign-in", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_another_hosts_name_that_leads_here_is_refused(page: httpx2.Client) -> None:
    answer = page.post("/development/sign-in", json={"customer": "a"}, headers={"host": "evil.example:8091"})
    assert answer.status_code == 403


def test_nothing_of_it_exists_outside_development_mode(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver()
    for path in ("sign-in", "sign-out", "orders"):
        assert httpx2.post(f"{gateway.url}/development/{path}", json={}, trust_env=False).status_code == 404
    assert 'data-development="false"' in httpx2.get(gateway.url, trust_env=False).text


def test_order_of_the_page_that_compares_is_placed_and_completed(page: httpx2.Client) -> None:
    assert page.post("/development/orders/complete", json={"order_id": "c 1/2"}).status_code == 401
    page.post("/development/sign-in", json={"customer": "carla"})
    answer = page.post("/development/orders/complete", json={"order_id": "c 1/2"})
    assert (answer.status_code, answer.json()["order"]["customer_id"]) == (200, "carla")
    assert answer.json()["event"]["subject"] == "c 1/2"
    assert page.post("/development/orders/complete", json={"order": 1}).status_code == 400
    assert page.get("/development/compare").headers["content-security-policy"]
    assert page.get("/development/compare", headers={"host": "evil.example"}).status_code == 403
