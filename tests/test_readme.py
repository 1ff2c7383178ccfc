"""The README is true: the tests and settings that it names exist, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from shared.settings import PREFIX, ReceiverSettings, SenderSettings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_guarantee_names_a_test_that_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", README))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert len(named) > 5
    assert named <= defined


def test_every_setting_is_listed() -> None:
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    names = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    listed = {name for cell in names for name in re.findall(r"`([A-Z][A-Z_]+)`", cell)}
    fields = {*SenderSettings.model_fields, *ReceiverSettings.model_fields}
    assert {field.upper() for field in fields} - {"DEVELOPMENT"} == listed  # that one `orderbell up` sets
    assert PREFIX in README


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
