"""A real Chromium, with the client's files in it, or with the whole of Orderbell behind it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import uuid
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests import chromium, firefox, machine, webkit
from tests.browser import services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route

    from tests.browser.services import Services
    from tests.firefox import Firefox
    from tests.processes import Processes
    from tests.webkit import WebKit

CLIENT = Path(__file__).parents[2] / "receiver" / "browser"
WORLD = Path(__file__).parent / "world.js"
_PAGE = '<!doctype html><title>Client</title><script type="module" src="/world.js"></script><body>'
PORTS_OF_MAKE_RUN = (8090, 8091, 8092)  # for the README's picture
ORIGIN = "http://client.test"  # `browser` finds it
SECURE_ORIGIN = "https://client.test"  # no such server: the client's files are put there by `client_context`


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    # Not for the session: its event loop runs in this thread, and no other could, until it ends.
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright, chromium_path: Path) -> Iterator[Browser]:
    """It finds `ORIGIN` at a server of this process: routing the requests costs a fifth of opening a page."""
    with serving_client() as port:
        arguments = [*chromium.arguments(), f"--host-resolver-rules=MAP client.test:80 127.0.0.1:{port}"]
        browser = playwright.chromium.launch(executable_path=chromium_path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def chromium_with_windows() -> Path:
    path = chromium.choose_with_windows()
    if path is None:
        machine.not_run(chromium.NO_WINDOWS)
    return path


@pytest.fixture(scope="package")
def package_firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """For tests marked `firefox`."""
    path = firefox.choose()
    if path is None:
        pytest.fail(firefox.NONE, pytrace=False)
    with firefox.running(path, tmp_path_factory.mktemp("firefox")) as running:
        yield running


@pytest.fixture(scope="package")
def package_webkit(tmp_path_factory: pytest.TempPathFactory, process_group: int) -> Iterator[WebKit]:
    """For tests marked `webkit`."""
    driver = webkit.choose()
    if driver is None:
        pytest.fail(webkit.NONE, pytrace=False)
    with webkit.running(driver, tmp_path_factory.mktemp("webkit"), process_group) as running:
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of the test's own."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def own_orderbell(processes: Processes) -> Iterator[Services]:
    """All of Orderbell, in development mode, for tests that kill parts of it."""
    ports = PORTS_OF_MAKE_RUN if "ORDERBELL_TEST_SCREENSHOT" in os.environ else ()
    with services.running(processes, ports=ports) as running:
        yield running


@pytest.fixture(scope="module")
def module_orderbell(module_processes: Processes) -> Iterator[Services]:
    with services.running(module_processes) as running:
        yield running


@pytest.fixture
def orderbell(module_orderbell: Services) -> Services:
    """The same, shared by the file's tests: each has a customer of its own."""
    return dataclasses.replace(module_orderbell, customer=f"alice-{uuid.uuid4().hex[:6]}")


@pytest.fixture
def client_context(context: BrowserContext) -> BrowserContext:
    """Pages at `ORIGIN` and `SECURE_ORIGIN` have the client and `world.js`."""
    context.route(f"{SECURE_ORIGIN}/**", _serve_client)
    return context


@pytest.fixture(scope="package")
def page(browser: Browser) -> Iterator[Page]:
    """A page with the client, for tests that leave nothing behind that another could notice."""
    context = browser.new_context()
    yield open_client(context)
    context.close()


@pytest.fixture(scope="package")
def _visited(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def visit(_visited: BrowserContext) -> Callable[[], Page]:
    """Loads the client in one more tab of a browser that remembers nothing, when the test begins.

    Tabs of earlier tests are used again: a new one, with its process, costs three times as much.
    """
    first, *others = [tab for tab in _visited.pages if not tab.is_closed()] or [open_client(_visited)]
    for tab in others:
        tab.goto("about:blank")  # a page of an earlier test would keep the storage open
    load_client(first)
    assert evaluate(first, _FORGET) == 0
    loaded, empty = iter([first]), iter(others)

    def load() -> Page:
        if page := next(loaded, None):
            return page
        if tab := next(empty, None):
            load_client(tab)
            return tab
        return open_client(_visited)

    return load


_FORGET = """
    localStorage.clear();
    for (const { name } of await indexedDB.databases()) await new Promise((resolve, reject) => {
      const deleting = indexedDB.deleteDatabase(name);
      deleting.onsuccess = resolve;
      deleting.onerror = deleting.onblocked = reject;
    });
    return (await indexedDB.databases()).length;
"""


class _ClientPages(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        path = path.partition("?")[0]
        return str(WORLD if path == "/world.js" else CLIENT / path.removeprefix("/client/v1").lstrip("/"))

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        body = _PAGE.encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def serving_client() -> Iterator[int]:
    """The port of a server that has the client and `world.js`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _ClientPages) as server:
        threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True).start()
        yield server.server_port
        server.shutdown()


def open_client(context: BrowserContext, origin: str = ORIGIN) -> Page:
    page = context.new_page()
    load_client(page, origin)
    return page


def load_client(page: Page, origin: str = ORIGIN) -> None:
    page.goto(f"{origin}/")
    page.wait_for_function("() => 'World' in window")


def _serve_client(route: Route) -> None:
    path = urlsplit(route.request.url).path
    if path == "/":
        route.fulfill(body=_PAGE, content_type="text/html")
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


# Records a page's faults and all its pop-ups, also those that are gone. The record lives as long as the page.
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
    """From now on, record the `pop_ups` and `violations` of its pages."""
    context.add_init_script(_WATCH)


def pop_ups(page: Page) -> list[str]:
    """The text of every pop-up that this page has shown since it was loaded."""
    texts: list[str] = page.evaluate("popUps")
    return texts


def violations(page: Page) -> list[str]:
    """Attempts of the page that its Content-Security-Policy forbids."""
    directives: list[str] = page.evaluate("violations")
    return directives


def contrast_faults(page: Page) -> list[str]:
    """Texts with less contrast than WCAG 1.4.3 (AA) asks for."""
    faults: list[str] = page.evaluate(_CONTRAST)
    return faults


_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) (canvas.fillStyle = color), canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faults = [];
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const style = getComputedStyle(element);
    if (!hasText && element.tagName !== "INPUT") continue;
    if (!element.checkVisibility() || element.getBoundingClientRect().width < 2) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const color = element.placeholder ? getComputedStyle(element, "::placeholder").color : style.color;
    const [text, ground] = [[...behind, color], behind].map((colors) => luminance(paint(colors)));
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
  }
  return faults;
}"""


def sideways(page: Page) -> int:
    """Pixels by which the page is wider than its window; WCAG 1.4.10 asks for none at 320."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return max(0, pixels)
