"""receiver/browser/faults.js: an impossible set-up is reported, with what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate
from tests.browser.services import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser

CONNECT = """
    const { AlertSource } = await import("/client/v1/orderbell.js");
    const source = new AlertSource(given, { key: "alice", getToken: () => ({ token: "t" }) });
    const kind = await new Promise((resolve) => {
      source.addEventListener("error", ({ detail }) => resolve(detail.kind), { once: true });
    });
    await new Promise((resolve) => setTimeout(resolve, 1_500)); // it goes on trying, and is said once
    source.close();
    return kind;
"""


@pytest.fixture(scope="module")
def strict(module_processes: Processes) -> Iterator[Services]:
    """Two gateways, each of which refuses the other's pages."""
    with running(module_processes) as services:
        for gateway in services.gateways:
            gateway.kill()
            gateway.environment["ORDERBELL_ALLOWED_ORIGINS"] = ""
            gateway.start()
        yield services


@pytest.fixture
def warnings(context: BrowserContext) -> list[str]:
    said: list[str] = []
    context.on("console", lambda message: said.append(message.text))
    return said


def ours(warnings: list[str]) -> list[str]:
    return [text for text in warnings if text.startswith("orderbell: ")]


@pytest.fixture
def page(context: BrowserContext, strict: Services) -> Page:
    page = context.new_page()
    page.goto(f"{strict.shop}livez")
    return page


def test_a_refused_origin_is_said_with_the_setting(page: Page, strict: Services, warnings: list[str]) -> None:
    assert evaluate(page, CONNECT, strict.gateways[1].url) == "origin"
    (line,) = ours(warnings)
    assert f"add http://127.0.0.1:{strict.gateways[0].port} to ORDERBELL_ALLOWED_ORIGINS" in line


def test_an_address_at_which_nobody_answers_is_said(page: Page, warnings: list[str]) -> None:
    assert evaluate(page, CONNECT, "http://127.0.0.1:9/") == "unreachable"
    (line,) = ours(warnings)
    assert "no answer from 127.0.0.1:9" in line


def test_a_policy_of_the_page_is_said_with_what_to_add(
    page: Page, strict: Services, warnings: list[str]
) -> None:
    policy = "<meta http-equiv=content-security-policy content=\"connect-src 'self'\">"
    page.evaluate("(html) => document.head.insertAdjacentHTML('beforeend', html)", policy)
    assert evaluate(page, CONNECT, strict.gateways[1].url) == "policy"
    assert any(f"add {strict.gateways[1].url} ws://" in line for line in ours(warnings))


@pytest.mark.parametrize(
    "blocked",
    [
        "BroadcastChannel = class { constructor() { refuse(); } }",
        pytest.param("Object.defineProperty(window, 'indexedDB', { get: refuse })", marks=pytest.mark.long),
        pytest.param(
            "Object.defineProperty(window, 'localStorage', { get: refuse })", marks=pytest.mark.long
        ),
        "delete window.BroadcastChannel; Object.defineProperty(window, 'indexedDB', { value: undefined })",
    ],
    ids=["BroadcastChannel", "indexedDB", "localStorage", "neither"],
)
def test_a_browser_that_keeps_nothing_shows_alerts_and_says_once_what_it_cannot_promise(
    context: BrowserContext, orderbell: Services, warnings: list[str], blocked: str
) -> None:
    """As Firefox is with cookies blocked, where each of these throws."""
    context.add_init_script(
        f"const refuse = () => {{ throw new DOMException('', 'SecurityError') }}; {blocked}"
    )
    page = context.new_page()
    page.goto(orderbell.shop)
    page.get_by_label("Your name").fill(orderbell.customer)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#connection').dataset.state === 'open'")
    for n in range(2):
        orderbell.place_and_complete(str(n))
        page.wait_for_function(
            "(text) => document.querySelector('.orderbell-toasts').textContent.includes(text)",
            arg=f"Order {n} is complete",
        )
    said = [text for text in ours(warnings) if "this browser keeps nothing for this page" in text]
    assert len(said) == (0 if "localStorage" in blocked else 1)
