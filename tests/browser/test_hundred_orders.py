"""A hundred orders, five tabs of Firefox and one of Chromium, and what may happen to them: each pops up once.

Looked at from outside, frame by frame in each page's DOM, and not in the client's own records. A person looks
at one tab of one browser at a time. More than three alerts of one moment become one toast, "7 new alerts"
with the newest three by their names; the others in it are counted.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Error

from tests.browser.services import Balancer, Services
from tests.browser.test_devices import seen_by_the_server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

    from tests.firefox import Firefox, Page
    from tests.processes import Processes

pytestmark = [pytest.mark.browser, pytest.mark.firefox, pytest.mark.long, pytest.mark.alone]

ORDERS = 100
TEN = 10
# Longer than the client, on a busy machine, takes to see and to remember it: a tab that is closed before
# that leaves it to the next one. A toast that nobody closes stays for longer.
CERTAIN_MS = 1_000
AT_LEAST_MS = 150  # what the client takes for seen, less some frames

_LOOK = """
    window.onScreen = {};  // for how many milliseconds each text was
    window.summaries = {};  // of many in one toast: their number, and the texts
    let before = performance.now();
    let made = 0;
    const look = (now) => {
      const passed = Math.min(now - before, 250);
      before = now;
      for (const toast of document.querySelectorAll(".orderbell-toast")) {
        const { left, top, width, height } = toast.getBoundingClientRect();
        const at = document.elementFromPoint(left + width / 2, top + height / 2);
        if (document.visibilityState !== "visible" || !toast.contains(at)) continue;
        const texts = [...toast.querySelectorAll(".orderbell-toast-text")].map((text) => text.textContent);
        for (const text of texts) onScreen[text] = (onScreen[text] ?? 0) + passed;
        const title = toast.querySelector(".orderbell-toast-title")?.textContent;
        const count = /^([0-9]+) new alerts$/.exec(title)?.[1];
        toast.dataset.number ||= ++made;
        const { texts: earlier = [], count: most = 0 } = summaries[toast.dataset.number] ?? {};
        if (count || earlier.length) {
          const all = [...new Set([...earlier, ...texts])].filter((text) => text.startsWith("Order"));
          summaries[toast.dataset.number] = { count: Math.max(most, Number(count ?? 0)), texts: all };
        }
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
"""
_LOOKS = """
    window.looks = "hidden";
    Object.defineProperty(document, "visibilityState", { get: () => window.looks });
    Object.defineProperty(document, "hidden", { get: () => window.looks === "hidden" });
    document.hasFocus = () => window.looks === "visible";
"""
CLIENT = """async (given) => {
    const { AlertSource, Toasts } = await import("/client/v1/orderbell.js");
    const style = { rel: "stylesheet", href: "/client/v1/toast.css" };
    const link = Object.assign(document.createElement("link"), style);
    document.head.append(link);
    await new Promise((resolve) => (link.onload = resolve));
    window.toasts = new Toasts({ duration: 1_500 });
    const getToken = () => ({ token: given.token });
    window.alerts = new AlertSource(given.url, { key: "alice", getToken });
    alerts.addEventListener("alert", ({ detail }) => toasts.show(detail));
    await new Promise((resolve) => alerts.addEventListener("open", resolve, { once: true }));
}"""


class Person:
    """Who looks at one tab at a time, and the record of what was on its screen."""

    def __init__(
        self, firefox: Firefox, chromium: Browser, orderbell: Services, url: str, token: str
    ) -> None:
        self.orderbell = orderbell
        self._given = {"url": url, "token": token}
        self._firefox = firefox.new_context()
        self._firefox.add_init_script(_LOOK)
        context = chromium.new_context()
        context.add_init_script(_LOOKS)
        context.add_init_script(_LOOK)
        self._chromium = context
        self.records: list[dict[str, float]] = []
        self.summaries: list[dict[str, Any]] = []
        self.tabs = [self.open_tab() for _ in range(5)]
        self.blank = self._firefox.new_page()
        self.other: Any = self._open(context.new_page())
        self.completed = 0

    def open_tab(self) -> Page:
        page: Page = self._open(self._firefox.new_page())
        return page

    def _open(self, page: Any) -> Any:
        page.goto(f"{self._given['url']}metrics")
        page.evaluate(CLIENT, self._given)
        return page

    def open_other(self) -> None:
        self.other = self._open(self._chromium.new_page())

    def look_away(self) -> None:
        self.blank.bring_to_front()
        self.tabs[0].wait_for_function("document.visibilityState === 'hidden'")

    def look_at_other(self, looks: str) -> None:
        self.other.evaluate(f"looks = '{looks}'; document.dispatchEvent(new Event('visibilitychange'))")

    def close_tab(self, number: int) -> None:
        """And opens another, which is in front now."""
        self.note(self.tabs[number])
        self.tabs[number].close()
        self.tabs[number] = self.open_tab()

    def note(self, page: Any) -> None:
        self.records.append(page.evaluate("onScreen"))
        self.summaries += page.evaluate("Object.values(summaries)")

    def complete(self, count: int = 1, seconds: float = 0.15) -> None:
        for _ in range(count):
            self.completed += 1
            number = str(self.completed)
            self.orderbell.place_and_complete(number, message=_text(self.completed))
            time.sleep(seconds)

    def wait_shown(self, page: Any) -> None:
        wait_until(lambda: page.evaluate("document.querySelector('.orderbell-toast') !== null"))

    def wait_all_seen(self) -> None:
        wait_until(lambda: seen_by_the_server(self.orderbell).endswith(f"=1.{self.completed}"), timeout=60)

    def close(self) -> None:
        self._firefox.close()
        self._chromium.close()


def _text(number: int) -> str:
    return f"Order {number} is complete"


def plainly(person: Person, _: Balancer) -> None:
    person.tabs[0].bring_to_front()
    person.complete(TEN, seconds=0.5)


def with_the_mouse_on_a_toast(person: Person, _: Balancer) -> None:
    tab = person.tabs[1]
    tab.bring_to_front()
    person.complete()
    person.wait_shown(tab)
    x, y = tab.evaluate(
        """(() => {
          const { left, top } = document.querySelector(".orderbell-toast").getBoundingClientRect();
          return [left + 30, top + 20];
        })()"""
    )
    tab.move_mouse(x, y)
    person.complete(TEN - 1, seconds=0.4)
    tab.move_mouse(2, 2)


def in_a_tab_that_is_closed_while_it_shows(person: Person, _: Balancer) -> None:
    person.tabs[2].bring_to_front()
    for _round in range(2):
        person.complete(5)
        person.wait_shown(person.tabs[2])
        person.close_tab(2)


def in_hidden_tabs(person: Person, _: Balancer) -> None:
    person.look_away()
    person.complete(TEN)
    time.sleep(1)
    assert not seen_by_the_server(person.orderbell).endswith(f"=1.{person.completed}")
    person.tabs[3].bring_to_front()


def with_a_dialog_open(person: Person, _: Balancer) -> None:
    tab = person.tabs[4]
    tab.bring_to_front()
    tab.evaluate("document.body.appendChild(document.createElement('dialog')).showModal()")
    person.complete(TEN)
    person.wait_all_seen()
    tab.evaluate("document.querySelector('dialog').close()")


def through_a_proxy_that_falls_silent(person: Person, balancer: Balancer) -> None:
    person.tabs[0].bring_to_front()
    person.complete(3)
    balancer.swallows = True
    person.complete(TEN - 3)
    person.look_away()
    time.sleep(3)  # younger than that, a connection is trusted
    person.tabs[0].bring_to_front()
    person.tabs[0].wait_for_function("alerts.readyState !== 1", seconds=30)
    balancer.swallows = False


def in_the_other_browser(person: Person, _: Balancer) -> None:
    person.look_away()
    person.look_at_other("visible")
    person.complete(TEN)
    person.wait_all_seen()
    person.look_at_other("hidden")
    person.tabs[1].bring_to_front()


def in_a_tab_that_signs_out(person: Person, _: Balancer) -> None:
    tab = person.tabs[2]
    tab.bring_to_front()
    person.complete(5)
    tab.evaluate("(() => { alerts.close(); toasts.clear(); })()")
    person.complete(TEN - 5)
    person.close_tab(2)


def while_tabs_are_switched(person: Person, _: Balancer) -> None:
    for number in range(TEN):
        person.tabs[number % 5].bring_to_front()
        person.complete(seconds=0.7 if number % 2 else 0.05)


def in_the_other_browser_that_is_killed(person: Person, _: Balancer) -> None:
    person.look_away()
    person.look_at_other("visible")
    person.complete(5)
    person.wait_shown(person.other)
    person.note(person.other)
    person.other.context.new_cdp_session(person.other).send("Page.enable")
    with contextlib.suppress(Error):  # what remains of the page
        person.other.goto("chrome://crash")
    person.tabs[3].bring_to_front()
    person.complete(TEN - 5)
    person.open_other()


STORY: list[Callable[[Person, Balancer], None]] = [
    plainly,
    with_the_mouse_on_a_toast,
    in_a_tab_that_is_closed_while_it_shows,
    in_hidden_tabs,
    with_a_dialog_open,
    through_a_proxy_that_falls_silent,
    in_the_other_browser,
    in_a_tab_that_signs_out,
    while_tabs_are_switched,
    in_the_other_browser_that_is_killed,
]


@pytest.fixture
def person(
    package_firefox: Firefox,
    browser: Browser,
    orderbell: Services,
    balancer: Balancer,
    module_processes: Processes,
) -> Iterator[Person]:
    token = module_processes.token(orderbell.customer)
    person = Person(package_firefox, browser, orderbell, f"{balancer.url}/", token)
    yield person
    person.close()


@pytest.fixture
def balancer(orderbell: Services) -> Iterator[Balancer]:
    with Balancer([gateway.port for gateway in orderbell.gateways]) as balancer:
        yield balancer


def test_each_of_a_hundred_orders_was_visible_once_in_one_place(person: Person, balancer: Balancer) -> None:
    for happens in STORY:
        happens(person, balancer)
        try:
            person.wait_all_seen()
        except TimeoutError as error:
            state = "[document.visibilityState, alerts.readyState, alerts.shows, alerts.lastEventId]"
            pages = [page.evaluate(state) for page in (*person.tabs, person.other)]
            raise TimeoutError(
                f"{happens.__name__}: {seen_by_the_server(person.orderbell)} {pages}"
            ) from error
    assert person.completed == ORDERS
    for page in (*person.tabs, person.other):
        person.note(page)

    twice, never = [], []
    for number in range(1, ORDERS + 1):
        times = [record.get(_text(number), 0) for record in person.records]
        if sum(time > CERTAIN_MS for time in times) > 1:
            twice.append((number, times))
        if max(times) < AT_LEAST_MS:
            never.append(number)
    unnamed = sum(max(0, one["count"] - len(one["texts"])) for one in person.summaries)
    assert twice == []
    assert len(never) <= unnamed, (never, person.summaries)
    assert len(never) < ORDERS / 2
