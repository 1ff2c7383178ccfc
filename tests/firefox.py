"""The Firefox that browser tests drive, and the driving: WebDriver BiDi, which Firefox speaks by itself.

https://w3c.github.io/webdriver-bidi/ names the commands. Of Playwright's names a page here has those that
tests use in both browsers.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error
from websockets.sync.client import connect

from shared.commands.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from websockets.sync.client import ClientConnection

VARIABLE = "ORDERBELL_TEST_FIREFOX"
NONE = f"no Firefox: install your system's firefox or firefox-esr, or set {VARIABLE} to its path"
_ON_PATH = ("firefox-esr", "firefox")
_START_SECONDS = 60
_ANSWER_SECONDS = 60
_PREFERENCES: Mapping[str, bool | int | str] = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


class BrowserError(Error):
    """Firefox answered a command with an error, or the page's script threw."""


@functools.cache
def choose() -> Path | None:
    found = os.environ.get(VARIABLE) or next(
        (path for name in _ON_PATH if (path := shutil.which(name))), None
    )
    return Path(found) if found else None


@contextlib.contextmanager
def running(
    executable: Path, profile: Path, preferences: Mapping[str, bool | int | str] = {}
) -> Iterator[Firefox]:
    """A Firefox of the test's own, without a window."""
    port = free_port()
    profile.mkdir(exist_ok=True)
    lines = [
        f"user_pref({json.dumps(name)}, {json.dumps(value)});"
        for name, value in {**_PREFERENCES, **preferences}.items()
    ]
    (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
    command: list[str | Path] = [
        executable,
        "--headless",
        "--no-remote",
        "--profile",
        profile,
        "--remote-debugging-port",
        str(port),
        "about:blank",
    ]
    with (profile / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with _connect(port) as socket:
                firefox = Firefox(socket)
                firefox.ask("session.new", {"capabilities": {}})
                firefox.ask("session.subscribe", {"events": ["log.entryAdded"]})
                yield firefox
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _connect(port: int) -> ClientConnection:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return connect(f"ws://127.0.0.1:{port}/session", max_size=None, open_timeout=10, proxy=None)
        except (OSError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Firefox:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._heard: list[dict[str, Any]] = []

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One command's result. Raises `BrowserError`, or `TimeoutError` if none comes."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=_ANSWER_SECONDS))
            if message.get("type") == "event":
                self._heard.append(message["params"])
            elif message.get("id") == number:
                if message["type"] == "error":
                    raise BrowserError(f"{method}: {message['error']}: {message['message']}")
                result: dict[str, Any] = message["result"]
                return result

    def new_context(self) -> Profile:
        return Profile(self, self.ask("browser.createUserContext", {})["userContext"])

    def console(self, page: Page) -> list[str]:
        """What the page has written to the console so far."""
        return [entry["text"] or "" for entry in self._heard if entry["source"].get("context") == page.name]


class Profile:
    """Cookies and storage of its own, as a BrowserContext of Playwright's."""

    def __init__(self, firefox: Firefox, name: str) -> None:
        self._firefox = firefox
        self._name = name

    def new_page(self, kind: str = "tab") -> Page:
        """A tab hides those beside it; pages in windows of their own are all visible."""
        made = self._firefox.ask("browsingContext.create", {"type": kind, "userContext": self._name})
        return Page(self._firefox, made["context"])

    def add_init_script(self, script: str) -> None:
        function = f"() => {{ {script} }}"
        params = {"functionDeclaration": function, "userContexts": [self._name]}
        self._firefox.ask("script.addPreloadScript", params)

    def close(self) -> None:
        self._firefox.ask("browser.removeUserContext", {"userContext": self._name})


class Page:
    """What is in one tab."""

    def __init__(self, firefox: Firefox, name: str) -> None:
        self._firefox = firefox
        self.name = name

    def goto(self, url: str) -> None:
        self._firefox.ask("browsingContext.navigate", {"context": self.name, "url": url, "wait": "complete"})

    def reload(self) -> None:
        self._firefox.ask("browsingContext.reload", {"context": self.name, "wait": "complete"})

    def go_back(self) -> None:
        self._firefox.ask("browsingContext.traverseHistory", {"context": self.name, "delta": -1})

    def bring_to_front(self) -> None:
        self._firefox.ask("browsingContext.activate", {"context": self.name})

    def set_viewport_size(self, size: dict[str, int]) -> None:
        self._firefox.ask("browsingContext.setViewport", {"context": self.name, "viewport": size})

    def close(self) -> None:
        self._firefox.ask("browsingContext.close", {"context": self.name})

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of an expression, or of a function called with the argument, once it is there."""
        function = f"""async (text) => {{
            const value = ({script.strip().rstrip(";")});
            const result = await (typeof value === "function" ? value(JSON.parse(text)) : value);
            return JSON.stringify(result) ?? "null";
        }}"""
        params = {
            "functionDeclaration": function,
            "awaitPromise": True,
            "target": {"context": self.name},
            "arguments": [{"type": "string", "value": json.dumps(argument)}],
        }
        answer = self._firefox.ask("script.callFunction", params)
        if answer["type"] == "exception":
            raise BrowserError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

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
        self._firefox.ask("input.performActions", {"context": self.name, "actions": [source]})


def _move(x: float, y: float) -> dict[str, Any]:
    return {"type": "pointerMove", "x": round(x), "y": round(y)}


# https://www.w3.org/TR/webdriver2/#keyboard-actions
_KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "F6": "\ue036"}
