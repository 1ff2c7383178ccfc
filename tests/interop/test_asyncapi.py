"""A gateway's `/asyncapi.json` against the schema that AsyncAPI publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from receiver.serving import asyncapi
from shared.redis.keys import Names
from tests.machine import install_packages

pytestmark = pytest.mark.long

HERE = Path(__file__).parent / "asyncapi"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    install_packages(HERE)
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
