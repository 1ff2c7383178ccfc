"""receiver/pages/client.py: the browser client as one small file, under a name that may be kept for ever."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from typing import TYPE_CHECKING

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from receiver.pages import client as module
from receiver.pages.client import BUNDLE, FOLDER, ClientFiles, built_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

LARGEST = 14_890  # bytes, toasts included, without their style; docs/client.md has the figure


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = Starlette(routes=[Mount("/client/v1", ClientFiles(built_files()))])
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway/client/v1/") as client:
        yield client


def test_bundle_is_made_from_these_sources() -> None:
    assert set(built_files()) == {"orderbell.js", "toast.css"}, "receiver/browser was changed: make client"


async def test_client_is_one_small_file(client: httpx2.AsyncClient) -> None:
    answer = await client.get("orderbell.js", headers={"accept-encoding": "br"})
    assert answer.headers["content-encoding"] == "br"
    assert int(answer.headers["content-length"]) <= LARGEST
    plain = await client.get("orderbell.js", headers={"accept-encoding": "identity"})
    assert not re.search(r'\b(import|export)\b[^;(]*\bfrom\s*"', plain.text)


async def test_what_is_imported_later_is_there(client: httpx2.AsyncClient) -> None:
    script = (await client.get("orderbell.js", headers={"accept-encoding": "identity"})).text
    later = re.findall(r'import\("\./([^"]+)"\)', script)
    assert len(later) >= 3
    for name in later:
        text = (await client.get(name)).raise_for_status().text
        for neighbour in re.findall(r'^import .* from "([^"]+)";$', text, re.MULTILINE):
            assert neighbour == "./http.js", f"{name} would load a part of the bundle once more"


async def test_named_files_may_be_kept_for_ever_and_are_what_the_list_says(
    client: httpx2.AsyncClient,
) -> None:
    listed = (await client.get("manifest.json")).raise_for_status().json()
    for source, file in listed.items():
        stable = await client.get(source, headers={"accept-encoding": "identity"})
        named = await client.get(file["name"], headers={"accept-encoding": "identity"})
        assert named.content == stable.content
        assert "immutable" in named.headers["cache-control"]
        assert stable.headers["cache-control"] == "no-cache"
        digest = base64.b64encode(hashlib.sha384(named.content).digest()).decode()
        assert file["integrity"] == f"sha384-{digest}"
        assert hashlib.sha256(named.content).hexdigest()[:12] in file["name"]
        assert named.headers["access-control-allow-origin"] == "*"
        assert named.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_name_of_another_version_is_answered_with_this_one_and_not_kept(
    client: httpx2.AsyncClient,
) -> None:
    """While gateways are replaced, a page may ask a new one for the old name, or an old one for the new."""
    other = await client.get("orderbell-0.0.9-0123456789ab.js")
    assert other.content == (BUNDLE / "orderbell.js").read_bytes()
    assert other.headers["cache-control"] == "no-cache"
    assert (await client.get("other-0.0.9-0123456789ab.js")).status_code == 404


async def test_sources_that_were_changed_are_served_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "browser"
    shutil.copytree(FOLDER, changed)
    with (changed / "toast.js").open("a", encoding="utf-8") as source:
        source.write("// something new\n")
    monkeypatch.setattr(module, "FOLDER", changed)
    monkeypatch.setattr(module, "BUNDLE", changed / "bundle")
    built = built_files()
    assert set(built) == {"toast.css"}
    app = Starlette(routes=[Mount("/client/v1", ClientFiles(built))])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway") as client:
        assert "from" in (await client.get("/client/v1/orderbell.js")).text
        assert "something new" in (await client.get("/client/v1/toast.js")).text


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("br;q=0, gzip", "gzip"),
        ("BR", "br"),
        ("gzip;q=0.5, br;q=0.0", "gzip"),
        ("gzip; q=0", None),
        ("*", "br"),
        ("*;q=0", None),
        ("bright, gzipped", None),
        ("identity", None),
        ("", None),
    ],
)
async def test_only_a_coding_that_is_accepted_is_sent(
    client: httpx2.AsyncClient, accepted: str, coding: str | None
) -> None:
    answer = await client.get("orderbell.js", headers={"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"] == "accept-encoding"
    again = await client.get(
        "orderbell.js", headers={"accept-encoding": accepted, "if-none-match": answer.headers["etag"]}
    )
    assert again.status_code == 304
