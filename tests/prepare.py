"""`python -m tests.prepare`: installs what the tests need and this machine lacks, as far as it may.

A Chromium: Playwright's own download, else, as root, the distribution's package. PostgreSQL: as root, the
distribution's package. What can't be installed is reported, here and by pytest: those tests are not run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests import chromium, postgres_servers

DOWNLOAD_SECONDS = 300
APT_SECONDS = 600


def main() -> None:
    if chromium.choose() is None:
        get_chromium()
        if chromium.choose() is None:
            say(chromium.NONE)
    if shutil.which("curl") is None:
        install("curl")
    if postgres_servers.choose() is None:
        install("postgresql")
        if postgres_servers.choose() is None:
            say(postgres_servers.NONE)


def get_chromium() -> None:
    say("getting a Chromium")
    playwright = [sys.executable, "-m", "playwright"]
    if run([*playwright, "install", "chromium"], DOWNLOAD_SECONDS):
        if may_install():
            run([*playwright, "install-deps", "chromium"], APT_SECONDS)
        forget()
        if chromium.choose():
            return
    install("chromium", "fonts-dejavu-core")
    forget()


def forget() -> None:
    chromium.choose.cache_clear()
    chromium.choose_with_windows.cache_clear()


def install(*packages: str) -> None:
    if not may_install():
        return
    say(f"installing {' '.join(packages)}")
    apt = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    # Package lists are absent or old on a fresh machine.
    run([*apt, "update"], APT_SECONDS)
    run([*apt, "install", "--yes", "--no-install-recommends", *packages], APT_SECONDS)
    postgres_servers.choose.cache_clear()


def may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def run(command: list[str], seconds: float) -> bool:
    """Whether it worked; its last line is shown if not."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        say(f"{' '.join(command)}: not done within {seconds:.0f} s")
        return False
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        say(f"{' '.join(command[-3:])}: {lines[-1].strip()}")
    return done.returncode == 0


def say(text: str) -> None:
    print(f"orderbell: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
