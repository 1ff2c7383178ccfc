"""The bill of materials of a release, CycloneDX 1.5 in JSON: what requirements.lock pins, with its hashes.

The same lock gives the same document, so a difference between two releases is one of dependencies.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill_of_materials(lock: str, version: str) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "orderbell", "version": version}},
        "components": [_component(block) for block in _blocks(lock)],
    }


def _blocks(lock: str) -> list[str]:
    """Each requirement with its hashes, which follow on lines of their own."""
    blocks: list[str] = []
    for line in lock.splitlines():
        if _PINNED.match(line):
            blocks.append(line)
        elif blocks and line.lstrip().startswith("--hash"):
            blocks[-1] += line
    return blocks


def _component(block: str) -> dict[str, Any]:
    match = _PINNED.match(block)
    assert match is not None
    name, version = match[1].lower(), match[2]
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(block)],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shared import __version__

    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    print(json.dumps(bill_of_materials(lock, __version__), indent=2))
