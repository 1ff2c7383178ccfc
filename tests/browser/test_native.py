"""Browsers' own EventSource and WebSocket, without orderbell.js: all events in order, also after a kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate
from tests.browser.services import Balancer
from tests.browser.test_ways import QUIET
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page

    from tests import firefox
    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.long

# What a page's author writes by docs/protocol.md: a cookie and EventSource, which does the rest by itself.
EVENT_SOURCE = """
    document.cookie = `orderbell_token=${given}; SameSite=Strict; path=/`;
    window.had = [];
    window.ids = [];
    window.kinds = [];
    window.opened = 0;
    const source = new EventSource("/events");
    source.addEventListener("open", () => (opened += 1));
    source.addEventListener("message", ({ data, lastEventId }) => {
      had.push(JSON.parse(data).data.message);
      ids.push(lastEventId);
    });
    source.addEventListener("orderbell.hello", ({ data }) => kinds.push(JSON.parse(data).type));
"""
# A WebSocket says who it is with its first message, and comes back with its cursor.
WEBSOCKET = """
    window.had = [];
    window.kinds = [];
    window.opened = 0;
    let cursor = "";
    const connect = () => {
      const url = new URL("/events", location.href.replace("http", "ws"));
      if (cursor) url.searchParams.set("after", cursor);
      const socket = new WebSocket(url, "cloudevents.json");
      socket.onopen = () => socket.send(JSON.stringify({
        specversion: "1.0", id: "1", source: "/page", type: "orderbell.auth", data: { token: given },
      }));
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "orderbell.hello") {
          kinds.push(event.type);
          opened += 1;
          cursor ||= event.data.cursor;
        } else if (event.seq) {
          had.push(event.data.message);
          cursor = `${event.channel}=${event.epoch}.${event.seq}`;
        }
      };
      socket.onclose = () => setTimeout(connect, 200);
    };
    connect();
"""


@pytest.fixture
def balancer(own_orderbell: Services) -> Iterator[Balancer]:
    with Balancer([gateway.port for gateway in own_orderbell.gateways]) as balancer:
        yield balancer


def check(
    page: Page | firefox.Page, script: str, services: Services, balancer: Balancer, processes: Processes
) -> None:
    page.goto(f"{balancer.url}{QUIET}")
    evaluate(page, script, processes.token(services.customer))  # type: ignore[arg-type] # it has what that uses
    wait_until(lambda: page.evaluate("opened") == 1)

    def had_all(count: int) -> None:
        wait_until(lambda: len(page.evaluate("had")) >= count, 30)
        assert page.evaluate("had") == [f"Order {n + 1} is complete" for n in range(count)]

    for number in (1, 2):
        services.place_and_complete(str(number))
    had_all(2)
    services.gateways[0].kill()
    services.place_and_complete("3")
    had_all(3)
    assert page.evaluate("opened") == 2
    services.place_and_complete("4")
    had_all(4)
    assert page.evaluate("kinds") == ["orderbell.hello"] * 2


@pytest.mark.browser
@pytest.mark.parametrize("script", [EVENT_SOURCE, WEBSOCKET], ids=["EventSource", "WebSocket"])
def test_chromium_by_itself_resumes_at_another_gateway_without_loss(
    context: BrowserContext, own_orderbell: Services, balancer: Balancer, processes: Processes, script: str
) -> None:
    check(context.new_page(), script, own_orderbell, balancer, processes)


@pytest.mark.firefox
@pytest.mark.parametrize("script", [EVENT_SOURCE, WEBSOCKET], ids=["EventSource", "WebSocket"])
def test_firefox_by_itself_resumes_at_another_gateway_without_loss(
    package_firefox: firefox.Firefox,
    own_orderbell: Services,
    balancer: Balancer,
    processes: Processes,
    script: str,
) -> None:
    profile = package_firefox.new_context()
    check(profile.new_page(), script, own_orderbell, balancer, processes)
    profile.close()
