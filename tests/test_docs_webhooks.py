"""docs/webhooks.md: its code verifies what the sender signs, and its figures are those of the code."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from sender import metrics
from sender.webhooks import courier
from sender.webhooks.message import Kind
from sender.webhooks.signature import signed_headers
from shared.settings import SenderSettings, known_names
from shared.webhook_secrets import parse_webhook_secret
from tests.webhooks.receiver import OTHER_SECRET, SECRET

PAGE = (Path(__file__).parent.parent / "docs" / "webhooks.md").read_text(encoding="utf-8")


def code(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    names: dict[str, Any] = {}
    exec(code("python"), names)
    return bool(names["verify"](secret, headers, body))


def signed(body: bytes, at: float, *secrets: str) -> dict[str, str]:
    return signed_headers([parse_webhook_secret(one) for one in secrets], "an-id", int(at), body)


def test_code_for_python_takes_what_the_sender_signs_and_nothing_else() -> None:
    body, now = b'{"type":"alert.shown"}', time.time()
    assert verify(SECRET, signed(body, now, SECRET), body)
    assert verify(SECRET, signed(body, now, OTHER_SECRET, SECRET), body)
    assert not verify(SECRET, signed(body, now, OTHER_SECRET), body)
    assert not verify(SECRET, signed(body, now, SECRET), body + b" ")
    assert not verify(SECRET, {**signed(body, now, SECRET), "webhook-id": "other"}, body)
    for at in (now - 301, now + 310):
        assert not verify(SECRET, signed(body, at, SECRET), body)


def test_settings_and_types_are_those_of_the_code() -> None:
    named = set(re.findall(r"ORDERBELL_[A-Z_]+", PAGE))
    assert named <= known_names()
    fields = SenderSettings.model_fields
    assert f"ORDERBELL_WEBHOOK_EVENTS={','.join(fields['webhook_events'].default)} " in PAGE
    assert f"NOT_SHOWN_SECONDS={fields['webhook_not_shown_seconds'].default} " in PAGE
    assert set(re.findall(r"`(alert\.\w+)`", PAGE)) == {kind.value for kind in Kind}
    assert tuple(fields["webhook_events"].default) == tuple(kind.value for kind in Kind)


def test_times_are_those_of_the_code() -> None:
    pace = courier.USUAL
    assert list(pace.again) == [5, 30, 300, 1_800, 2 * 3600, 5 * 3600, 10 * 3600]
    assert "after 5 s, 30 s, 5 min, 30 min, 2 h, 5 h, then every 10 h, each a fifth more or less" in PAGE
    assert (pace.jitter, pace.give_up, pace.max_pause) == (0.2, 3 * 86_400, 60)
    assert (pace.answer, pace.gone, pace.max_retry_after, pace.at_once) == (15, 3600, 86_400, 8)
    assert "no answer within 15 s" in PAGE


@pytest.mark.parametrize("metric", re.findall(r"^\| `(orderbell_\w+)`", PAGE, re.MULTILINE))
def test_metric_exists_from_the_start(metric: str) -> None:
    metrics.describe(SenderSettings.model_construct())
    text = generate_latest(metrics.registry).decode()
    assert re.search(rf"^{metric}(_count)?(\{{.*\}})? ", text, re.MULTILINE)
