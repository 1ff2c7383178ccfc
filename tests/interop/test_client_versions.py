"""Pages of an earlier version of the client beside those of this one, while the gateway is replaced.

During an upgrade a page keeps the client that it has loaded, and its next connection may lead to the new
gateway; a new page may meet the old one. The two pages are devices of their own, or tabs of one browser,
which share what has popped up.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests import chromium
from tests.browser.conftest import CLIENT
from tests.browser.services import running
from tests.interop.test_rolling_upgrade import earlier
from tests.processes import REPOSITORY
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Page, Route

    from tests.processes import Processes

pytestmark = [pytest.mark.long, pytest.mark.browser]

__all__ = ["earlier"]

EVENTS = 8  # with each of the gateways
_TAB = """async (given) => {
    const { AlertSource, Toasts } = await import(given.client);
    window.messages = [];
    window.shown = [];
    const toasts = new Toasts({ duration: 500 });
    const getToken = () => ({ token: given.token });
    window.alerts = new AlertSource(given.gateway, { key: "alice", getToken });
    alerts.addEventListener("message", ({ lastEventId }) => messages.push(lastEventId));
    alerts.addEventListener("alert", ({ detail }) => {
      shown.push(`${detail.channel}=${detail.epoch}.${detail.seq}`);
      toasts.show(detail);
    });
    await new Promise((resolve) => alerts.addEventListener("open", resolve, { once: true }));
}"""


def open_tab(context: BrowserContext, client: Path, gateway: str, token: str) -> Page:
    """A page of the gateway's origin, with the client of that folder."""
    page = context.new_page()

    def serve(route: Route) -> None:
        file = client / urlsplit(route.request.url).path.rpartition("/client/")[2]
        if file.is_file():
            route.fulfill(path=file)
        else:
            route.fulfill(status=404)

    page.route("**/client/**", serve)
    page.goto(f"{gateway}/livez")
    page.evaluate(_TAB, {"client": "/client/orderbell.js", "gateway": f"{gateway}/", "token": token})
    return page


@pytest.mark.parametrize(
    ("first", "devices"), [("earlier gateway", 2), ("new gateway", 2), ("earlier gateway", 1)]
)
def test_pages_of_two_versions_receive_all_in_order_and_show_none_twice(
    processes: Processes, earlier: Path, chromium_path: Path, first: str, devices: int
) -> None:
    versions = [earlier, REPOSITORY] if first == "earlier gateway" else [REPOSITORY, earlier]
    with (
        running(processes, gateways=1) as services,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=chromium.arguments()) as browser,
    ):
        (gateway,) = services.gateways
        token = processes.token("alice")
        replace(gateway, versions[0])
        contexts = [browser.new_context() for _ in range(devices)]
        tabs = [
            open_tab(context, client, gateway.url, token)
            for context, client in zip(
                (contexts[0], contexts[-1]), (earlier / "receiver" / "browser", CLIENT), strict=True
            )
        ]
        everything: list[str] = []
        for version in versions:
            if version is not versions[0]:
                replace(gateway, version)
            for _ in range(EVENTS):
                everything.append(f"customer:alice=1.{len(everything) + 1}")
                services.place_and_complete(str(len(everything)))
            for tab in tabs:
                wait_until(partial(has, tab, everything), timeout=60)
        wait_until(lambda: len({*shown(tabs[0]), *shown(tabs[1])}) == len(everything), timeout=60)
        for tab in tabs:
            assert len(set(shown(tab))) == len(shown(tab)), "shown twice in one tab"
        if devices == 1:
            assert sorted(shown(tabs[0]) + shown(tabs[1])) == sorted(everything), "shown twice on one device"


def has(tab: Page, everything: list[str]) -> bool:
    return bool(tab.evaluate("messages") == everything)


def replace(gateway: Any, version: Path) -> None:
    assert gateway.terminate() == 0
    gateway.run_from(version)
    gateway.start()


def shown(tab: Page) -> list[str]:
    found: list[str] = tab.evaluate("shown")
    return found
