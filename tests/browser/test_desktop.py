"""receiver/browser/desktop.js: alerts of the desktop, where the person has asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import SECURE_ORIGIN, evaluate, open_client

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

# The browser's own constructor shows nothing without a desktop; what it would be called with is noted.
NOTE = """
    const { DesktopAlerts } = await import("/client/v1/desktop.js");
    window.notified = [];
    class Noted extends EventTarget {
      static permission = given.permission;
      static requestPermission = async () => (Noted.permission = "granted");
      constructor(...args) { super(); notified.push(args); }
      close() {}
    }
    if (given.permission) window.Notification = Noted;
    else delete window.Notification;
    const looks = given.hidden ? "hidden" : "visible";
    Object.defineProperty(document, "visibilityState", { value: looks, configurable: true });
    window.desktop = new DesktopAlerts();
"""


@pytest.fixture
def secure_page(client_context: BrowserContext) -> Page:
    return open_client(client_context, SECURE_ORIGIN)


@pytest.mark.parametrize("permission", ["default", "granted", "denied"])
def test_the_state_is_what_the_person_said(secure_page: Page, permission: str) -> None:
    assert evaluate(secure_page, f"{NOTE} return desktop.state", {"permission": permission}) == permission


def test_a_browser_without_notifications_has_a_state_of_its_own(secure_page: Page) -> None:
    assert evaluate(secure_page, f"{NOTE} return desktop.state", {}) == "unsupported"


def test_an_insecure_page_has_a_state_of_its_own(client_context: BrowserContext) -> None:
    page = open_client(client_context)
    assert evaluate(page, f"{NOTE} return desktop.state", {"permission": "default"}) == "insecure"


def test_asking_changes_the_state_and_fires_an_event(secure_page: Page) -> None:
    script = """
        const states = [desktop.state];
        desktop.addEventListener("change", () => states.push(desktop.state));
        states.push(await desktop.request());
        return states;
    """
    assert evaluate(secure_page, NOTE + script, {"permission": "default"}) == [
        "default",
        "granted",
        "granted",
    ]


@pytest.mark.parametrize(("hidden", "permission", "count"), [(True, "granted", 1), (False, "granted", 0)])
def test_it_shows_only_while_nobody_looks(
    secure_page: Page, hidden: bool, permission: str, count: int
) -> None:
    script = "desktop.show('Flat white', { body: 'Order 1042', tag: 'e1' }); return notified"
    notified = evaluate(secure_page, NOTE + script, {"permission": permission, "hidden": hidden})
    assert notified == [["Flat white", {"body": "Order 1042", "tag": "e1"}]] * count


def test_it_shows_nothing_unasked(secure_page: Page) -> None:
    script = "desktop.show('Flat white', { body: 'Order 1042', tag: 'e1' }); return notified"
    assert evaluate(secure_page, NOTE + script, {"permission": "default", "hidden": True}) == []


def test_a_constructor_that_throws_is_no_fault(secure_page: Page) -> None:
    """Chrome on Android has notifications from a service worker only."""
    script = """
        window.Notification = class extends Noted { constructor() { throw new TypeError(); } };
        desktop.show("Flat white", { body: "Order 1042", tag: "e1" });
        return "survived";
    """
    assert evaluate(secure_page, NOTE + script, {"permission": "granted", "hidden": True}) == "survived"
