"""A real Chromium, with the client's files in it, or with the whole of Orderbell behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

from tests import chromium
from tests.browser import services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route

    from tests.browser.services import Services
    from tests.processes import Processes

CLIENT = Path(__file__).parents[2] / "receiver" / "browser"
WORLD = Path(__file__).parent / "world.js"
ORIGIN = "http://client.test"  # no such server: the client's files are put there by `client_context`


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    # Not for the session: its event loop runs in this thread, and no other could, until it ends.
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright, chromium_path: Path) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium_path, args=chromium.arguments())
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of the test's own."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def orderbell(processes: Processes) -> Iterator[Services]:
    """All of it, in development mode."""
    with services.running(processes) as running:
        yield running


@pytest.fixture
def client_context(context: BrowserContext) -> BrowserContext:
    """Pages at `ORIGIN` have the client and `world.js`, and no server."""
    context.route(f"{ORIGIN}/**", _serve_client)
    return context


@pytest.fixture
def page(client_context: BrowserContext) -> Page:
    return open_client(client_context)


def open_client(context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto(f"{ORIGIN}/")
    page.wait_for_function("() => 'World' in window")
    return page


def _serve_client(route: Route) -> None:
    path = route.request.url.removeprefix(ORIGIN)
    if path == "/":
        page = '<!doctype html><title>Client</title><script type="module" src="/world.js"></script><body>'
        route.fulfill(body=page, content_type="text/html")
    elif path == "/world.js":
        route.fulfill(path=WORLD, content_type="text/javascript")
    elif path.startswith("/client/v1/") and (file := CLIENT / path.removeprefix("/client/v1/")).is_file():
        types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        route.fulfill(path=file, content_type=types[file.suffix])
    else:
        route.fulfill(status=404)


def evaluate(page: Page, script: str, argument: Any = None) -> Any:
    """Run the body of an async function in the page; `given` is its argument."""
    return page.evaluate(f"async (given) => {{ {script} }}", argument)


# What went wrong in a page, and every pop-up that it ever had, also those that are gone. It survives
# nothing but the page itself.
_WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
    window.popUps = [];
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const node of addedNodes) {
        if (node.className !== "orderbell-toast-body") continue;
        popUps.push([...node.children].map((part) => part.textContent).join(": "));
      }
    }).observe(document, { childList: true, subtree: true });
"""


def watch(context: BrowserContext) -> None:
    """From now on its pages know their `pop_ups` and `violations`."""
    context.add_init_script(_WATCH)


def pop_ups(page: Page) -> list[str]:
    """The text of every pop-up that this page has shown since it was loaded."""
    texts: list[str] = page.evaluate("popUps")
    return texts


def violations(page: Page) -> list[str]:
    """What the page tried that its Content-Security-Policy forbids."""
    directives: list[str] = page.evaluate("violations")
    return directives
