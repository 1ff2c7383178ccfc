"""The message is what the OpenAPI document and the docs' page say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from sender.http.openapi import document
from sender.http.routes import CALLS
from sender.webhooks.message import MEDIA_TYPE, AlertEvent, Kind, WebhookMessage, encode, message_id
from shared.channels import Channel
from shared.cursors import Cursor, Place

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


def message(kind: Kind, seconds: float | None = None) -> bytes:
    return encode(
        kind,
        "0d7f3c0e5a4b4a4f9be2f0c1d7a8e6b5",
        Cursor(Channel("customer:alice"), Place(1, 42)),
        "alice",
        time="2026-11-23T14:30:00.123Z",
        recorded_at="2026-11-23T14:25:00.123Z",
        event=AlertEvent("/orderbell/sender", "019…", "order.completed", "1042"),
        seconds=seconds,
    )


@pytest.mark.parametrize("kind", Kind)
def test_message_is_the_one_of_the_openapi_document(kind: Kind) -> None:
    described = document(CALLS)
    body = described["webhooks"][kind.value]["post"]["requestBody"]["content"][MEDIA_TYPE]["schema"]
    schema: dict[str, Any] = {**body, "components": described["components"]}
    jsonschema.validate(msgspec.json.decode(message(kind)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"type": kind.value}, schema)


def test_message_of_the_page_is_one_of_ours() -> None:
    (shown,) = re.findall(
        r'^\{"specversion".*?\}\}$', PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    ours = message(Kind.NOT_SHOWN_IN, 300.0)
    assert msgspec.json.decode(shown, type=WebhookMessage) == msgspec.json.decode(ours, type=WebhookMessage)
    assert msgspec.json.decode(shown) == msgspec.json.decode(ours)


def test_ids_of_two_kinds_differ_and_have_no_dot() -> None:
    ids = {message_id("d" * 32, kind) for kind in Kind}
    assert len(ids) == len(Kind)
    assert not [one for one in ids if "." in one]
