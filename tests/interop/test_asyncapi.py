"""A gateway's `/asyncapi.json` against the schema that AsyncAPI publishes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from receiver.serving import asyncapi
from shared.redis.keys import Names
from tests.machine import not_run, program

pytestmark = pytest.mark.long

HERE = Path(__file__).parent / "asyncapi"
INSTALL_SECONDS = 300


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    installing: list[Path | str] = [program("npm", "npm"), "ci", "--prefer-offline", "--ignore-scripts"]
    installing += ["--no-audit", "--no-fund", "--prefix", HERE]
    done = subprocess.run(installing, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode != 0:
        not_run(f"npm gets no AsyncAPI schemas here: {done.stderr[-300:]}")
    file = HERE / "node_modules/@asyncapi/specs/schemas/3.0.0.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_document_is_valid_asyncapi_3(schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft7Validator(schema)
    faults = [fault.message for fault in validator.iter_errors(asyncapi.document(Names("ob", 3)))]
    assert faults == []


def test_schema_would_find_a_fault(schema: dict[str, Any]) -> None:
    broken = asyncapi.document(Names())
    broken["operations"]["hear"]["action"] = "shout"
    assert not jsonschema.Draft7Validator(schema).is_valid(broken)
