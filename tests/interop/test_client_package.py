"""The browser client as an npm package, built from the sources, and four projects that use it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx2
import pytest
from playwright.sync_api import expect, sync_playwright

from tests import chromium
from tests.machine import not_run, program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import Processes

pytestmark = pytest.mark.long

CLIENT = Path(__file__).parents[2] / "receiver" / "browser"
CONSUMERS = Path(__file__).parent / "client"
INSTALL_SECONDS = 300
BUILD_SECONDS = 300
PATIENCE_MS = 60_000  # others have the processor, too

Command = list[str | Path]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules that consumers have beside the package."""
    folder = tmp_path_factory.mktemp("modules")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CONSUMERS / name, folder)
    npm = program("npm", "npm")
    installing: Command = [npm, "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(installing, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode != 0:
        not_run(f"npm gets no React, Vue, Vite and TypeScript here: {done.stderr[-300:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def tarball(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(CLIENT, folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(modules)
    name = run(program("npm", "npm"), "pack", "--loglevel=error", cwd=folder).split()[-1]
    return folder / name


@pytest.fixture(scope="module")
def consumer(modules: Path, tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has installed the package."""
    folder = tmp_path_factory.mktemp("consumer")
    shutil.copytree(CONSUMERS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(modules, folder / "node_modules", symlinks=True)
    unpacked = folder / "node_modules" / "@orderbell"
    with tarfile.open(tarball) as archive:
        archive.extractall(unpacked, filter="data")
    (unpacked / "package").rename(unpacked / "client")
    return folder


def test_package_has_each_module_its_types_and_nothing_of_the_pages(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    modules = {path.name for path in CLIENT.glob("*.js")}
    assert modules <= names
    assert {f"types/{name.removesuffix('.js')}.d.ts" for name in modules} <= names
    assert {"package.json", "toast.css", "bell.svg", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("shop", "bundle", "tsconfig", "node_modules"))]
    assert (CLIENT / "LICENSE").read_bytes() == (CLIENT.parents[1] / "LICENSE").read_bytes()
    manifest = json.loads((CLIENT / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest
    targets = [
        path for entry in manifest["exports"].values() if isinstance(entry, dict) for path in entry.values()
    ]
    assert {path.removeprefix("./") for path in targets} <= names


def test_types_hold_in_strict_typescript_and_refuse_what_is_wrong(consumer: Path) -> None:
    run(consumer / "node_modules" / ".bin" / "tsc", "--project", ".", cwd=consumer)


def test_types_hold_in_a_node_project_without_browser_types(consumer: Path) -> None:
    run(consumer / "node_modules" / ".bin" / "tsc", "--project", "tsconfig.node.json", cwd=consumer)


def test_node_receives_events_over_ws_also_when_it_has_reconnected(
    consumer: Path, processes: Processes
) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    token = processes.token("node")
    command: Command = [program("node", "nodejs"), "node.mjs", gateway.url, token, "2"]
    with (
        subprocess.Popen(
            command, cwd=consumer, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as node,
        httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as api,
    ):
        assert node.stdout is not None
        lines = iter(node.stdout)
        assert next(lines) == "open\n"
        for number in ("1", "2"):
            api.post("/orders", json={"order_id": number, "customer_id": "node"}).raise_for_status()
            api.post(f"/orders/{number}/complete", json={}).raise_for_status()
        assert [line.strip() for line in lines] == ["1", "2", "closed 1000"]
        assert node.wait(60) == 0


@pytest.fixture
def served(consumer: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(consumer / "built"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.mark.browser
@pytest.mark.parametrize("framework", ["react", "vue"])
def test_component_shows_each_alert_once_and_leaves_nothing_when_it_goes(
    consumer: Path, processes: Processes, served: str, framework: str, chromium_path: Path
) -> None:
    """React in StrictMode, which mounts everything twice; built by Vite."""
    vite: Command = [
        consumer / "node_modules" / ".bin" / "vite",
        "build",
        framework,
        "--outDir",
        f"../built/{framework}",
    ]
    run(*vite, "--base", "./", "--emptyOutDir", cwd=consumer)
    sender, gateway = processes.start_sender(), processes.start_receiver(allowed_origins=served)
    hash_ = urlencode({"url": gateway.url, "customer": framework, "token": processes.token(framework)})
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=chromium.arguments()) as browser,
        httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as api,
    ):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{served}/{framework}/#{hash_}")
        expect(page.locator("p[data-state]")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
        order = {"order_id": "1", "customer_id": framework, "data": {"message": "Order 1 is complete"}}
        api.post("/orders", json=order).raise_for_status()
        api.post("/orders/1/complete", json={}).raise_for_status()
        toast = page.locator(".orderbell-toast")
        toast.hover()  # or it may be gone before a busy machine has looked at it
        expect(toast).to_have_count(1)
        expect(toast).to_contain_text("Order 1 is complete")
        expect(page.locator("p[data-state]")).to_have_text("1", timeout=PATIENCE_MS)
        assert page.locator(".orderbell-toasts").count() == page.locator(".orderbell-announcer").count() == 1
        page.get_by_role("button", name="Leave").click()
        leftovers = page.locator(".orderbell-toasts, .orderbell-announcer")
        expect(leftovers).to_have_count(0, timeout=PATIENCE_MS)
    wait_until(lambda: gateway.records("connection closed"))
