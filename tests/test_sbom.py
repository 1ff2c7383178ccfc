"""The bill of materials lists what the lock file pins, and the audit reports what it could not ask."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_pinned_package_is_a_component_with_its_hashes() -> None:
    command = [sys.executable, str(ROOT / "deploy" / "sbom.py")]
    bill = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {
        f"{match[1].lower()}@{match[2]}"
        for match in re.finditer(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE)
    }
    assert {one["purl"].removeprefix("pkg:pypi/") for one in bill["components"]} == pinned
    assert len(pinned) > 10
    hashes = [digest["content"] for one in bill["components"] for digest in one["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", lock))
    assert all(one["hashes"] for one in bill["components"])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")


@pytest.mark.long
@pytest.mark.long
def test_audit_without_a_feed_says_so_and_does_not_pass(tmp_path: Path) -> None:
    """Without a package index and npm, nothing was checked, which is not a success."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("dirname", "mktemp", "rm", "tail", "git", "grep", "cat"):
        found = subprocess.run(["/bin/sh", "-c", f"command -v {name}"], capture_output=True, text=True)
        (tools / name).symlink_to(found.stdout.strip())
    nowhere = {
        "PATH": str(tools),
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "PIP_RETRIES": "0",
        "HOME": str(tmp_path),
    }
    command = ["/bin/sh", str(ROOT / "deploy" / "audit.sh"), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "requirements: NOT ASKED" in done.stdout
    assert "no npm here" in done.stdout
