"""The Chromium that browser tests drive: Playwright's own, else one that is installed.

A headless shell is preferred: the same engine without the browser's windows, for under half of
the processor time.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "ORDERBELL_TEST_CHROMIUM"
NO_WINDOWS = "no Chromium with windows, only a headless shell"
NONE = f"no Chromium: `playwright install chromium`, install your system's, or set {VARIABLE} to its path"
_SHELL = "chromium-headless-shell"
_WITH_WINDOWS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ASK_PLAYWRIGHT = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


@functools.cache
def choose() -> Path | None:
    if path := os.environ.get(VARIABLE):
        return Path(path)
    return _playwrights_shell() or _on_path(_SHELL) or choose_with_windows()


@functools.cache
def choose_with_windows() -> Path | None:
    """A whole browser, for what a headless shell lacks: the back/forward cache."""
    return _playwrights_own() or _on_path(*_WITH_WINDOWS) or _on_macos()


def arguments() -> list[str]:
    """What Chromium needs on its command line: its sandbox refuses to run as root."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


def _playwrights_own() -> Path | None:
    # Asking starts Playwright's driver, which takes a second: only where there is something to find.
    if not any(any(directory.glob("chromium-*")) for directory in _download_directories()):
        return None
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_PLAYWRIGHT], capture_output=True, text=True, timeout=30
    )
    path = Path(asked.stdout.strip() or "/nonexistent")
    return path if path.is_file() and _starts(path) else None


def _playwrights_shell() -> Path | None:
    shells = [
        shell
        for directory in _download_directories()
        for shell in directory.glob("chromium_headless_shell-*/*/*headless*shell*")
        if shell.suffix in ("", ".exe")
    ]
    return next((shell for shell in sorted(shells, reverse=True) if shell.is_file() and _starts(shell)), None)


def _starts(path: Path) -> bool:
    """Playwright downloads the browser but not the libraries of the system that it needs."""
    return subprocess.run([path, "--version"], capture_output=True, timeout=30).returncode == 0


def _download_directories() -> list[Path]:
    if path := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        return [Path(path)]
    return [Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"]


def _on_path(*names: str) -> Path | None:
    return next((Path(found) for name in names if (found := shutil.which(name))), None)


def _on_macos() -> Path | None:
    chrome = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return chrome if chrome.is_file() else None
