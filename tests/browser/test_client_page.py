"""docs/client.md: its policy is enough, and its table has all events."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import evaluate, violations, watch
from tests.chaos.proxy import Proxy, Toxics

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, BrowserContext

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
MOST_BYTES = 17_500  # script and style, with headers
CLIENT = (ROOT / "receiver" / "browser" / "source.js").read_text(encoding="utf-8")


def test_policy_that_it_prints_is_enough_and_no_part_of_it_too_much(
    context: BrowserContext, orderbell: Services, module_processes: Processes
) -> None:
    (policy,) = re.findall(r"^script-src .*$", PAGE, re.MULTILINE)
    gateway = orderbell.gateways[1].url
    policy = policy.replace("https://alerts.example", gateway)
    policy = policy.replace("wss://alerts.example", gateway.replace("http", "ws"))
    watch(context)
    page = context.new_page()
    page.goto(f"{orderbell.shop}metrics")
    meta = f'<meta http-equiv="content-security-policy" content="default-src \'none\'; {policy}">'
    style = f'<link rel="stylesheet" href="{gateway}/client/v1/toast.css">'
    page.evaluate("(html) => document.head.insertAdjacentHTML('beforeend', html)", meta + style)
    evaluate(
        page,
        """
        const { AlertSource, Toasts } = await import(given.gateway + "/client/v1/orderbell.js");
        const toasts = new Toasts();
        const getToken = () => ({ token: given.token });
        const alerts = new AlertSource(given.gateway, { key: given.customer, getToken });
        alerts.addEventListener("alert", ({ detail }) => toasts.show(detail));
        await new Promise((resolve) => alerts.addEventListener("open", resolve, { once: true }));
        """,
        {
            "gateway": gateway,
            "customer": orderbell.customer,
            "token": module_processes.token(orderbell.customer),
        },
    )
    orderbell.place_and_complete("1")
    expect(page.locator(".orderbell-toast")).to_contain_text("Order 1 is complete")
    assert (
        page.locator(".orderbell-toasts").evaluate("(region) => getComputedStyle(region).position") == "fixed"
    )
    assert violations(page) == []
    refused = "return fetch('/livez').then(() => 'allowed', () => 'refused')"
    assert evaluate(page, refused) == "refused"  # it is a policy


@pytest.mark.parametrize("right", [True, False])
def test_file_that_may_be_kept_is_checked_against_the_import_map(
    context: BrowserContext, orderbell: Services, right: bool
) -> None:
    base = f"{orderbell.gateways[1].url}/client/v1/"
    listed = httpx2.get(f"{base}manifest.json", trust_env=False).raise_for_status().json()["orderbell.js"]
    integrity = listed["integrity"] if right else f"sha384-{'A' * 64}"
    url = base + listed["name"]
    page = context.new_page()
    page.goto(f"{orderbell.shop}metrics")
    imports = json.dumps({"imports": {"orderbell": url}, "integrity": {url: integrity}})
    loading = """
        const map = document.createElement("script");
        document.head.append(Object.assign(map, { type: "importmap", textContent: given }));
        return import("orderbell").then(({ Toasts }) => typeof Toasts, () => "refused");
    """
    assert evaluate(page, loading, imports) == ("function" if right else "refused")


# Loads the client with its style, and connects: how long that takes, and what is requested for it.
_LOAD = """
    performance.clearResourceTimings();
    const start = performance.now();
    const link = document.createElement("link");
    const styled = new Promise((resolve) => (link.onload = resolve));
    document.head.append(Object.assign(link, { rel: "stylesheet", href: "/client/v1/toast.css" }));
    const { AlertSource, Toasts } = await import("/client/v1/orderbell.js");
    await styled;
    if (Toasts) new Toasts();
    const getToken = () => ({ token: given.token });
    const alerts = new AlertSource(location.origin, { key: given.customer, getToken });
    await new Promise((resolve) => alerts.addEventListener("open", resolve, { once: true }));
    const milliseconds = performance.now() - start;
    const resources = performance.getEntriesByType("resource");
    const loaded = resources.map(({ name, transferSize }) => [name, transferSize]);
    return { milliseconds, loaded };
"""


@pytest.mark.long
def test_at_100_ms_of_latency_the_client_needs_two_requests_until_it_is_open(
    browser: Browser,
    orderbell: Services,
    module_processes: Processes,
    process_group: int,
    record_property: Callable[[str, object], None],
) -> None:
    """Round trips, after a TCP connection stands; run it with `-rP` for its figures, medians of five."""
    given = {"customer": orderbell.customer, "token": module_processes.token(orderbell.customer)}
    rounds = []
    with Proxy(process_group) as proxy:
        port = proxy.open("page", orderbell.gateways[0].port)
        way = Toxics(latency_seconds=0.05)
        proxy.change("page", up=way, down=way)
        for _ in range(5):
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/livez")
            rounds.append(evaluate(page, _LOAD, given))
            context.close()
    milliseconds = statistics.median(one["milliseconds"] for one in rounds)
    sizes = dict(rounds[-1]["loaded"])
    record_property("milliseconds", milliseconds)
    record_property("bytes", sum(sizes.values()))
    print(f"{len(sizes)} requests, {sum(sizes.values())} bytes, open after {milliseconds:.0f} ms")
    assert {name.rpartition("/")[2] for name in sizes} == {"orderbell.js", "toast.css"}
    assert sum(sizes.values()) <= MOST_BYTES
    assert milliseconds >= 300  # file, handshake, hello: else nothing was delayed


def test_table_has_every_event_that_the_client_fires() -> None:
    section = PAGE.partition("## Events")[2].partition("##")[0]
    rows = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    assert rows == set(re.findall(r"^ \* @fires (\w+)", CLIENT, re.MULTILINE))


def test_time_after_which_a_toast_counts_as_seen_is_the_clients() -> None:
    toast = (ROOT / "receiver" / "browser" / "toast.js").read_text(encoding="utf-8")
    (milliseconds,) = re.findall(r"^const SEEN_MS = (\d+);", toast, re.MULTILINE)
    assert f"visible screen for {int(milliseconds) / 1000:g} s" in PAGE
