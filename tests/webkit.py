"""The WebKit that browser tests drive: WebKitGTK's MiniBrowser, over WebDriver, on an invisible display.

https://www.w3.org/TR/webdriver2/ has the commands. A page here has the methods of one in tests/firefox.py, so
that tests run in both. Two things differ. WebDriver brings no tab to the front, so each page has a window; a
window that is not in front is minimized, and its page is hidden, as in a tab. And no script can run before
those of a page: an initial script runs when the page is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from playwright.sync_api import Error

from shared.commands.embedded import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "ORDERBELL_TEST_WEBKIT_DRIVER"
NONE = f"no WebKit: install WebKitWebDriver and Xvfb (Debian: webkit2gtk-driver, xvfb), or set {VARIABLE}"
_START_SECONDS = 60
_ANSWER_SECONDS = 60
_SIZE = {"x": 0, "y": 0, "width": 1024, "height": 800}


class BrowserError(Error):
    """WebKit answered a command with an error, or the page's script threw."""


@functools.cache
def choose() -> Path | None:
    """The driver, where there is a display for its browser."""
    found = os.environ.get(VARIABLE) or shutil.which("WebKitWebDriver")
    return Path(found) if found and shutil.which("Xvfb") else None


@contextlib.contextmanager
def running(driver: Path, directory: Path, process_group: int) -> Iterator[WebKit]:
    """A display, and as many browsers as are asked for."""
    with _display(process_group) as display, contextlib.ExitStack() as stack:
        yield WebKit(driver, directory, process_group, display, stack)


@contextlib.contextmanager
def _display(process_group: int) -> Iterator[str]:
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with subprocess.Popen(
        command, pass_fds=[writing], stderr=subprocess.DEVNULL, process_group=process_group
    ) as process:
        os.close(writing)
        try:
            with os.fdopen(reading) as number:
                yield f":{number.readline().strip()}"
        finally:
            process.terminate()


@dataclass(frozen=True)
class WebKit:
    driver: Path
    directory: Path
    process_group: int
    display: str
    stack: contextlib.ExitStack

    def new_context(self) -> Profile:
        """A browser that remembers nothing: a driver has one session, whose pages share all storage."""
        home = Path(tempfile.mkdtemp(dir=self.directory))
        surroundings = {
            "DISPLAY": self.display,
            "GDK_BACKEND": "x11",
            "GSETTINGS_BACKEND": "memory",
            "HOME": str(home),
            "NO_AT_BRIDGE": "1",
            "XDG_RUNTIME_DIR": str(home),
        }
        port = free_port()
        with contextlib.ExitStack() as starting:
            log = starting.enter_context((home / "log").open("wb"))
            process = starting.enter_context(
                subprocess.Popen(
                    [self.driver, f"--port={port}"],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **surroundings},
                    process_group=self.process_group,
                )
            )
            starting.callback(process.terminate)
            http = starting.enter_context(
                httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=_ANSWER_SECONDS, trust_env=False)
            )
            wait_until(lambda: _is_ready(http), _START_SECONDS)
            profile = Profile(http)
            starting.callback(profile.end)
            profile.closing = starting.pop_all()
        self.stack.callback(profile.close)  # if a test has not
        return profile


def _is_ready(http: httpx2.Client) -> bool:
    try:
        return http.get("/status").is_success
    except httpx2.TransportError:
        return False


class Profile:
    """A browser with cookies and storage of its own, as a BrowserContext of Playwright's."""

    closing: contextlib.ExitStack

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._path = ""
        wanted = {"capabilities": {"alwaysMatch": {"timeouts": {"script": _ANSWER_SECONDS * 1000}}}}
        self._path = f"/session/{self.ask('POST', '/session', wanted)['sessionId']}"
        # It stays open: the browser ends with its last window.
        self._at = self._first = self.ask("GET", "/window")
        self._pages: list[Page] = []
        self.scripts: list[str] = []

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, window: str = "") -> Any:
        """One command's result, of a window if it is about one. Raises `BrowserError`."""
        if window and window != self._at:
            self.ask("POST", "/window", {"handle": window})
            self._at = window
        content = None if method != "POST" else json.dumps(body or {})
        value = self._http.request(method, self._path + path, content=content).json()["value"]
        if isinstance(value, dict) and "error" in value:
            raise BrowserError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    def new_page(self, kind: str = "tab") -> Page:
        """A tab hides the others of its window; pages in windows of their own are all visible."""
        window = self.ask("POST", "/window/new", {"type": "window"}, window=self._first)["handle"]
        page = Page(self, window)
        self._pages.append(page)
        page.ask("POST", "/window/rect", _SIZE)
        if kind == "tab":
            self.hide_others(page)
        return page

    def hide_others(self, page: Page) -> None:
        for other in self._pages:
            if other is not page:
                other.hide()

    def add_init_script(self, script: str) -> None:
        self.scripts.append(script)

    def closed(self, page: Page) -> None:
        self._pages.remove(page)
        self._at = ""

    def end(self) -> None:
        self.ask("DELETE", "")

    def close(self) -> None:
        self.closing.close()


class Page:
    """What is in one window."""

    def __init__(self, profile: Profile, window: str) -> None:
        self._profile = profile
        self._window = window

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._profile.ask(method, path, body, window=self._window)

    def goto(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})
        self._begin()

    def reload(self) -> None:
        self.ask("POST", "/refresh")
        self._begin()

    def go_back(self) -> None:
        """By script: the driver would wait for ever for a page that comes out of the back/forward cache."""
        left = self.ask("GET", "/url")
        self.evaluate("void setTimeout(() => history.back())")
        wait_until(lambda: self.ask("GET", "/url") != left)
        self._begin()

    def _begin(self) -> None:
        for script in self._profile.scripts:
            self.evaluate(f"() => {{ if (!window.begun) {{ {script} }} }}")
        self.evaluate("window.begun = true")

    def bring_to_front(self) -> None:
        self._profile.hide_others(self)
        self.ask("POST", "/window/rect", _SIZE)

    def hide(self) -> None:
        self.ask("POST", "/window/minimize")

    def set_viewport_size(self, size: dict[str, int]) -> None:
        """The window's own bars take some of it."""
        bars = self.evaluate("[outerWidth - innerWidth, outerHeight - innerHeight]")
        sides = {"width": size["width"] + bars[0], "height": size["height"] + bars[1]}
        self.ask("POST", "/window/rect", sides)

    def close(self) -> None:
        self.ask("DELETE", "/window")
        self._profile.closed(self)

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of an expression, or of a function called with the argument, once it is there."""
        function = f"""
            const [text, done] = arguments;
            (async () => {{
                const value = ({script.strip().rstrip(";")});
                const result = await (typeof value === "function" ? value(JSON.parse(text)) : value);
                return {{ value: JSON.stringify(result) ?? "null" }};
            }})().catch((error) => ({{ thrown: String(error) }})).then(done);
        """
        answer = self.ask("POST", "/execute/async", {"script": function, "args": [json.dumps(argument)]})
        if "thrown" in answer:
            raise BrowserError(answer["thrown"])
        return json.loads(answer["value"])

    def wait_for_function(self, script: str, *, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not self.evaluate(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s: {script}")
            time.sleep(0.02)

    def wait_for_timeout(self, milliseconds: float) -> None:
        time.sleep(milliseconds / 1000)

    def move_mouse(self, x: float, y: float) -> None:
        self._perform("pointer", [_move(x, y)])

    def click(self, x: float, y: float) -> None:
        self._perform(
            "pointer", [_move(x, y), {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        )

    def press(self, key: str) -> None:
        """A character, or one of WebDriver's names for keys."""
        value = _KEYS.get(key, key)
        self._perform("key", [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}])

    def _perform(self, kind: str, actions: list[dict[str, Any]]) -> None:
        source = {"type": kind, "id": kind, "actions": actions}
        self.ask("POST", "/actions", {"actions": [source]})


def _move(x: float, y: float) -> dict[str, Any]:
    return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0, "origin": "viewport"}


# https://www.w3.org/TR/webdriver2/#keyboard-actions
_KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "F6": "\ue036"}
