"""The docs as a site: every page has its place, links lead somewhere, nothing is fetched from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests import machine
from tests.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

_FETCHED = {"src", "srcset", "poster", "data"}  # attributes; and the href of a <link>


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self._preformatted = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._preformatted += tag == "pre"
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name == "href" and tag == "a" and value:
                self.links.append(value)
            elif value and (name in _FETCHED or (name == "href" and tag == "link")):
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._preformatted -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if not self._preformatted:
            self.text += data


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    if find_spec("mkdocs") is None:
        machine.not_run("no mkdocs; `make docs` installs it")
    # Not --quiet: it hides warnings from --strict, too.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)


def test_every_link_of_the_site_leads_somewhere_and_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    built = build(REPOSITORY, tmp_path)
    assert built.returncode == 0, built.stderr
    pages = {path.resolve(): Page(path) for path in tmp_path.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 20
    for path, page in pages.items():
        name = path.relative_to(tmp_path)
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            way, _, anchor = link.partition("#")
            target = (path.parent / unquote(way)).resolve() if way else path
            assert target.is_file(), f"{name}: {link}"
            assert not anchor or target not in pages or unquote(anchor) in pages[target].ids, (
                f"{name}: {link}"
            )
        for address in page.fetched:
            assert "//" not in address, f"{name} fetches {address}"
            assert (path.parent / unquote(address.partition("?")[0])).is_file(), f"{name}: {address}"
        assert "|---" not in page.text, f"{name} has a table that is none"
        assert "```" not in page.text, f"{name} has a block that is none"
    for sheet in tmp_path.rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8").replace('"', "").replace("'", "")


@pytest.mark.long
@pytest.mark.long
def test_page_without_a_place_and_link_to_nowhere_end_the_build(tmp_path: Path) -> None:
    config = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[0]
    (tmp_path / "mkdocs.yml").write_text(config + "nav: [README.md, docs/one.md]\n", encoding="utf-8")
    for folder in ("deploy", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "deploy" / "docs_site.py").write_bytes((REPOSITORY / "deploy" / "docs_site.py").read_bytes())
    (tmp_path / "README.md").write_text("# A\n\n[one](docs/one.md#a--b) [hooks](deploy)\n", encoding="utf-8")
    one = tmp_path / "docs" / "one.md"
    one.write_text("# One\n\n## A – B\n", encoding="utf-8")
    assert build(tmp_path, tmp_path / "site").returncode == 0
    assert "docs_site.py" in (tmp_path / "site" / "deploy.html").read_text(encoding="utf-8")
    one.write_text("# One\n\n[no file](two.md) [no heading](#a--c)\n", encoding="utf-8")
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n", encoding="utf-8")
    refused = build(tmp_path, tmp_path / "site")
    assert refused.returncode == 1
    for wrong in ("two.md", "#a--c", "docs/lost.md", "#a--b"):
        assert wrong in refused.stderr
