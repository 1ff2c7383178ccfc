"""Below a path of another site, whether its proxy strips the path or not: pages, calls, sockets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx2
import pytest

from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess, ServiceProcess

pytestmark = pytest.mark.anyio

_LINK = re.compile(
    r'(?:href|src)="([^"#]+)"|^(?:import|\}).* from "([^"]+)"|fetch\(["`]([^"`$?]+)', re.MULTILINE
)


@pytest.fixture(scope="module", params=["sender", "receiver"])
def service(request: pytest.FixtureRequest, module_processes: Processes) -> ServiceProcess:
    settings = {"root_path": "/alerts", "development": "1"}
    if request.param == "sender":
        return module_processes.start_sender(**settings)  # type: ignore[arg-type] # none of these is another option
    module_processes.start_sender()
    return module_processes.start_receiver(**settings)  # type: ignore[arg-type]


async def links_of(client: httpx2.AsyncClient, url: str) -> set[str]:
    """The links of the page and its scripts, as a browser would resolve them."""
    page = await client.get(url)
    assert page.status_code == 200
    todo, found = {url}, set[str]()
    while todo:
        at = todo.pop()
        text = (await client.get(at)).text
        for link, module, call in _LINK.findall(text):
            target = urljoin(at if module else url, link or module or call)  # calls are relative to the page
            if target not in found and not call:
                found.add(target)
                if target.endswith(".js"):
                    todo.add(target)
            elif call:
                found.add(target)
    return found


@pytest.mark.parametrize("path", ["/alerts/", "/"])
async def test_page_refers_to_nothing_outside_of_its_path(service: ServiceProcess, path: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        links = await links_of(client, service.url + path)
        assert len(links) > 3
        for link in links:
            assert link.startswith(service.url + path), link
            assert (await client.get(link)).status_code in (200, 401, 405), (
                link
            )  # there, if not for this call


async def test_path_without_its_slash_leads_to_the_page(service: ServiceProcess) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{service.url}/alerts?gateway=1")
        assert (answer.status_code, answer.headers["location"]) == (308, "/alerts/?gateway=1")


async def test_socket_below_the_path_is_the_same(module_processes: Processes) -> None:
    module_processes.start_sender()
    gateway: ReceiverProcess = module_processes.start_receiver(root_path="/alerts")
    url = gateway.url
    for path in ("", "/alerts"):
        gateway.url = url + path
        async with connected(gateway, module_processes.token("alice")):
            pass
    gateway.url = url
