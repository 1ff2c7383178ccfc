"""receiver/browser/ways.js: what a client does where WebSockets or event streams do not pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.browser.conftest import evaluate
from tests.browser.middlebox import Middlebox, Upgrades
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser

QUIET = (
    "/client/v1/toast.css"  # a page of the gateway's that does nothing; Firefox shows JSON in one of its own
)

LISTEN = """
    const { AlertSource } = await import("/client/v1/orderbell.js");
    window.hurry ??= 1;
    window.had = [];
    window.faults = [];
    window.opened = [];
    window.alerts = new AlertSource("/", {
      key: "ways", getToken: () => ({ token: given.token }), ...given.options,
      environment: { setTimeout: (action, ms) => Number(setTimeout(action, ms > 200_000 ? ms * hurry : ms)) },
    });
    alerts.addEventListener("message", ({ data }) => had.push(data.data.message));
    alerts.addEventListener("error", ({ detail }) => faults.push(detail.kind));
    alerts.addEventListener("open", () => opened.push(alerts.transport));
"""


class Listener:
    """A page behind the box."""

    def __init__(self, page: Page, services: Services, box: Middlebox) -> None:
        self.page = page
        self.services = services
        self.box = box
        self.number = 0

    def listen(self, token: str, **options: Any) -> None:
        evaluate(self.page, LISTEN, {"token": token, "options": options})

    def wait_open(self, transport: str, timeout: float = 40) -> None:
        wait_until(lambda: self.page.evaluate("opened.at(-1)") == transport, timeout)

    def complete(self, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            self.services.place_and_complete(str(self.number))

    def had_all(self) -> None:
        """Every event so far, once, in order."""
        expected = [f"Order {n + 1} is complete" for n in range(self.number)]
        wait_until(lambda: len(self.page.evaluate("had")) >= len(expected))
        assert self.page.evaluate("had") == expected


@pytest.fixture
def listener(context: BrowserContext, orderbell: Services) -> Iterator[Listener]:
    with Middlebox([gateway.port for gateway in orderbell.gateways]) as box:
        page = context.new_page()
        page.goto(f"{box.url}{QUIET}")
        yield Listener(page, orderbell, box)
        page.close()


@pytest.fixture
def token(module_processes: Processes, orderbell: Services) -> str:
    return module_processes.token(orderbell.customer)


def test_websocket_is_what_is_used_where_it_passes(listener: Listener, token: str) -> None:
    listener.listen(token)
    listener.wait_open("websocket")
    listener.complete(2)
    listener.had_all()
    assert (listener.box.count("sse"), listener.box.count("poll")) == (0, 0)


@pytest.mark.parametrize(
    "how",
    [
        Upgrades.FORBIDDEN,
        pytest.param(Upgrades.LOGIN_PAGE, marks=pytest.mark.long),
        pytest.param(Upgrades.BAD_GATEWAY, marks=pytest.mark.long),
        pytest.param(Upgrades.BAD_REQUEST, marks=pytest.mark.long),
        pytest.param(Upgrades.CUT, marks=pytest.mark.long),
    ],
)
def test_websocket_that_a_middlebox_refuses_is_left_for_an_event_stream(
    listener: Listener, token: str, how: Upgrades
) -> None:
    listener.box.upgrades = how
    listener.listen(token)
    listener.wait_open("sse", 15)
    listener.complete(2)
    listener.had_all()
    assert listener.page.evaluate("faults") == []


@pytest.mark.parametrize("how", [Upgrades.SILENT, pytest.param(Upgrades.UNANSWERED, marks=pytest.mark.long)])
def test_websocket_through_which_nothing_comes_is_left_after_a_bounded_time(
    listener: Listener, token: str, how: Upgrades
) -> None:
    listener.box.upgrades = how
    listener.listen(token)
    listener.wait_open("sse", 25)
    listener.complete()
    listener.had_all()
    assert listener.box.count("websocket") == 1


@pytest.mark.long
def test_where_streams_are_held_up_too_it_polls(listener: Listener, token: str) -> None:
    listener.box.upgrades = Upgrades.FORBIDDEN
    listener.box.holds_streams = True
    listener.listen(token)
    listener.wait_open("long-polling")
    for _ in range(3):
        listener.complete()
        listener.had_all()
    assert 0 < listener.box.count("poll") < 10
    assert listener.page.evaluate("alerts.gateway") != ""


def test_websocket_that_is_cut_again_and_again_is_left_and_nothing_is_lost(
    listener: Listener, token: str
) -> None:
    listener.box.cut_seconds = 0.7
    listener.listen(token)
    listener.wait_open("websocket")
    for _ in range(40):
        listener.complete()
        listener.page.wait_for_timeout(100)
        if listener.page.evaluate("opened.at(-1)") == "sse":
            break
    listener.wait_open("sse")
    listener.complete()
    listener.had_all()
    assert 3 <= listener.box.count("websocket") <= 5


@pytest.mark.long
def test_websocket_is_tried_again_beside_the_stream_and_taken_once_it_passes(
    listener: Listener, token: str
) -> None:
    listener.box.upgrades = Upgrades.FORBIDDEN
    listener.page.evaluate("window.hurry = 0.01")  # five minutes become three seconds
    listener.listen(token)
    listener.wait_open("sse")
    tried = listener.box.count("websocket")
    listener.complete()
    wait_until(lambda: listener.box.count("websocket") > tried)  # and it is still refused
    assert listener.page.evaluate("[alerts.transport, alerts.readyState]") == ["sse", 1]
    listener.box.upgrades = Upgrades.PASS
    listener.complete()
    listener.wait_open("websocket", 60)
    listener.complete()
    listener.had_all()


def test_websocket_that_can_not_even_be_made_is_tried_again_and_no_error_of_the_page(
    listener: Listener, token: str
) -> None:
    """As where a policy forbids it, or in Node 20: there an error that nobody catches ends the process."""
    listener.page.evaluate("""
        window.hurry = 0.001;
        window.tries = 0;
        window.uncaught = 0;
        window.addEventListener("unhandledrejection", () => (uncaught += 1));
        window.WebSocket = class {
          constructor() {
            tries += 1;
            throw new DOMException("no", "SecurityError");
          }
        };
        undefined;
    """)
    listener.listen(token)
    listener.wait_open("sse")
    tried = listener.page.evaluate("tries")
    wait_until(lambda: listener.page.evaluate("tries") > tried + 1)
    assert listener.page.evaluate("uncaught") == 0
    listener.complete()
    listener.had_all()


@pytest.mark.long
def test_network_that_gets_well_again_brings_it_from_polls_back_to_the_websocket(
    listener: Listener, token: str
) -> None:
    """Events come while each way is left for the next; none is lost, and none comes twice."""
    listener.box.upgrades = Upgrades.CUT
    listener.box.holds_streams = True
    listener.page.evaluate("window.hurry = 0.01")
    listener.listen(token)
    listener.wait_open("long-polling")
    listener.complete(2)
    listener.had_all()
    listener.box.upgrades = Upgrades.PASS
    deadline = time.monotonic() + 60
    while listener.page.evaluate("opened.at(-1)") != "websocket":
        assert time.monotonic() < deadline
        listener.complete()
        listener.page.wait_for_timeout(50)
    listener.complete()
    listener.had_all()
    assert listener.page.evaluate("[...new Set(opened)]") == ["long-polling", "websocket"]
    assert listener.page.evaluate("faults") == []


@pytest.mark.parametrize("way", ["sse", "long-polling"])
def test_what_was_shown_is_reported_over_every_transport(
    listener: Listener, token: str, way: str, orderbell: Services
) -> None:
    listener.listen(token, transports=[way])
    listener.page.evaluate("alerts.addEventListener('alert', (alert) => alert.shown(Promise.resolve()))")
    listener.wait_open(way)
    listener.complete()
    listener.had_all()

    def left() -> int:
        """Events that a new device of the customer would begin with."""
        with httpx2.Client(base_url=orderbell.gateways[1].url, trust_env=False) as http:
            answer = http.get("/events?wait=0", headers={"Authorization": f"Bearer {token}"})
        return len(answer.json()["events"])

    wait_until(lambda: left() == 0)


def test_transports_that_nobody_knows_are_a_type_error(listener: Listener, token: str) -> None:
    with pytest.raises(Exception, match="transports has to list some of websocket, sse, long-polling"):
        listener.listen(token, transports=["pigeon"])


def test_refused_token_ends_it_on_every_way(listener: Listener) -> None:
    for way in ("sse", "long-polling"):
        listener.listen("not-a-token", transports=[way])
        wait_until(lambda: listener.page.evaluate("alerts.readyState") == 2)
        assert "refused" in listener.page.evaluate("faults")


def test_gateway_that_restarts_is_waited_for_and_nothing_is_lost_whatever_the_way(
    listener: Listener, token: str, orderbell: Services
) -> None:
    for way in ("sse", "long-polling"):
        listener.listen(token, transports=[way])
        listener.wait_open(way)
        listener.page.evaluate("alerts.close()")
    listener.number = 0
    listener.listen(token, transports=["long-polling"])
    listener.wait_open("long-polling")
    first = orderbell.gateways[0]
    first.process.terminate()
    listener.complete(2)
    listener.had_all()
    first.process.wait(20)
    first.start()
    first.wait_ready()
