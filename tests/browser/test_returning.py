"""receiver/browser/returning.js."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

IMPORT = "const { Backoff, answerTo } = await import('/client/v1/returning.js');"
STOP = [1000, 1002, 1003, 1007, 1008, 1009, 4400]
RETURN = [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 4408, 4409, 4429, 4999]


def test_every_close_code_has_its_answer(page: Page) -> None:
    codes = [*STOP, *RETURN, 4401, 4403]
    answers = evaluate(page, f"{IMPORT} return given.map((code) => answerTo(code).does)", codes)
    expected = ["stop"] * len(STOP) + ["return"] * len(RETURN) + ["authenticate", "forget"]
    assert dict(zip(codes, answers, strict=True)) == dict(zip(codes, expected, strict=True))


def test_the_delay_doubles_up_to_thirty_seconds_with_full_jitter(page: Page) -> None:
    longest, half = (
        evaluate(
            page,
            f"""{IMPORT}
            const backoff = new Backoff(() => given);
            return Array.from({{ length: 9 }}, () => backoff.next(answerTo(1006)));""",
            random,
        )
        for random in (1, 0.5)
    )
    assert longest == [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
    assert half == [delay / 2 for delay in longest]


@pytest.mark.parametrize(
    ("code", "delays"),
    [
        (1012, [5000, 1000]),  # spread first, then as any
        (1013, [5000, 1000]),
        (4409, [30500, 31000]),
        (4429, [5500, 6000]),
    ],
)
def test_some_codes_ask_for_more_time(page: Page, code: int, delays: list[float]) -> None:
    script = "const backoff = new Backoff(() => 1); return [0, 1].map(() => backoff.next(answerTo(given)))"
    assert evaluate(page, IMPORT + script, code) == delays


def test_only_a_connection_that_lived_starts_the_count_anew(page: Page) -> None:
    attempts = evaluate(
        page,
        f"""{IMPORT}
        const backoff = new Backoff(() => 1);
        const after = (ms) => (backoff.next(answerTo(1006)), backoff.lived(ms), backoff.attempt);
        return [0, 4_999, 5_000].map(after);""",
    )
    assert attempts == [1, 2, 0]
