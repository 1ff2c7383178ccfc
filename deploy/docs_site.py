"""The docs as a site: hooks of mkdocs.yml.

Pages keep their places in the repository, so that one set of relative links works on GitHub and on the site.
A link to a file that is not a page, or to a folder, leads to a page made from it.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files, InclusionLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
_PAGES = ("*.md", "docs/*.md", "bench/*.md")
_SHOWN_BYTES = 24_000  # of one file; larger ones are named
_FENCE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\\)(\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?\)")


def slugify(heading: str, separator: str) -> str:
    """As GitHub makes anchors of headings, so that links to them work in both places."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.mdx_configs["toc"] = {"slugify": slugify}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages and pictures at their paths from the root, and what they link to as pages."""
    theme = [file for file in files if not file.src_uri.endswith((".md", ".svg", ".png", ".json"))]
    found = Files(theme)
    for path in _pages():
        found.append(_file(path, config))
    for picture in sorted({*ROOT.glob("docs/*.svg"), *ROOT.glob("docs/*.png")}):
        found.append(_file(picture, config))
    for path in sorted({target for page in _pages() for target in _shown(page)}):
        name = _page_name(path)
        found.append(
            File.generated(config, name, content=_shown_as_page(path), inclusion=InclusionLevel.NOT_IN_NAV)
        )
    return found


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to what is not a page lead to the page made from it."""
    if page.file.abs_src_path is None:
        return markdown
    source = Path(page.file.abs_src_path)

    def link(match: re.Match[str]) -> str:
        target = _target(source, match[2])
        if target is None or not _is_shown(target):
            return match[0]
        way = os.path.relpath(ROOT / _page_name(target), source.parent)
        return f"{match[1]}{way})"

    parts = _FENCE.split(markdown)
    return "".join(part if _FENCE.fullmatch(part) else _LINK.sub(link, part) for part in parts)


def _pages() -> list[Path]:
    return sorted({page for pattern in _PAGES for page in ROOT.glob(pattern)})


def _file(path: Path, config: MkDocsConfig) -> File:
    uri = path.relative_to(ROOT).as_posix()
    return File(uri, str(ROOT), config.site_dir, use_directory_urls=False)


def _target(source: Path, link: str) -> Path | None:
    """The file of ours that a page links to."""
    if re.match(r"[a-z]+:", link):
        return None
    target = (source.parent / link).resolve()
    return target if target.exists() and target.is_relative_to(ROOT) else None


def _is_shown(path: Path) -> bool:
    return path.is_dir() or path.suffix not in (".md", ".svg", ".png")


def _shown(page: Path) -> Iterator[Path]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in _LINK.finditer(text):
        target = _target(page, match[2])
        if target is not None and _is_shown(target):
            yield target


def _page_name(path: Path) -> str:
    return f"{path.relative_to(ROOT).as_posix()}.md"


@functools.cache
def _shown_as_page(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    if path.is_file():
        return f"# {name}\n\n{_block(path)}"
    parts = [f"# {name}/\n"]
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            shown = _block(file) if _is_short_text(file) else _size(file)
            parts.append(f"## {file.relative_to(path).as_posix()}\n\n{shown}")
    return "\n".join(parts)


def _is_short_text(file: Path) -> bool:
    content = file.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return len(content) <= _SHOWN_BYTES


def _size(file: Path) -> str:
    return f"{file.stat().st_size // 1000} kB, in the repository.\n"


def _block(file: Path) -> str:
    """Indented, since a file may contain fences."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)
