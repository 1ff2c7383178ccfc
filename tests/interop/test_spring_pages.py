"""Pages as Spring's guide and the article have them, in Chromium, behind the docs' own Caddyfile."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from playwright.sync_api import expect, sync_playwright

from shared.commands.embedded import free_port
from tests import chromium
from tests.interop.test_stomp import HERE as STOMP
from tests.interop.test_stomp import node
from tests.machine import not_run, program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.processes import Processes, ReceiverProcess, SenderProcess

__all__ = ["node"]  # a fixture

pytestmark = [pytest.mark.long, pytest.mark.browser]

HERE = Path(__file__).parent / "spring"
DOCS = (Path(__file__).parents[2] / "docs" / "from-spring.md").read_text(encoding="utf-8")
SECONDS = 30.0
LIBRARIES = (
    "@stomp/stompjs/bundles/stomp.umd.min.js",
    "sockjs-client/dist/sockjs.min.js",
    "stompjs/lib/stomp.min.js",
)


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender(spring_compat="1")


@pytest.fixture(scope="module")
def gateways(module_processes: Processes, sender: SenderProcess) -> list[ReceiverProcess]:
    return [module_processes.start_receiver(sender=sender, spring_compat="1") for _ in range(2)]


@pytest.fixture(scope="module")
def site(
    gateways: list[ReceiverProcess], node: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The pages behind the Caddyfile of docs/from-spring.md."""
    caddy, port = program("caddy", "caddy"), free_port()
    directory = tmp_path_factory.mktemp("pages")
    for file in [*HERE.glob("*.html"), *(STOMP / "node_modules" / one for one in LIBRARIES)]:
        shutil.copy(file, directory)
    (block,) = re.findall(r"^```caddyfile\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    for ours, test in (
        (":8080", f":{port}"),
        ("/srv/pages", str(directory)),
        ("gateway-1.internal:8091", f"127.0.0.1:{gateways[0].port}"),
        ("gateway-2.internal:8091", f"127.0.0.1:{gateways[1].port}"),
    ):
        assert ours in block
        block = block.replace(ours, test)
    (directory / "Caddyfile").write_text("{\n\tadmin off\n}\n" + block, encoding="utf-8")
    with (directory / "log").open("wb") as log:
        running = subprocess.Popen(
            [caddy, "run", "--config", directory / "Caddyfile", "--adapter", "caddyfile"],
            stdout=log,
            stderr=log,
            env={"HOME": str(directory), "PATH": "/usr/bin:/bin"},
        )
    try:
        wait_until(lambda: "serving initial configuration" in (directory / "log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@pytest.fixture(scope="module")
def browser_page(site: str) -> Iterator[Page]:
    path = chromium.choose()
    if path is None:
        not_run(chromium.NONE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.arguments())
        page = browser.new_page()
        page.set_default_timeout(SECONDS * 1000)
        yield page
        browser.close()


@pytest.mark.parametrize(
    ("path", "name", "shown"),
    [
        ("/guide.html", "<i>Ann</i> & Zoë", "Hello, <i>Ann</i> & Zoë!"),
        ("/sockjs.html?of=guide", "<i>Bob</i>", "Hello, <i>Bob</i>!"),
        ("/sockjs.html", "a text", "Submitted message: a text"),
    ],
)
def test_page_in_chromium_works_as_it_is_behind_the_proxy_of_the_docs(
    site: str, browser_page: Page, sender: SenderProcess, path: str, name: str, shown: str
) -> None:
    browser_page.goto(f"{site}{path}")
    expect(browser_page).to_have_title("connected", timeout=SECONDS * 1000)
    browser_page.fill("#name", name)
    browser_page.click("#send")
    expect(browser_page.locator("#heard li").first).to_have_text(shown, timeout=SECONDS * 1000)
    if path == "/sockjs.html":
        httpx2.post(f"{sender.url}/submit", content=b"from curl", trust_env=False).raise_for_status()
        expect(browser_page.locator("#heard li").last).to_have_text("Received message: from curl")
