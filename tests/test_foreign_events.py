"""Whatever a client sends, it gets no event of a channel that its token does not name."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import pytest

from tests.gateways import run_gateway
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gateways import Browser, RunningGateway

pytestmark = pytest.mark.anyio

VICTIM = "alice"
ATTACKER = "mallory"
# Spellings of the victim's name, for attackers who hope that it is folded, decoded or cut somewhere.
NAMES = [
    VICTIM,
    "Alice",
    "alice.",
    "alice%00",
    "%61lice",
    "alicе",
    "alice\u200b",
    "mallory=1.0,customer:alice",
]
TYPES = ["orderbell.seen", "orderbell.auth", "orderbell.ping", "orderbell.subscribe", "order.completed", ""]
EXAMPLES = 400  # in all runs; `make test-long` tries the 10,000


def message(chance: random.Random) -> bytes:
    """Messages that a client might send: close to those of our clients, or far from them."""
    name = chance.choice(NAMES)
    cursor = f"customer:{name}={chance.randint(-1, 3)}.{chance.randint(0, 2**60)}"
    data = chance.choice(
        [
            {"cursor": cursor},
            {"cursor": f"customer:{ATTACKER}=1.0,{cursor}"},
            {"token": chance.choice(["", "x.y.z", cursor])},
            {"ticket": cursor, "channel": f"customer:{name}", "sub": name},
            {"channels": [f"customer:{name}"], "customer_id": name},
            [cursor],
            None,
        ]
    )
    event = {"specversion": "1.0", "type": chance.choice(TYPES), "subject": name, "data": data}
    text = json.dumps(event | {"channel": f"customer:{name}"}).encode()
    if chance.random() < 0.2:
        cut = chance.randrange(len(text))
        text = text[:cut] + chance.randbytes(chance.randint(0, 4)) + text[cut + chance.randint(0, 2) :]
    return text


async def attack(gateway: RunningGateway, chance: random.Random) -> Browser:
    """One connection, and the events that it got after asking for others' events."""
    after = chance.choice(["", f"customer:{ATTACKER}=1.0", f"customer:{ATTACKER}=9.9"])
    async with gateway.connected(ATTACKER, after) as browser:
        for _ in range(chance.randint(1, 4)):
            frame = browser.protocol
            if chance.random() < 0.5:
                frame.send_text(message(chance))
            else:
                frame.send_binary(chance.randbytes(chance.randint(0, 40)) + message(chance))
            try:
                await browser.send(b"".join(frame.data_to_send()))
            except OSError:
                break
            if browser.close is not None:
                break
        await asyncio.sleep(0)
    return browser


async def try_examples(path: Path, redis_url: str, key_prefix: str, count: int) -> None:
    async with (
        run_sender(f"sqlite:///{path / 'orderbell.db'}", redis_url, key_prefix) as sender,
        run_gateway(sender.client, redis_url, key_prefix) as gateway,
        gateway.connected(VICTIM) as victim,
    ):
        chance = random.Random(17)
        orders = 0
        for n in range(count):
            if n % 20 == 0:
                orders += 1
                await sender.place(str(orders), VICTIM)
                await sender.complete(str(orders))
            browser = await attack(gateway, chance)
            told = json.dumps([*browser.events, *browser.notices])
            assert browser.events == [], f"example {n}"
            assert f"customer:{VICTIM}" not in told, f"example {n}"
        await await_until(lambda: len(victim.events) == orders)
        assert victim.seen == []  # and no cursor was moved


async def test_whatever_a_client_sends_it_gets_no_event_of_a_channel_that_its_token_does_not_name(
    tmp_path: Path, redis_url: str, key_prefix: str
) -> None:
    await try_examples(tmp_path, redis_url, key_prefix, EXAMPLES)


@pytest.mark.long
async def test_nor_in_ten_thousand_examples(tmp_path: Path, redis_url: str, key_prefix: str) -> None:
    await try_examples(tmp_path, redis_url, key_prefix, 10_000)
