"""The few lines of README's "Put it into your own system", as printed, in a page."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import evaluate, pop_ups, watch
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CLIENT_PAGE = (Path(__file__).parents[2] / "docs/client.md").read_text(encoding="utf-8")
PRINTED = "".join(re.findall(r"^```html\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
LISTENER = re.compile(r"toasts\.show\((.*?)\)\)")
PLAIN = LISTENER.sub("toasts.show(detail.data.message))", PRINTED)  # as one may write it, too


@pytest.fixture
def snippet(
    context: BrowserContext, orderbell: Services, module_processes: Processes, request: pytest.FixtureRequest
) -> Page:
    """A page of the shop's origin with the snippet, and the functions that it leaves to its reader."""
    token = module_processes.token(orderbell.customer, topics=["menu"])
    html = request.param.replace("https://alerts.example/", orderbell.shop).replace(
        '"alice"', f'"{orderbell.customer}"'
    )
    own = f"""<!doctype html><title>Shop</title><script>
        window.unread = 0;
        window.listed = [];
        const fetchTokenFromYourShop = async () => {json.dumps(token)};
        const showUnread = (count) => {{ window.unread = count; }};
        const showList = (alerts) => {{ window.listed = alerts; }};
        const reloadOrders = () => {{}};
    </script><button id="bell">Alerts</button>"""
    watch(context)
    page = context.new_page()
    heard: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: heard.append(frame)))
    page.goto(
        f"{orderbell.shop}livez"
    )  # of the shop's origin; what Playwright serves itself may not connect to it
    page.evaluate("(html) => { document.open(); document.write(html); document.close(); }", own + html)
    page.wait_for_function("() => document.querySelector('.orderbell-announcer')")
    for _ in range(300):  # wait_until() would keep Playwright from hearing anything
        if any("orderbell.hello" in str(frame) for frame in heard):
            break
        page.wait_for_timeout(50)
    orderbell.place_and_complete("0")
    expect(page.locator(".orderbell-toast")).to_contain_text("Order 0 is complete", timeout=15_000)
    return page


def publish(orderbell: Services, events: list[dict[str, Any]]) -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    orderbell.api.post("/events", content=json.dumps(events), headers=headers).raise_for_status()


def soup(name: str, **more: Any) -> dict[str, Any]:
    """README's own event."""
    return {
        "specversion": "1.0",
        "id": f"soup-{name}",
        "source": "/kitchen",
        "type": "menu.changed",
        "channel": "topic:menu",
        "data": {"soup": "lentil"},
    } | more


def shown_texts(page: Page) -> str:
    return " ".join(pop_ups(page))


@pytest.mark.parametrize(
    "snippet",
    [PRINTED, pytest.param(PLAIN, marks=pytest.mark.long)],
    ids=["printed", "plain"],
    indirect=True,
)
def test_its_own_soup_event_is_shown_and_ends_nothing(snippet: Page, orderbell: Services) -> None:
    name = orderbell.customer
    publish(orderbell, [soup(f"{name}-{n}") for n in range(3)])
    wait_until(lambda: "Menu changed" in shown_texts(snippet))
    orderbell.place_and_complete("1042")
    wait_until(lambda: "Order 1042 is complete" in shown_texts(snippet))


ODD = [
    5,
    "text",
    "x" * 60_000,
    [],
    [1],
    True,
    {"message": None},
    {"message": ""},
    {"message": ["a"]},
    {"message": 5},
]


@pytest.mark.parametrize(
    "snippet", [PRINTED, pytest.param(PLAIN, marks=pytest.mark.long)], ids=["printed", "plain"], indirect=True
)
def test_whatever_an_event_holds_a_toast_is_shown(snippet: Page, orderbell: Services) -> None:
    channel = f"customer:{orderbell.customer}"
    events = [
        soup(f"{channel}-{n}", channel=channel, subject=f"odd {n}", data=data) for n, data in enumerate(ODD)
    ]
    for event in events:
        publish(orderbell, [event])
        snippet.wait_for_function("(count) => unread === count", arg=events.index(event) + 2)
    wait_until(lambda: "new alerts" in shown_texts(snippet) or "odd 9" in shown_texts(snippet), timeout=60)
    orderbell.place_and_complete("1042")
    wait_until(lambda: "Order 1042 is complete" in shown_texts(snippet), timeout=60)
    assert len(shown_texts(snippet)) < 60_000


@pytest.mark.parametrize("snippet", [PRINTED], ids=["printed"], indirect=True)
def test_its_list_has_each_alert_once_with_its_state(snippet: Page, orderbell: Services) -> None:
    for order in ("1", "2"):
        orderbell.place_and_complete(order)
        orderbell.resend(order)
    orderbell.cancel("1")
    snippet.wait_for_function("() => unread === 2")
    snippet.locator("#bell").click()
    snippet.wait_for_function("() => listed.length > 0")
    listed = snippet.evaluate("() => listed.map(({ event, state }) => [event.subject, state])")
    assert [order for order, _ in listed] == [orderbell.order_id(number) for number in ("2", "1", "0")]
    assert [state == "retracted" for _, state in listed] == [False, True, False]


LIST = re.findall(r"^```js\n(const list = .*?)^```", CLIENT_PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.long
def test_list_of_ones_own_has_what_the_servers_has(
    context: BrowserContext, orderbell: Services, module_processes: Processes
) -> None:
    """docs/client.md's lines, as printed."""
    (lines,) = LIST
    page = context.new_page()
    page.goto(f"{orderbell.shop}livez")
    script = f"""
        const {{ AlertSource, isReplaced }} = await import("/client/v1/orderbell.js");
        const alerts = new AlertSource("/", {{ getToken: () => ({{ token: given }}) }});
        {lines}
        window.names = () => [...list.values()].map(({{ id, subject }}) => subject ?? id);
        await new Promise((resolve) => alerts.addEventListener("open", resolve, {{ once: true }}));
    """
    evaluate(page, script, module_processes.token(orderbell.customer))
    channel = f"customer:{orderbell.customer}"
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    publish(orderbell, [soup(channel, channel=channel, id=f"{channel}-soon", expirytime=soon)])
    for order in ("1", "2", "3"):
        orderbell.place_and_complete(order)
    page.wait_for_function("() => names().length >= 3")
    orderbell.resend("1")
    orderbell.cancel("2")
    left = ",".join(map(orderbell.order_id, ("3", "1")))
    page.wait_for_function("(left) => String(names()) === left", arg=left)


@pytest.mark.parametrize("snippet", [PLAIN], ids=["plain"], indirect=True)
def test_an_event_that_a_listener_fails_on_is_not_counted_as_seen(snippet: Page, orderbell: Services) -> None:
    """`detail.data.message` of no data at all: it is left to others, and what follows is shown."""
    channel = f"customer:{orderbell.customer}"
    event = soup(channel, channel=channel)
    del event["data"]
    publish(orderbell, [event])
    orderbell.place_and_complete("1042")
    wait_until(lambda: "Order 1042 is complete" in shown_texts(snippet))
    snippet.wait_for_timeout(1_500)
    seen = evaluate(
        snippet,
        """
        const database = await new Promise((resolve) => {
          indexedDB.open("orderbell").onsuccess = ({ target }) => resolve(target.result);
        });
        const store = database.transaction("shown").objectStore("shown");
        const get = (key) => new Promise((resolve) => {
          store.get(key).onsuccess = ({ target }) => resolve(target.result);
        });
        const { upTo, beyond } = await get([given]);
        return [upTo, beyond];
        """,
        orderbell.customer,
    )
    assert f"{channel}=1.1," in seen[0] + ","
    assert seen[1][channel]["ranges"] == [[3, 3]]
