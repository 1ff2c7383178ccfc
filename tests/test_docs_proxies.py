"""docs/proxies.md shows the files that are shipped and tested, as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.settings import known_names

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")
FILES = sorted((ROOT / "deploy" / "proxies").iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_page_shows_the_file_that_is_tested(file: Path) -> None:
    blocks = re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert file.read_text(encoding="utf-8") in blocks


def test_page_names_settings_that_there_are() -> None:
    named = set(re.findall(r"ORDERBELL_[A-Z_]+[A-Z]", PAGE))
    assert named
    assert named <= known_names()
