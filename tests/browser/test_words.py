"""receiver/browser/words.js and languages.js: the text for any event, in the page's language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import evaluate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

TEXT_OF = """
    const { textOf } = await import("/client/v1/words.js");
    const messages = {
      "order.ready": "Order {order} is ready, {name}",
      "order.late": ({ minutes }) => (minutes.toFixed() === "1" ? "One minute late" : "Late"),
    };
    return textOf(given, messages);
"""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"message_key": "order.ready", "values": {"order": 1042, "name": "Al"}}, "Order 1042 is ready, Al"),
        ({"message_key": "order.ready", "values": {"order": "1042"}}, "Order 1042 is ready, …"),
        ({"message_key": "order.ready"}, "Order … is ready, …"),
        ({"message_key": "order.ready", "values": {"order": {"a": 1}, "name": []}}, "Order … is ready, …"),
        ({"message_key": "order.late", "values": {"minutes": 1}}, "One minute late"),
        ({"message_key": "order.late", "values": {}, "message": "Late by now"}, "Late by now"),
        ({"message_key": "unknown", "message": "Order 7"}, "Order 7"),
        ({"message_key": "constructor", "message": "Order 7"}, "Order 7"),
        ({"message_key": "__proto__"}, "Order completed: 7"),
        ({"message": "\u200b\u2060 \u202e"}, "Order completed: 7"),
        ({"message_key": ["order.ready"], "message": "Order 7"}, "Order 7"),
        ({"message_key": "order.ready", "values": {"order": "{x}", "name": "A"}}, "Order {x} is ready, A"),
    ],
)  # fmt: skip
def test_message_is_found_by_its_key_and_filled_with_values(page: Page, data: Any, text: str) -> None:
    event = {"type": "com.example.order.completed.v1", "subject": "7", "data": data}
    assert evaluate(page, TEXT_OF, event) == text


def test_value_that_runs_the_other_way_turns_round_nothing_but_itself(page: Page) -> None:
    def text(order: str) -> str:
        data = {"message_key": "order.ready", "values": {"order": order, "name": "A"}}
        said: str = evaluate(page, TEXT_OF, {"data": data})
        return said

    assert text("\u202e1042") == "Order 1042 is ready, A"
    assert text("הזמנה\u202e") == "Order \u2068הזמנה\u2069 is ready, A"


@pytest.mark.parametrize(
    ("data", "severity"),
    [
        ({"severity": "critical"}, "critical"),
        ({"severity": "warning"}, "warning"),
        ({"severity": "CRITICAL"}, "info"),
        ({"severity": ["critical"]}, "info"),
        ({"severity": None}, "info"),
        ({}, "info"),
        (None, "info"),
        ("critical", "info"),
        (7, "info"),
    ],
)
def test_severity_is_one_of_four(page: Page, data: Any, severity: str) -> None:
    script = "return (await import('/client/v1/words.js')).severityOf(given)"
    assert evaluate(page, script, {"data": data}) == severity


def test_every_language_has_every_text(page: Page) -> None:
    faults = evaluate(
        page,
        """
        const { ENGLISH } = await import("/client/v1/words.js");
        const { LANGUAGES } = await import("/client/v1/languages.js");
        const missing = (one, other, at) => Object.keys(one).flatMap((name) => {
          if (typeof one[name] === "object") return missing(one[name], other[name] ?? {}, `${at}.${name}`);
          return typeof other[name] === typeof one[name] ? [] : [`${at}.${name}`];
        });
        const odd = (lang, texts) => (texts.lang === lang && texts.summary(3).includes("3") ? [] : [lang]);
        return Object.entries(LANGUAGES).flatMap(([lang, texts]) =>
          [...missing(ENGLISH, texts, lang), ...odd(lang, texts)]);
        """,
    )
    assert faults == []
